"""Stopping a step's rollouts early: when, what it saves and what it biases."""

import numpy as np
import pytest

from synthrl_jax.credit.early_stop import needs_more, stopped_estimate


def test_a_step_stops_once_its_interval_leaves_the_threshold():
    # eight right ones of eight: Q is far above a half; none of eight: below it is not yet sure for best of 5
    np.testing.assert_array_equal(needs_more([8, 0, 2, 0], [8, 8, 4, 20], 5, 0.5, 20), [False, True, True, False])


def test_fewer_than_k_rollouts_always_need_more():
    assert needs_more(3, 3, 5, 0.0, 20)
    with pytest.raises(ValueError, match="best-of-5"):
        needs_more(3, 3, 5, 0.0, 4)


def test_one_look_is_unbiased():
    for rate in (0.0, 0.1, 0.4, 1.0):
        estimate, spent = stopped_estimate(rate, 5, 0.5, [8])
        assert estimate == pytest.approx(1 - (1 - rate) ** 5)
        assert spent == pytest.approx(8)


def test_the_exact_expectation_is_that_of_simulation():
    rate, k, threshold, rounds = 0.3, 5, 0.6, [6, 10, 16]
    rng, estimates, spent = np.random.default_rng(0), [], []
    for draws in rng.random((4000, 16)) < rate:
        n = next(n for n in rounds if not needs_more(draws[:n].sum(), n, k, threshold, 16))
        c = draws[:n].sum()
        misses = np.prod([(n - c - j) / (n - j) for j in range(k)]) if n - c >= k else 0.0
        estimates.append(1 - misses)
        spent.append(n)
    expected, cost = stopped_estimate(rate, k, threshold, rounds)
    assert np.mean(estimates) == pytest.approx(expected, abs=4 * np.std(estimates) / 4000**0.5)
    assert np.mean(spent) == pytest.approx(cost, abs=0.2)


def test_the_bias_of_stopping_early_is_small_and_rollouts_are_saved():
    rates = np.linspace(0, 1, 21)
    found = [stopped_estimate(rate, 5, 0.5, [5, 8, 12, 20]) for rate in rates]
    bias = [estimate - (1 - (1 - rate) ** 5) for rate, (estimate, _) in zip(rates, found)]
    assert 0.0 < np.abs(bias).max() < 0.05
    assert np.mean([cost for _, cost in found]) < 12
