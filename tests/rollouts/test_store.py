"""The store: what is written is what was sampled, a killed run goes on, other settings are refused by name."""

import dataclasses
import functools
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from synthrl_jax import rollouts
from synthrl_jax.policy import decoder
from synthrl_jax.policy.checkpoint import Policy
from synthrl_jax.rollouts import Fork, Root, Settings, store

SETTINGS = Settings(max_tokens=8, stop_ids=(3,), rows=8)


@functools.cache
def policy(seed=0):
    config = decoder.DecoderConfig(vocab_size=31, width=16, layers=1, heads=2)
    return Policy(config, decoder.init(config, jax.random.key(seed)))


def with_config(**changes):
    return dataclasses.replace(policy(), config=dataclasses.replace(policy().config, **changes))


def roots():
    random = np.random.default_rng(0)
    return [Root(f"r{i:02d}", random.integers(0, 31, 10), (10, 4), n=2) for i in range(7)]


def run(directory, **changes):
    arguments = {"policy": policy(), "roots": roots(), "settings": SETTINGS, "seed": 5, "shard_roots": 3} | changes
    return list(rollouts.sample_to_store(directory, **arguments, progress=False))


def contents(directory):
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def test_the_store_gives_what_the_sampler_gave_in_the_order_of_the_roots(tmp_path):
    found = run(tmp_path)
    assert found == list(rollouts.read_store(tmp_path))
    assert [(c.root_id, c.fork, c.index) for c in found] == [
        (root.id, fork, index) for root in roots() for fork in (10, 4) for index in (0, 1)
    ]
    direct = {(c.root_id, c.fork, c.index): c for c in rollouts.sample(policy(), roots(), SETTINGS, 5)}
    for c in found:
        want = direct[c.root_id, c.fork, c.index]
        assert (c.tokens, c.finish, c.model_logprobs) == (want.tokens, want.finish, None)
        np.testing.assert_allclose(c.logprobs, want.logprobs, atol=1e-5)


def test_model_logprobs_are_kept_where_they_were_asked_for(tmp_path):
    found = run(tmp_path, settings=dataclasses.replace(SETTINGS, model_logprobs=True, temperature=0.5))
    assert all(len(c.model_logprobs) == len(c.tokens) and c.model_logprobs != c.logprobs for c in found)


@pytest.mark.parametrize("sampler", ["static", "grouped"])
def test_prompt_logprobs_are_kept_where_they_were_asked_for(tmp_path, sampler):
    settings = dataclasses.replace(SETTINGS, prompt_logprobs=True, sampler=sampler)
    found = run(tmp_path, settings=settings)
    direct = {(c.root_id, c.fork, c.index): c for c in rollouts.sample(policy(), roots(), settings, 5)}
    for c in found:
        assert len(c.prompt_logprobs) == c.fork and c.prompt_logprobs[0] == 0
        np.testing.assert_allclose(c.prompt_logprobs, direct[c.root_id, c.fork, c.index].prompt_logprobs, atol=1e-5)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("dies_before_write", [0, 1, 2, 3])
