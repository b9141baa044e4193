"""Q of best-of-K against enumeration, and its interval against simulation."""

from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from synthrl_jax.credit.values import best_of_k_value, step_q, value_interval


def enumerated(c, n, k):
    """Share of the subsets of k of n rollouts that hold one of the c right ones."""
    subsets = list(combinations([True] * c + [False] * (n - c), k))
    return sum(any(subset) for subset in subsets) / len(subsets)


def test_value_is_the_share_of_subsets_with_a_right_one():
    for n in range(1, 9):
        for k in range(1, n + 1):
            for c in range(n + 1):
                assert best_of_k_value(c, n, k) == pytest.approx(enumerated(c, n, k), abs=1e-14), (c, n, k)


def test_best_of_1_is_the_mean_and_best_of_n_is_any():
    c = np.arange(8)
    np.testing.assert_array_equal(best_of_k_value(c, 7, 1), c / 7)
    np.testing.assert_array_equal(best_of_k_value(c, 7, 7), c > 0)


def test_value_is_unbiased_for_independent_rollouts():
    p, n, k = 0.17, 8, 5
    c = np.arange(n + 1)
    expected = (stats.binom.pmf(c, n, p) * best_of_k_value(c, n, k)).sum()
    assert expected == pytest.approx(1 - (1 - p) ** k, abs=1e-13)


def test_small_values_do_not_cancel():
    assert best_of_k_value(1, 10**12, 5) == pytest.approx(5e-12, rel=1e-12)
    assert float(best_of_k_value(jnp.int32(1), jnp.int32(10**8), 5)) == pytest.approx(5e-8, rel=1e-5)


@given(st.integers(1, 12), st.data())
@settings(max_examples=60, deadline=None)
def test_value_rises_with_successes_and_with_k(n, data):
    k = data.draw(st.integers(1, n))
    q = best_of_k_value(np.arange(n + 1), n, k)
    assert (np.diff(q) >= 0).all() and q[0] == 0 and q[-1] == 1
    assert (best_of_k_value(np.arange(n + 1), n, max(k - 1, 1)) <= q).all()


@pytest.mark.parametrize(
    "c, n, k",
    [(1, 4, 5), (5, 4, 2), (-1, 4, 2), (0, 0, 1), (1, 4, 0), (1.5, 4, 2), (np.array([1, 1]), np.array([8, 4]), 5)],
)
def test_impossible_counts_raise_on_the_host_and_are_nan_under_jit(c, n, k):
    with pytest.raises(ValueError):
        best_of_k_value(c, n, k)
    with pytest.raises(ValueError):
        best_of_k_value(jnp.asarray(c), jnp.asarray(n), k)
    if np.all(np.asarray(c) == np.floor(c)):
        compiled = np.atleast_1d(jax.jit(best_of_k_value, static_argnums=2)(c, n, k))
        assert np.isnan(compiled[-1]) and not np.isnan(compiled[:-1]).any()


@pytest.mark.parametrize("level", [0, 1, 1.2])
def test_impossible_level_raises(level):
    with pytest.raises(ValueError, match="level"):
        value_interval(1, 2, 1, level)


def test_kind_and_shape_follow_the_arguments():
    assert isinstance(best_of_k_value(np.int64(2), np.int64(8), 5), np.floating)
    assert best_of_k_value(np.array(2), np.array(8), 5).shape == ()
    assert isinstance(best_of_k_value(jnp.int32(2), 8, 5), jax.Array)
    assert isinstance(best_of_k_value(np.ones(3, np.int64), np.full(3, 8), 5), np.ndarray)
    assert best_of_k_value(np.ones((2, 1), int), np.full((1, 3), 8), 5).shape == (2, 3)
    assert best_of_k_value(np.zeros(0, int), np.zeros(0, int), 5).shape == (0,)
    for end in value_interval(jnp.ones((2, 3), int), 8, 5):
        assert isinstance(end, jax.Array) and end.shape == (2, 3)


def test_jit_and_vmap_equal_the_host():
    n = np.repeat([5, 8, 20], 6)
    c = np.tile(np.arange(6), 3) * n // 5
    host = best_of_k_value(c, n, 5), *value_interval(c, n, 5)
    for function in (lambda c, n: best_of_k_value(c, n, 5), jax.vmap(lambda c, n: best_of_k_value(c, n, 5))):
        np.testing.assert_allclose(jax.jit(function)(c, n), host[0], atol=2e-6)
    np.testing.assert_allclose(jax.jit(best_of_k_value)(c, n, 5), host[0], atol=2e-6)  # k traced too
    for compiled, expected in zip(jax.jit(value_interval, static_argnums=2)(c, n, 5), host[1:]):
        np.testing.assert_allclose(compiled, expected, atol=1e-5)


def test_interval_is_the_exact_binomial_one_for_best_of_1():
    for c, n in [(0, 5), (2, 5), (5, 5), (3, 20)]:
        exact = stats.binomtest(c, n).proportion_ci(0.9, method="exact")
        assert value_interval(c, n, 1, level=0.9) == pytest.approx((exact.low, exact.high), abs=1e-9)


def test_interval_knows_nothing_without_attempts():
    assert value_interval(0, 0, 5) == (0, 1)
    lo, hi = jax.jit(value_interval, static_argnums=2)(0, 0, 5)
    assert (float(lo), float(hi)) == (0, 1)


@pytest.mark.parametrize("p", [0.02, 0.1, 0.35, 0.8])
def test_interval_covers_the_value(p):
    n, k, rng = 8, 5, np.random.default_rng(0)
    lo, hi = value_interval(rng.binomial(n, p, size=20_000), n, k)
    truth = 1 - (1 - p) ** k
    assert ((lo <= truth) & (truth <= hi)).mean() >= 0.95 - 0.005


@given(st.integers(1, 30), st.data())
@settings(max_examples=100, deadline=None)
def test_interval_holds_the_estimate_and_grows_with_the_level(n, data):
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    lo, hi = value_interval(c, n, k)
    assert 0 <= lo <= best_of_k_value(c, n, k) <= hi <= 1
    wide_lo, wide_hi = value_interval(c, n, k, level=0.99)
    assert wide_lo <= lo and hi <= wide_hi


def test_steps_without_enough_attempts_end_the_mask():
    q, mask = step_q([8, 0, 2, 8], [8, 8, 4, 8], 5)
    np.testing.assert_array_equal(mask, [True, True, False, False])
    np.testing.assert_array_equal(q, [1, 0, 0, 0])
    traced_q, traced_mask = jax.jit(step_q, static_argnums=2)(jnp.array([8, 0, 2, 8]), jnp.array([8, 8, 4, 8]), 5)
    np.testing.assert_array_equal(traced_q, q)
    np.testing.assert_array_equal(traced_mask, mask)
    assert step_q(np.zeros(0, int), np.zeros(0, int), 5)[0].shape == (0,)
