"""Batches: their order, their arrays, and what does not fit."""

import jax
import numpy as np
import pytest

from synthrl_jax.credit.example import Example
from synthrl_jax.learning.batches import Batches
from synthrl_jax.learning.step import find_loss, loss_of_params
from synthrl_jax.policy import decoder
from synthrl_jax.policy.sharding import make_mesh


def rows(count, pairs=False, **arrays):
    out = []
    for i in range(count):
        tokens = np.arange(3 + i % 4) + 10 * i
        pair = (f"p{i // 2}", ("chosen", "rejected")[i % 2]) if pairs else None
        extra = {name: np.asarray(f(i, len(tokens))) for name, f in arrays.items()}
        out.append(Example(tokens, np.arange(len(tokens)) > 0, pair=pair, arrays=extra))
    return out


def test_the_order_is_a_function_of_seed_and_step():
    first, second = (Batches(rows(10), batch=4, seed=3, pad_id=0) for _ in range(2))
    for step in (7, 0, 3):
        assert all(np.array_equal(first.at(step)[k], second.at(step)[k]) for k in first.at(step))
    other = Batches(rows(10), batch=4, seed=4, pad_id=0)
    assert any(not np.array_equal(first.units_at(s), other.units_at(s)) for s in range(3))


def test_an_epoch_takes_each_row_once_and_the_next_one_has_another_order():
    batches = Batches(rows(10), batch=4, seed=0, pad_id=0)
    places = np.concatenate([batches.units_at(step) for step in range(5)])
    assert sorted(places[:10]) == sorted(places[10:]) == list(range(10))
    assert list(places[:10]) != list(places[10:])


def test_rows_are_padded_and_nothing_of_the_padding_counts():
    ids = {
        "step_ids": lambda i, n: np.zeros(n, np.int32),
        "advantage": lambda i, n: np.full(1 + i % 2, 0.5, np.float32),
    }
    batch = Batches(rows(6, **ids), batch=6, seed=0, pad_id=99).at(0)
    padding = batch["tokens"] == 99
    assert padding.any() and not batch["mask"][padding].any() and not batch["weight"][padding].any()
    assert (batch["step_ids"][padding] == -1).all() and batch["step_ids"].shape == batch["tokens"].shape
    assert batch["advantage"].shape == (1, 6, 2)


def long_and_short(pairs):
    """Rows of 3 to 43 tokens, an array by token and one by step beside them."""
    out = []
    for i in range(24):
        tokens = 1 + (np.arange(3 + 40 * (i % 7 == 3)) + i) % 50
        pair = (f"p{i // 2}", ("chosen", "rejected")[i % 2]) if pairs else None
        mask = np.arange(len(tokens)) > 1
        extra = {"step_ids": np.where(mask, 0, -1), "advantage": np.full(1 + i % 2, 0.5, np.float32)}
        ref = -np.ones(len(tokens), np.float32)
        out.append(Example(tokens, mask, ref_logprobs=ref, pair=pair, arrays=extra))
    return out


@pytest.mark.parametrize("loss, pairs", [("sft", False), ("dpo", True), ("advantage_weighted", False)])
def test_trimmed_rows_are_as_long_as_the_longest_of_their_step_and_give_the_same_loss(loss, pairs):
    plain, trimmed = (
        Batches(long_and_short(pairs), batch=4, micro=2, seed=0, pad_id=0, trim=trim) for trim in (False, True)
    )
    config = decoder.DecoderConfig(vocab_size=51, width=16, layers=1, heads=2)
    params = decoder.init(config, jax.random.key(0))
    loss_args = {"sft": {}, "dpo": {"beta": 0.5}, "advantage_weighted": {"beta": 1.0, "max_weight": 9.0}}
    compute = loss_of_params(config, find_loss(loss, loss_args[loss]))
    seen = set()
    for step in range(6):
        whole, cut = plain.at(step), trimmed.at(step)
        longest = int((whole["tokens"] > 0).sum(-1).max())
        T = 16 if longest <= 16 else 48
        seen.add(T)
        assert whole["tokens"].shape[-1] == 48 and cut["advantage"].shape == whole["advantage"].shape
        assert all(cut[name].shape[-1] == T for name in ("tokens", "mask", "weight", "step_ids", "ref_logprobs"))
        assert all(np.array_equal(cut[name], whole[name][..., : cut[name].shape[-1]]) for name in whole)
        assert trimmed.counts(step)["computed"] * 48 == plain.counts(step)["computed"] * T
        for micro in (0, 1):
            take = lambda x, micro=micro: x[micro]  # noqa: E731
            one, other = (compute(params, jax.tree.map(take, batch)) for batch in (whole, cut))
            np.testing.assert_allclose(one.total, other.total, rtol=1e-5)
            assert one.weight == other.weight
    assert seen == {16, 48}


def test_pairs_stay_together_and_chosen_comes_first():
    batch = Batches(rows(12, pairs=True), batch=4, seed=1, pad_id=0, micro=2).at(0)
    assert batch["tokens"].shape[:2] == (2, 4) and batch["pair_weight"].shape == (2, 2)
    firsts = batch["tokens"][:, :, 0] // 10
    assert (firsts[:, 0::2] % 2 == 0).all() and (firsts[:, 1::2] == firsts[:, 0::2] + 1).all()


def test_what_does_not_fit_is_said():
    with pytest.raises(ValueError, match="no examples"):
        Batches([], batch=1, seed=0, pad_id=0)
    with pytest.raises(ValueError, match="micro-batches"):
        Batches(rows(4), batch=4, micro=3, seed=0, pad_id=0)
    with pytest.raises(ValueError, match="rejected"):
        Batches(rows(3, pairs=True), batch=1, seed=0, pad_id=0)
    with pytest.raises(ValueError, match="p1 has two chosen sides"):
        Batches(rows(4, pairs=True) + rows(4, pairs=True)[2:], batch=1, seed=0, pad_id=0)
    with pytest.raises(ValueError, match="not both"):
        Batches(rows(2, pairs=True) + rows(1), batch=1, seed=0, pad_id=0)
    with pytest.raises(ValueError, match="does not divide over the mesh"):
        Batches(rows(9), batch=3, seed=0, pad_id=0).check_mesh(make_mesh(data=8))
