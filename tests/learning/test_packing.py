"""Packed equals unpacked, trees equal separate pairs: the same losses and gradients from fewer tokens."""

import functools
import itertools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthrl_jax.credit.example import Example
from synthrl_jax.learning import packing
from synthrl_jax.learning.batches import Batches
from synthrl_jax.learning.step import batch_logprobs, find_loss, loss_of_params
from synthrl_jax.policy import decoder
from synthrl_jax.policy.sharding import make_mesh

CONFIG = decoder.DecoderConfig(vocab_size=40, width=16, layers=2, heads=4, kv_heads=2)
PARAMS = decoder.init(CONFIG, jax.random.key(0))


def rows(count, seed=0):
    random = np.random.default_rng(seed)
    return [Example(random.integers(0, 40, n), np.arange(n) >= 3) for n in random.integers(5, 30, count)]


def pairs(problems, seed=0):
    """Per problem two wrong responses to one prompt; of each, up to three right continuations from a pit."""
    random = np.random.default_rng(seed)
    draw = lambda n: random.integers(1, 40, n)  # noqa: E731
    out = []
    for problem in range(problems):
        prompt = np.concatenate([[0], draw(7)])
        for response in range(2):
            prefix = np.concatenate([prompt, draw(random.integers(2, 9))])
            rejected = np.concatenate([prefix, draw(4)])
            for k in range(random.integers(1, 4)):
                chosen = np.concatenate([prefix, draw(random.integers(3, 14))])
                for role, tokens in (("chosen", chosen), ("rejected", rejected)):
                    name = f"{problem} {response} {k}"
                    ref = -random.random(len(tokens)).astype(np.float32)
                    mask = np.arange(len(tokens)) >= len(prefix)
                    meta = {"problem_id": str(problem), "pair_weight": 0.5 + k}
                    out.append(Example(tokens, mask, pair=(name, role), ref_logprobs=ref, meta=meta))
    return out


def value_and_gradient(loss, batch):
    compute = loss_of_params(CONFIG, find_loss(loss, {"beta": 0.5} if loss == "dpo" else {}))

    def total(params):
        out = compute(params, {name: array[0] for name, array in batch.items()})
        return out.total, (out.weight, out.metrics)

    return jax.jit(jax.value_and_grad(total, has_aux=True))(PARAMS)


def assert_same(got, want):
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=3e-4, rtol=2e-4), got, want)


@pytest.mark.parametrize("loss", ["sft", "dpo"])
@pytest.mark.parametrize("pack", ["segments", "tree"])
def test_packed_equals_unpacked(pack, loss):
    examples = pairs(5) if loss == "dpo" else rows(12)
    size = len(examples) // (2 if loss == "dpo" else 1)
    plain = Batches(examples, batch=size, seed=0, pad_id=0)
    packed = Batches(examples, batch=size, seed=0, pad_id=0, pack=pack, pack_length=96)
    assert packed.counts(0)["trained"] == plain.counts(0)["trained"]
    assert packed.counts(0)["computed"] < plain.counts(0)["computed"]
    assert_same(value_and_gradient(loss, packed.at(0)), value_and_gradient(loss, plain.at(0)))


def test_a_tree_holds_each_shared_prefix_once():
    examples = pairs(1, seed=3)
    tokens = [e.tokens for e in examples]
    tree = packing.prefix_tree(tokens, range(len(tokens)))
    prefixes = {tuple(t[:n]) for t in tokens for n in range(1, len(t) + 1)}
    branches = sum(len(tokens[i]) - len(path) for i, path in zip(tree.members, tree.paths))
    assert len(tree.trunk) + branches == len(prefixes)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=8), st.data())
