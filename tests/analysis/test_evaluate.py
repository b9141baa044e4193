"""Evaluation estimators against enumeration over subsets, and intervals against simulation."""

from collections import Counter
from itertools import combinations

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthrl_jax.analysis.evaluate import (
    bootstrap_interval,
    count_votes,
    majority_at_k,
    paired_difference_interval,
    pass_at_k,
)


def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample():
    correct, n, k = np.array([0, 1, 3, 6]), 6, 3
    expected = [np.mean([min(subset) < c for subset in combinations(range(n), k)]) for c in correct]
    np.testing.assert_allclose(pass_at_k(correct, n, k), expected, atol=1e-14)
    np.testing.assert_allclose(jax.jit(pass_at_k, static_argnums=(1, 2))(correct, n, k), expected, atol=1e-6)
    with pytest.raises(ValueError, match="at least 7"):
        pass_at_k(correct, n, 7)


def enumerated_majority(counts, correct, k, no_answer):
    """Mean over all subsets of the share that the correct answer has among those with most votes."""
    samples = [answer for answer, count in enumerate(counts) for _ in range(count)] + [None] * no_answer
    wins = []
    for subset in combinations(samples, k):
        votes = Counter(answer for answer in subset if answer is not None)
        most = [answer for answer, count in votes.items() if count == max(votes.values())]
        wins.append(most.count(correct) / len(most) if most else 0.0)
    return np.mean(wins)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=4), st.integers(0, 2), st.data())
@settings(max_examples=150, deadline=None)
def test_majority_is_the_mean_over_subsets(counts, no_answer, data):
    n = sum(counts) + no_answer
    if not n:
        return
    k, correct = data.draw(st.integers(1, min(n, 8))), data.draw(st.integers(-1, len(counts) - 1))
    expected = enumerated_majority(counts, correct, k, no_answer)
    assert majority_at_k(counts, correct, k, no_answer) == pytest.approx(expected, abs=1e-12)


def test_majority_at_1_is_accuracy_and_shapes_broadcast():
    counts = np.array([[[3, 5, 0], [8, 0, 0]]])
    np.testing.assert_allclose(majority_at_k(counts, 0, 1), [[3 / 8, 1]])
    np.testing.assert_allclose(majority_at_k(counts, np.array([1, -1]), 8), [[1, 0]])
    np.testing.assert_allclose(majority_at_k(counts, 0, 8, no_answer=2).shape, (1, 2))
    assert majority_at_k([4, 4], 1, 8) == 0.5
    assert majority_at_k(np.zeros((0, 3), int), np.zeros(0, int), 4).shape == (0,)


def test_majority_of_many_samples_is_quick_and_exact():
    # With two answers and odd k the majority is a hypergeometric tail.
    from scipy.stats import hypergeom

    found = majority_at_k([60, 68], 0, 63)
    assert found == pytest.approx(hypergeom(128, 60, 63).sf(31), rel=1e-9)


def test_majority_refuses_what_cannot_be():
    for arguments in [([1, 2], 0, 4), ([1, 2], 2, 1), ([1, -1], 0, 1), ([1, 2], 0, 0)]:
        with pytest.raises(ValueError):
            majority_at_k(*arguments)


def test_votes_are_counted_by_the_given_equality():
    votes = count_votes(["2", None, "3", "2.0", "2"], "2.00", equal=lambda a, b: float(a) == float(b))
    assert votes == ([3, 1], 0, 1)
    assert count_votes(["2", None], "5") == ([1], -1, 1)
    assert count_votes([], "5") == ([], -1, 0)


def test_bootstrap_interval_is_the_normal_one_for_many_problems():
    values = np.random.default_rng(0).random(4000) < 0.3
    half = 1.96 * values.std() / np.sqrt(values.size)
    expected = (values.mean() - half, values.mean() + half)
    assert bootstrap_interval(values) == pytest.approx(expected, abs=0.05 * half)
    real = np.random.default_rng(1).normal(size=900)
    half = 1.96 * real.std() / 30
    assert bootstrap_interval(real, resamples=4000) == pytest.approx(
        (real.mean() - half, real.mean() + half), abs=0.1 * half
    )


def test_bootstrap_covers_the_mean():
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(300):
        lo, hi = bootstrap_interval(rng.random(150) < 0.4, resamples=600, seed=trial)
        hits += lo <= 0.4 <= hi
    assert 0.91 <= hits / 300 <= 0.985


def test_bootstrap_over_seeds_is_wider_when_seeds_differ():
    rng = np.random.default_rng(0)
    rates = np.array([0.2, 0.3, 0.4, 0.5, 0.6])[:, None]
    values = rng.random((5, 500)) < rates
    lo, hi = bootstrap_interval(values, resamples=4000)
    flat_lo, flat_hi = bootstrap_interval(values.mean(axis=0), resamples=4000)
    spread = values.mean(axis=1).std() / np.sqrt(5)
    assert hi - lo == pytest.approx(2 * 1.96 * np.hypot(spread, (flat_hi - flat_lo) / 3.92), rel=0.1)
    one = bootstrap_interval(values[:1], resamples=4000)
    assert one == pytest.approx(bootstrap_interval(values[0], resamples=4000), abs=0.004)


def test_same_seed_same_interval_and_wrong_use_raises():
    values = np.random.default_rng(3).random(50)
    assert (
        bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)
    )
    for bad in ([], [np.nan], 0.5):
        with pytest.raises(ValueError, match="values"):
            bootstrap_interval(bad)
    with pytest.raises(ValueError, match="level"):
        bootstrap_interval(values, level=95)
    with pytest.raises(ValueError, match="one shape"):
        paired_difference_interval(values, values[:-1])


def test_pairing_takes_out_what_both_share():
    rng = np.random.default_rng(4)
    easy = rng.random(600)
    first, second = rng.random(600) < easy, rng.random(600) < easy
    better = np.maximum(second, rng.random(600) < 0.1)
    lo, hi = paired_difference_interval(better, second)
    assert 0 < lo < (better - 1.0 * second).mean() < hi
    a, b = bootstrap_interval(better), bootstrap_interval(second)
    assert hi - lo < 0.5 * ((a[1] - a[0]) + (b[1] - b[0]))
    lo, hi = paired_difference_interval(first, second)
    assert lo < 0 < hi
