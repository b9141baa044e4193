"""The static sampler against a plain full forward pass and the draw, token by token."""

import collections
import dataclasses
import functools

import jax
import numpy as np
import pytest

from synthrl_jax import rollouts
from synthrl_jax.policy import decoder
from synthrl_jax.policy.checkpoint import Policy
from synthrl_jax.rollouts import Fork, Root, Settings, sampling
from synthrl_jax.rollouts.static_sampler import bucket, generate

V = 53
SEED = 11


@functools.cache
def policy(kv_heads=2):
    config = decoder.DecoderConfig(vocab_size=V, width=32, layers=2, heads=4, kv_heads=kv_heads, max_positions=128)
    return Policy(config, decoder.init(config, jax.random.key(kv_heads)))


def roots():
    random = np.random.default_rng(0)
    forks = [(4, Fork(9, temperature=0.5), Fork(12, n=1, max_tokens=3)), (7,), (Fork(20, temperature=0.0, n=2), 1)]
    return [Root(f"r{i}", random.integers(0, V, 20), fork, n=3) for i, fork in enumerate(forks)]


SETTINGS = Settings(max_tokens=16, stop_ids=(3, 4), rows=8, model_logprobs=True, sampler="static")


@functools.cache
def completions(settings=SETTINGS, kv_heads=2):
    found = list(rollouts.sample(policy(kv_heads), roots(), settings, SEED))
    by_task = {(c.root_id, c.fork, c.index): c for c in found}
    assert len(by_task) == len(found)
    return by_task


@functools.cache
def recompute(filtered):
    def one(config, params, tokens_1xT, keys_T, temperature_T, *filters):
        return sampling.draw(decoder.logits(config, params, tokens_1xT)[0], keys_T, temperature_T, *filters)

    return jax.jit(one, static_argnums=0)


def check(found, kv_heads, top_k=0, top_p=1.0):
    """Every token and log-prob of every completion again, from one uncached forward pass of the whole row."""
    config, params = policy(kv_heads).config, policy(kv_heads).params
    by_id = {root.id: root for root in roots()}
    T = 40
    filters = () if (top_k, top_p) == (0, 1.0) else (np.full(T, top_k), np.full(T, top_p, np.float32))
    for (root_id, fork, index), got in found.items():
        temperature = {f.position: f.temperature for f in by_id[root_id].forks}[fork]
        row = np.array([*by_id[root_id].tokens[:fork], *got.tokens])
        padded = np.pad(row, (0, T - len(row)))[None]
        words = np.array([sampling.root_words(root_id)], np.uint32)
        key = sampling.row_keys(sampling.seed_key(SEED), words, np.array([fork]), np.array([index]))
        keys = sampling.token_keys(key[np.zeros(T, int)], np.arange(1, T + 1))
        temperatures = np.full(T, 1.0 if temperature is None else temperature, np.float32)
        want = recompute(bool(filters))(config, params, padded, keys, temperatures, *filters)
        span = slice(fork - 1, len(row) - 1)
        assert np.asarray(want.token)[span].tolist() == list(got.tokens)
        np.testing.assert_allclose(got.logprobs, want.logprob[span], atol=1e-4)
        np.testing.assert_allclose(got.model_logprobs, want.model_logprob[span], atol=1e-4)


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_tokens_and_logprobs_are_those_of_a_full_forward_pass(kv_heads):
    check(completions(SETTINGS, kv_heads), kv_heads)


def test_filtered_draws_are_those_of_a_full_forward_pass():
    check(completions(dataclasses.replace(SETTINGS, top_k=9, top_p=0.8)), 2, 9, 0.8)


def test_every_task_is_answered_and_ends_for_the_reason_it_gives():
    found = completions()
    asked = {("r0", 4): 3, ("r0", 9): 3, ("r0", 12): 1, ("r1", 7): 3, ("r2", 20): 2, ("r2", 1): 3}
    assert collections.Counter((root_id, fork) for root_id, fork, _ in found) == asked
    for (_, fork, _), c in found.items():
        budget = 3 if fork == 12 else 16
        assert 1 <= len(c.tokens) == len(c.logprobs) == len(c.model_logprobs) <= budget
        assert not set(c.tokens[:-1]) & {3, 4}
        assert c.finish == ("stop" if c.tokens[-1] in (3, 4) else "length")
        assert c.finish == "stop" or len(c.tokens) == budget
    assert {c.finish for c in found.values()} == {"stop", "length"}


