"""Stopping a step's rollouts early: when, what it saves and what it biases."""

import numpy as np
import pytest

from synthrl_jax.credit.early_stop import RULES, needs_more, open_steps, rounds_of, stopped_estimate


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


def test_a_wrong_response_s_pit_is_open_only_where_nothing_was_right():
    # the last step is wrong: Q = 0, so one right rollout settles that a step is not the lowest
    more = open_steps([3, 1, 0, 0, 0], [5, 5, 5, 8, 8], 5, 8, "pit", 0.9)
    np.testing.assert_array_equal(more, [False, False, True, False, False])


def test_a_sign_of_the_advantage_is_open_while_the_interval_holds_the_step_before():
    # 5 of 5 after a V(x) of 0.05 is surely better; 2 of 5 after it may be as good
    more = open_steps([5, 2, 0], [5, 5, 8], 5, 8, "advantage", 0.05)
    np.testing.assert_array_equal(more, [True, True, False])
    np.testing.assert_array_equal(open_steps([5, 0], [5, 8], 5, 8, "advantage", 0.05), [False, False])
    np.testing.assert_array_equal(open_steps([5, 0], [5, 8], 5, 8, "advantage", float("nan")), [True, False])
    # a right end: was it above the step before? Not known while every rollout of that one was right
    np.testing.assert_array_equal(open_steps([5, 8], [5, 8], 5, 8, "advantage", 0.05), [True, False])


def test_nothing_is_open_at_the_budget_or_without_steps():
    for rule in RULES:
        assert not open_steps([0, 4, 8, 0], [8, 8, 8, 8], 5, 8, rule, 0.5).any()
        assert open_steps([], [], 5, 8, rule, 0.5).shape == (0,)
        assert not open_steps([0], [8], 5, 8, rule, 0.5).any()


def test_looks_that_make_no_sense_are_refused():
    assert rounds_of((5, 6), 8, 5, "pit") == [5, 6, 8]
    for looks, budget, rule, words in [
        ((4,), 8, "pit", "k=5"),
        ((8,), 8, "pit", "budget of 8"),
        ((5,), 8, "x", "rule|one of"),
    ]:
        with pytest.raises(ValueError, match=words):
            rounds_of(looks, budget, 5, rule)