def test_every_token_of_a_tree_sees_its_own_prefix_and_nothing_else(sequences, data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing.round_up, "__defaults__", (1,))  # no room to spare: all must fit by itself
        shape = packing.tree_shape([np.array(s) for s in sequences], [0] * len(sequences), 24)
    # a batch may hold but a part of a problem's sequences
    picked = data.draw(st.sets(st.sampled_from(range(len(sequences))), min_size=1))
    sequences = [sequences[i] for i in sorted(picked)]
    tokens = [np.array(s, np.int32) for s in sequences]
    masks = [np.ones(len(s)) for s in sequences]
    packed = packing.trees(tokens, masks, [0] * len(tokens), shape=shape, width=9)
    a, Q = packed.arrays, packed.arrays["sources"].shape[1]
    P, S = shape.trunk, shape.slot
    for i, sequence in enumerate(sequences):
        for t in range(1, len(sequence)):
            row, column = divmod(int(packed.gather[i, t]), Q)
            source = a["sources"][row, column]
            assert a["targets"][row, column] == sequence[t]
            fork = a["tree_forks"][row, source]
            seen = [j for j in range(P) if j <= fork < a["tree_ends"][row, j]]
            if source >= P:
                slot, at = divmod(source - P, S)
                ids = a["tree_branches"][row, slot]
                seen += [P + slot * S + j for j in range(at + 1) if ids[j] == ids[at]]
            assert a["tokens"][row, seen].tolist() == sequence[:t]
            assert a["positions"][row, seen].tolist() == list(range(t))


def test_a_tree_larger_than_a_row_repeats_its_trunk():
    prefix = np.arange(10)
    tokens = [np.concatenate([prefix, [20 + i] * 6]) for i in range(5)]
    masks = [np.arange(16) >= 10] * 5
    packed = packing.trees(tokens, masks, [0] * 5, shape=packing.TreeShape(16, 2, 8), width=16)
    assert len(packed.arrays["tokens"]) == 3 and packed.real == 3 * 10 + 5 * 6
    with pytest.raises(ValueError, match="20 tokens: longer than the rows' trunks of 16"):
        packing.trees(tokens, masks, [0] * 5, shape=packing.TreeShape(16, 2, 4), width=16)


@pytest.mark.parametrize(("loss", "micro"), [("dpo", 1), ("dpo", 3), ("sft", 6)])
def test_trees_of_any_part_of_a_problem_equal_its_plain_rows(loss, micro):
    """Two chosen x two rejected of one prompt in parts; and rows of which one stands twice in the data, or in a batch."""
    draw, count = np.random.default_rng(0).integers, np.arange(45) >= 20
    prompt, meta = draw(1, 40, 20), {"problem_id": "p"}
    a, b, c, d = (np.concatenate([prompt, draw(1, 40, 25)]) for _ in range(4))
    if loss == "sft":
        examples = [Example(tokens, count, meta=meta) for tokens in (a, b, c, a)]
    else:
        rows = [(i, role, pair[role == "rejected"]) for i, pair in enumerate(itertools.product((a, b), (c, d)))
                for role in ("chosen", "rejected")]  # fmt: skip
        examples = [
            Example(tokens, count, pair=(f"p{i}", role), ref_logprobs=np.full(45, -i / 9), meta=meta)
            for i, role, tokens in rows
        ]
    plain, tree = (
        Batches(examples, batch=micro, seed=0, pad_id=0, pack=pack, pack_length=96) for pack in ("none", "tree")
    )
    logprobs = jax.jit(lambda batch: batch_logprobs(CONFIG, PARAMS, jax.tree.map(lambda x: x[0], batch)))
    for step in range(2):
        want = plain._take(tree.units_at(step), micro)
        assert_same(logprobs(tree.at(step)) * want["mask"][0], logprobs(want) * want["mask"][0])
        assert tree.counts(step)["trained"] == np.count_nonzero(want["mask"])


def test_what_is_longer_than_a_row_is_said():
    with pytest.raises(ValueError, match="9 tokens is longer than the rows' 8"):
        packing.segments([np.arange(9)], [np.ones(9)], length=8, width=16)


def test_rows_of_a_mesh_are_filled_up_and_nearly_all_steps_have_one_shape():
    batches = Batches(rows(40), batch=8, micro=4, seed=0, pad_id=0, pack="segments", pack_length=48)
    batches.check_mesh(make_mesh(data=8))
    shapes = {batches.at(step)["packed_tokens"].shape for step in range(5)}
    assert len(shapes) == 1 and shapes.pop()[1] % 8 == 0


def test_units_of_a_problem_stay_together_and_an_epoch_takes_each_once():
    batches = Batches(pairs(6), batch=4, seed=1, pad_id=0, pack="tree")
    keys = np.array(batches._keys)
    order = batches._order(0)
    assert sorted(order) == list(range(batches.units))
    assert np.count_nonzero(keys[order][1:] != keys[order][:-1]) == len(set(keys)) - 1
    assert list(order) != list(batches._order(1))
