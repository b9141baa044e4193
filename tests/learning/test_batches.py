"""Batches: their order, their arrays, and what does not fit."""

import numpy as np
import pytest

from synthrl_jax.credit.example import Example
from synthrl_jax.learning.batches import Batches
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
