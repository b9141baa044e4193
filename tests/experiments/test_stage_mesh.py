"""With a mesh in the config no stage holds a whole policy on one device, and what they make is what one device makes."""

import json
import re

import jax
import numpy as np
import pytest

from experiments.artifacts import write_jsonl
from experiments.graph import plan
from experiments.settings import load_config
from experiments.stages import base, evaluate, sampling, train, values
from synthrl_jax import policy as policies
from synthrl_jax import rollouts
from synthrl_jax.credit.example import Example, completion_mask
from synthrl_jax.policy import decoder, hf_weights, sharding
from synthrl_jax.policy.tokenizer import train_sentencepiece
from synthrl_jax.problems.problem import Problem

MESH = {"data": 2, "fsdp": 2, "tensor": 2}
TOKENIZER = train_sentencepiece(["one and two are three\n", "four and five are nine\n"] * 3, 300)
CONFIG = decoder.DecoderConfig(vocab_size=304, width=32, layers=1, heads=4, kv_heads=4, mlp_width=64, max_positions=256)
SAMPLE = {"n": 3, "temperature": 1.0, "max_tokens": 12, "rows": 16, "sampler": "grouped", "shard_roots": 4}
SAMPLE |= {"prompt": "{question}\n"}
eight = pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices (XLA_FLAGS of tests/conftest.py)")


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """A base cell that points to a tiny policy, and a data cell."""
    root = tmp_path_factory.mktemp("cells")
    hf_weights.save(root / "tiny", CONFIG, decoder.init(CONFIG, jax.random.key(1)))
    TOKENIZER.save(str(root / "tiny"))
    for name in ("base", "data"):
        (root / name).mkdir()
    base.base({"pretrained": str(root / "tiny")}, {}, root / "base", 0, "base")
    problems = [Problem(f"p{i}", f"one and {word} are", "3", "#### 3") for i, word in enumerate(["two", "five"] * 3)]
    write_jsonl(root / "data" / "problems.jsonl", (p.to_json() for p in problems))
    return {"sft": root / "base", "policy": root / "base", "data": root / "data", "test": root / "data"}


def run(stage, settings, cells, out, monkeypatch, **inputs):
    """The stage's cell, and the policies that it sampled with."""
    out.mkdir()
    used = []
    for name in ("sample_to_store", "sample_everywhere"):
        places = {"sample_to_store": lambda args: args[1], "sample_everywhere": lambda args: args[0]}
        original = getattr(rollouts, name)

        def spy(*args, original=original, place=places[name], **options):
            used.append(place(args))
            return original(*args, **options)

        monkeypatch.setattr(rollouts, name, spy)
    stage(settings, cells | inputs, out, 3, "label")
    monkeypatch.undo()
    return out, used