def test_greedy_rows_are_the_argmax_and_equal_each_other():
    found = completions()
    first, second = found["r2", 20, 0], found["r2", 20, 1]
    assert first.tokens == second.tokens and set(first.logprobs) == {0.0}
    row = list(roots()[2].tokens)
    for token in first.tokens:
        padded = np.pad(row, (0, 40 - len(row)))[None]
        assert token == np.asarray(decoder.logits(policy().config, policy().params, padded))[0, len(row) - 1].argmax()
        row.append(token)


@pytest.mark.parametrize("rows", [3, 16])
def test_the_batch_changes_no_result(rows):
    other = list(rollouts.sample(policy(), roots()[::-1], dataclasses.replace(SETTINGS, rows=rows), SEED))
    assert {(c.root_id, c.fork, c.index): c.tokens for c in other} == {k: c.tokens for k, c in completions().items()}


def test_other_forks_and_roots_change_no_result():
    alone = [Root("r0", roots()[0].tokens[:9], (Fork(9, temperature=0.5, n=2),))]
    for c in rollouts.sample(policy(), alone, SETTINGS, SEED):
        assert c.tokens == completions()["r0", 9, c.index].tokens


def test_another_seed_changes_sampled_rows_and_not_greedy_ones():
    other = {(c.root_id, c.fork, c.index): c for c in rollouts.sample(policy(), roots(), SETTINGS, SEED + 1)}
    same = {task for task, c in other.items() if c.tokens == completions()[task].tokens}
    assert {("r2", 20, 0), ("r2", 20, 1)} <= same and len(same) < len(other) / 2


def test_no_budget_gives_an_empty_completion_and_no_roots_give_none():
    root = Root("a", [1 + i % 50 for i in range(128)], (Fork(5, max_tokens=0), 128))
    found = list(rollouts.sample(policy(), [root], SETTINGS, 0))
    assert [(c.fork, c.tokens, c.finish) for c in found] == [(5, (), "length"), (128, (), "length")]
    assert list(rollouts.sample(policy(), [], SETTINGS, 0)) == []


def test_stop_ids_come_from_the_tokenizer_unless_given():
    class Tokenizer:
        eos_id = 3

    named = Policy(policy().config, policy().params, Tokenizer())
    stops = {
        which: {c.tokens[-1] for c in rollouts.sample(named, roots(), settings, SEED) if c.finish == "stop"}
        for which, settings in {
            "tokenizer": Settings(max_tokens=16, rows=8, sampler="static"),
            "given": Settings(max_tokens=16, rows=8, sampler="static", stop_ids=(4,)),
            "none": Settings(max_tokens=16, rows=8, sampler="static", stop_ids=()),
        }.items()
    }
    assert stops == {"tokenizer": {3}, "given": {4}, "none": set()}


def test_stop_ids_temperatures_and_budgets_compile_nothing_new():
    list(rollouts.sample(policy(), roots(), SETTINGS, SEED))
    before = generate._cache_size()
    changed = dataclasses.replace(SETTINGS, stop_ids=(1, 2, 5), temperature=0.3, max_tokens=15)
    list(rollouts.sample(policy(), roots(), changed, SEED + 5))
    assert generate._cache_size() == before


def test_buckets_hold_their_lengths_and_are_few():
    sizes = {bucket(length) for length in range(1, 2049)}
    assert len(sizes) == 12 and all(length <= bucket(length) <= max(32, 2 * length) for length in range(1, 2049))


def test_a_sharded_policy_draws_the_same():
    if jax.device_count() < 8:
        pytest.skip("needs 8 devices: XLA_FLAGS=--xla_force_host_platform_device_count=8")
    from synthrl_jax.policy import sharding

    config = dataclasses.replace(policy().config, vocab_size=52)
    params = decoder.init(config, jax.random.key(0))
    mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2, devices=jax.devices()[:8])
    placed = jax.device_put(params, sharding.shardings(config, mesh))
    root = [Root("a", range(9), (9,), n=8)]
    want, got = (list(rollouts.sample(Policy(config, p), root, SETTINGS, 0)) for p in (params, placed))
    assert [c.tokens for c in got] == [c.tokens for c in want]