@pytest.mark.parametrize("sampler", ["static", "grouped"])
def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path, monkeypatch, dies_before_write, sampler):
    settings = dataclasses.replace(SETTINGS, sampler=sampler)
    run(tmp_path / "whole", settings=settings)
    real, writes = store.write_atomically, []

    def failing(path, content):
        if len(writes) == dies_before_write:
            (path.parent / f".{path.name}.123").write_bytes(content[: len(content) // 2])
            raise Killed
        writes.append(path)
        real(path, content)

    monkeypatch.setattr(store, "write_atomically", failing)
    (tmp_path / "killed").mkdir()
    with pytest.raises(Killed):
        run(tmp_path / "killed", settings=settings)
    sampled = []
    monkeypatch.setattr(
        store, "write_atomically", lambda path, content: (sampled.append(path.name), real(path, content))
    )
    found = run(tmp_path / "killed", settings=settings)
    assert len(sampled) == 4 - dies_before_write  # one manifest and three shards, none of them twice
    whole = contents(tmp_path / "whole")
    assert {name: data for name, data in contents(tmp_path / "killed").items() if name in whole} == whole
    assert found == list(rollouts.read_store(tmp_path / "whole"))


def test_processes_share_the_shards(tmp_path):
    whole = run(tmp_path / "one")
    parts = run(tmp_path / "two", share=(0, 2)), run(tmp_path / "two", share=(1, 2))
    assert [len(part) for part in parts] == [16, 12]
    assert list(rollouts.read_store(tmp_path / "two")) == whole


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("seed", {"seed": 6}),
        ("settings.temperature", {"settings": dataclasses.replace(SETTINGS, temperature=0.9)}),
        ("parameters", {"policy": policy(1)}),
        ("roots", {"roots": roots()[:6]}),
        ("shard_roots", {"shard_roots": 4}),
        ("model.rope_theta", {"policy": with_config(rope_theta=3.0)}),
        ("roots", {"roots": [dataclasses.replace(root, text=2) for root in roots()]}),
    ],
)
def test_a_store_of_something_else_is_refused_by_the_field_that_differs(tmp_path, name, change):
    run(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(rollouts.StoreMismatch, match=name):
        run(tmp_path, **change)
    assert contents(tmp_path) == before


def test_how_a_policy_is_trained_and_the_kind_of_the_seed_make_no_other_store(tmp_path):
    found = run(tmp_path)
    assert run(tmp_path, policy=with_config(remat="full", vocab_chunk=8), seed=np.int64(5)) == found


def test_each_shard_names_the_parameters_that_it_was_drawn_from(tmp_path):
    from synthrl_jax.policy.checkpoint import checksum

    run(tmp_path)
    for path in tmp_path.glob("shard_*.npz"):
        assert str(np.load(path)["parameters"]) == checksum(policy().params)


@pytest.mark.parametrize("sampler", ["static", "grouped"])
def test_forks_without_a_budget_keep_the_log_probs_of_the_others(tmp_path, sampler):
    settings = dataclasses.replace(SETTINGS, model_logprobs=True, prompt_logprobs=True, sampler=sampler)
    forks = (Fork(2, max_tokens=0), 4, Fork(6, max_tokens=0))
    mixed = [Root("a", range(2, 10), forks), Root("b", range(9), ()), Root("c", (), ())]
    found = run(tmp_path, roots=mixed, settings=settings)
    assert [len(c.model_logprobs) == len(c.tokens) for c in found] == [True] * 3 and found[1].tokens
    assert [len(c.prompt_logprobs) for c in found] == [2, 4, 6]


def test_roots_of_one_id_in_two_shards_are_refused(tmp_path):
    with pytest.raises(ValueError, match="two roots have the id 'r00'"):
        run(tmp_path, roots=[*roots(), roots()[0]])


def test_a_store_that_lacks_shards_is_not_read_as_if_it_were_whole(tmp_path):
    run(tmp_path)
    store.shard_path(tmp_path, 1).unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks 1 of 3 shards, the first shard_00001\.npz"):
        list(rollouts.read_store(tmp_path))
    assert len(list(rollouts.read_store(tmp_path, share=(0, 2)))) == 16
    run(tmp_path)
    assert len(list(rollouts.read_store(tmp_path))) == 28


def test_what_a_killed_run_left_half_written_goes_when_it_is_started_again(tmp_path):
    script = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_store
replace, left = test_store.store.epath.Path.replace, [3]
def killing(self, *args):
    left[0] -= 1
    os.kill(os.getpid(), signal.SIGKILL) if not left[0] else None
    return replace(self, *args)
type(test_store.store.epath.Path("/")).replace = killing
test_store.run({str(tmp_path / "killed")!r})
"""
    assert subprocess.run([sys.executable, "-c", script], capture_output=True).returncode == -signal.SIGKILL
    assert list((tmp_path / "killed").glob(".shard_00001.npz.*"))
    assert run(tmp_path / "killed") == run(tmp_path / "whole")
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_shards_of_no_roots_are_refused(tmp_path):
    with pytest.raises(ValueError, match="shard_roots"):
        run(tmp_path, shard_roots=0)


def test_a_directory_that_is_no_store_is_said_to_be_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="not a store"):
        list(rollouts.read_store(tmp_path))