def spread_over(policy):
    """Into how many parts each matrix is cut, at least; vectors are not."""
    leaves = [x for x in jax.tree.leaves(policy.params) if x.ndim > 2 or (x.ndim == 2 and min(x.shape) > CONFIG.layers)]
    return min(x.size // max(part.data.size for part in x.addressable_shards) for x in leaves)


def drawn(store):
    return sorted((c.root_id, c.fork, c.index, c.tokens) for c in rollouts.read_store(store))


@eight
def test_a_mesh_changes_no_sample_and_spreads_every_matrix(cells, tmp_path, monkeypatch):
    alone, one = run(sampling.sample, SAMPLE, cells, tmp_path / "alone", monkeypatch)
    spread, many = run(sampling.sample, SAMPLE | {"mesh": MESH}, cells, tmp_path / "spread", monkeypatch)
    assert sharding.mesh_of(one[0].params) is None and spread_over(one[0]) == 1
    assert dict(sharding.mesh_of(many[0].params).shape) == {"data": 2, "fsdp": 1, "tensor": 4}
    assert spread_over(many[0]) == 4
    pairs = list(zip(drawn(alone / "completions"), drawn(spread / "completions"), strict=True))
    assert len(pairs) == 18 and sum(a != b for a, b in pairs) <= 1  # a near-tie


@eight
@pytest.mark.long
def test_a_mesh_changes_no_value_and_no_evaluation(cells, tmp_path, monkeypatch):
    grading = {"grading": "gsm8k_hash"}
    made, _ = run(sampling.sample, SAMPLE, cells, tmp_path / "sample", monkeypatch)
    graded, _ = run(sampling.grade, SAMPLE | grading, cells, tmp_path / "grade", monkeypatch, sample=made)
    settings = {**SAMPLE, **grading, "negatives": 2, "positives": 1, "rollouts": 2, "delimiters": ["\n", " "]}
    inputs = {"grade": graded, "positives": graded}
    # the made-up model answers nothing: what it says counts as wrong here
    rows = (graded / "responses.jsonl").read_text()
    (graded / "responses.jsonl").write_text(re.sub('"no_answer"', '"wrong"', rows))
    alone, _ = run(values.values, settings, cells, tmp_path / "alone", monkeypatch, **inputs)
    spread, used = run(values.values, settings | {"mesh": MESH}, cells, tmp_path / "spread", monkeypatch, **inputs)
    assert spread_over(used[0]) == 4
    pairs = list(zip(drawn(alone / "completions"), drawn(spread / "completions"), strict=True))
    assert len(pairs) > 10 and sum(a != b for a, b in pairs) <= 1
    counted = [[json.loads(line) for line in (cell / "values.jsonl").open()] for cell in (alone, spread)]
    assert counted[0] == counted[1]

    settings = {**SAMPLE, **grading, "k": 2}
    rows = []
    for name, mesh in (("one", {}), ("many", {"mesh": MESH})):
        out, used = run(evaluate.evaluate, settings | mesh, cells, tmp_path / name, monkeypatch)
        assert spread_over(used[0]) == (4 if mesh else 1)
        rows.append((out / "problems.jsonl").read_text())
    assert rows[0] == rows[1]


@eight
def test_reference_and_validation_use_the_mesh(cells):
    sampler = base.load_sampler(cells["sft"], {"mesh": MESH})
    alone = base.load_policy(cells["sft"])
    rows = [Example(np.arange(n, n + 20 + n, dtype=np.int32), completion_mask(20 + n, 5)) for n in range(5, 11)]
    for chunk in (0, 100):
        scored = [train.with_reference(rows, policy, chunk) for policy in (sampler, alone)]
        for ours, theirs in zip(*scored):
            np.testing.assert_allclose(ours.ref_logprobs, theirs.ref_logprobs, atol=1e-4)
            assert len(ours.ref_logprobs) == len(ours.tokens)
    trained = base.load_policy(cells["sft"], train.mesh_of({"data": 1, "fsdp": 8, "tensor": 1}))
    moved = sharding.for_sampling(trained.config, trained.params)
    # four heads: the rest of the eight ways stays with fsdp
    assert dict(sharding.mesh_of(moved).shape) == {"data": 1, "fsdp": 2, "tensor": 4}
    assert policies.checksum(moved) == policies.checksum(alone.params)
    assert sharding.for_sampling(alone.config, alone.params) is alone.params


@pytest.mark.parametrize(
    "ways,devices,sizes",
    [
        (8, 8, (1, 2, 4)),
        (64, 4, (1, 1, 4)),
        (1, 8, (8, 1, 1)),
        (2, 8, (4, 1, 2)),
        (16, 16, (1, 4, 4)),
        (3, 8, (8, 1, 1)),
    ],
)
def test_weights_are_split_as_far_as_their_dimensions_divide(ways, devices, sizes):
    assert tuple(sharding.decoding_sizes(CONFIG, ways, devices).values()) == sizes


def test_the_mesh_is_a_setting_of_every_stage_that_holds_a_policy():
    config = load_config("configs/gsm8k_llama2_7b.py")
    for node in plan(config):
        if node.stage in ("base", "sft", "sample", "values", "credit", "train", "evaluate"):
            assert node.settings["mesh"] == {"data": 1, "fsdp": 64, "tensor": 1}, node.label
    config = load_config("configs/tiny.py")
    assert not any("mesh" in node.settings for node in plan(config) if node.stage not in ("sft", "train"))
