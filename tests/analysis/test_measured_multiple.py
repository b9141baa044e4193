"""Multiples without a law, and one method's multiple over another's: on exact curves, against scipy, and with noise."""

import numpy as np
import pytest
from scipy.optimize import isotonic_regression

from synthrl_jax.analysis.scaling_law import (
    PowerLaw,
    efficiency_multiple,
    efficiency_multiple_interval,
    fit,
    measured_multiple,
    measured_multiple_interval,
    measured_ratio,
    multiple_ratio,
    multiple_ratio_interval,
)

SIZES = [500, 1000, 2000, 4000, 8000, 16000]
LAW = 1.5 * np.array(SIZES, float) ** -0.1


@pytest.mark.parametrize("at", [600, 1000, 3000, 15000])
def test_on_a_law_it_is_the_law_s_multiple(at):
    error = 1.5 * at**-0.1
    assert measured_multiple(SIZES, LAW, 1000, error) == pytest.approx(at / 1000, rel=1e-9)
    assert measured_multiple(SIZES, LAW, 1000, error) == pytest.approx(
        efficiency_multiple(fit(SIZES, LAW), 1000, error)
    )


def test_nothing_is_known_beyond_the_sizes():
    assert measured_multiple(SIZES, LAW, 1000, LAW[-1] * 0.999) == np.inf
    assert measured_multiple(SIZES, LAW, 1000, LAW[-1]) == pytest.approx(16)
    assert measured_multiple(SIZES, LAW, 1000, LAW[0] * 1.5) == 0.5
    assert measured_multiple(SIZES, [*LAW[:-1], 0.0], 1000, 0.0) == pytest.approx(16)


def test_a_bend_that_the_law_hides():
    bent = np.array([0.9, 0.9, 0.89, 0.88, 0.84, 0.7])  # nearly flat, then steep
    assert measured_multiple(SIZES, bent, 1000, 0.84) == pytest.approx(8)
    assert efficiency_multiple(fit(SIZES, bent), 1000, 0.84) < 6
    assert measured_multiple(SIZES, bent, 1000, 0.9) == 0.5  # the first size that is as good


def test_a_curve_that_rises_is_pooled_as_isotonic_regression_does():
    rng = np.random.default_rng(0)
    errors = np.sort(rng.uniform(0.3, 0.9, (6, 200)), axis=0)[::-1] + rng.normal(scale=0.05, size=(6, 200))
    pooled = np.stack([isotonic_regression(e, increasing=False).x for e in errors.T], axis=1)
    target = rng.uniform(0.3, 0.9, 200)
    found = measured_multiple(SIZES, errors, 1000, target)
    for i in range(200):
        y, x = pooled[:, i], np.log(SIZES)
        if target[i] < y[-1]:
            assert found[i] == np.inf
        elif target[i] >= y[0]:
            assert found[i] == 0.5
        else:
            # np.interp wants ascending and distinct points: the first size of each level
            level, first = np.unique(-y, return_index=True)
            after = np.searchsorted(level, -target[i])
            left = np.flatnonzero(-y == level[after - 1])[-1]
            share = (np.log(y[left]) - np.log(target[i])) / (np.log(y[left]) - np.log(y[first[after]]))
            assert found[i] == pytest.approx(np.exp(x[left] + share * (x[first[after]] - x[left])) / 1000, rel=1e-9)


@pytest.mark.parametrize("sizes", [[1000], [1000, 1000], [2000, 1000]])
def test_it_refuses_what_is_no_curve(sizes):
    with pytest.raises(ValueError, match="ascending"):
        measured_multiple(sizes, [0.5] * len(sizes), 1000, 0.4)


def drawn(rng, errors, seeds=3, problems=2000):
    """Which of the same problems, of a hardness of their own, are solved in each cell."""
    hardness = rng.random(problems)
    noise = lambda: rng.normal(scale=0.05, size=(seeds, problems))  # noqa: E731
    return [np.clip(hardness + noise(), 0, 1) > error for error in errors]


def test_intervals_cover_and_hold_their_estimate():
    covered, covered_ratio, covered_measured = 0, 0, 0
    for seed in range(15):
        *sft, first, second = drawn(np.random.default_rng(seed), [*LAW, 1.5 * 6000**-0.1, 1.5 * 3000**-0.1])
        curve = dict(zip(SIZES, sft))
        lo, hi = measured_multiple_interval(curve, 1000, first, resamples=200)
        value = measured_multiple(SIZES, [1 - cell.mean() for cell in sft], 1000, 1 - first.mean())
        assert lo <= value <= hi
        covered += lo <= 6 <= hi
        lo, hi = multiple_ratio_interval(curve, 1000, first, second, resamples=200)
        covered_ratio += lo <= 2 <= hi
        lo, hi = multiple_ratio_interval(curve, 1000, first, second, resamples=200, measured=True)
        covered_measured += lo <= 2 <= hi
    assert min(covered, covered_ratio, covered_measured) >= 12


def test_a_ratio_is_that_of_the_multiples_and_narrower():
    *sft, first, second = drawn(np.random.default_rng(0), [*LAW, 1.5 * 6000**-0.1, 1.5 * 3000**-0.1])
    law = fit(SIZES, [1 - cell.mean() for cell in sft])
    one, two = (efficiency_multiple(law, 1000, 1 - cell.mean()) for cell in (first, second))
    assert multiple_ratio(law, 1000, 1 - first.mean(), 1 - second.mean(), 16000) == pytest.approx(one / two)
    lo, hi = multiple_ratio_interval(dict(zip(SIZES, sft)), 1000, first, second, resamples=500)
    (one_lo, one_hi), (two_lo, two_hi) = (
        efficiency_multiple_interval(dict(zip(SIZES, sft)), 1000, cell, resamples=500) for cell in (first, second)
    )
    assert one_lo / two_hi < lo < one / two < hi < one_hi / two_lo


@pytest.mark.parametrize(
    "first, second, ratio",
    [(4000, 4000, 1), (8000, 2000, 4), (64_000, 2000, 8), (2000, 64_000, 1 / 8), (64_000, 32_000, 1)],
)
def test_a_ratio_extrapolates_neither_multiple(first, second, ratio):
    law = fit(SIZES, LAW)
    assert multiple_ratio(law, 1000, law.error(first), law.error(second), 16_000) == pytest.approx(ratio)
    assert measured_ratio(SIZES, LAW, 1000, law.error(first), law.error(second)) == pytest.approx(ratio)


def test_a_bend_makes_another_ratio_as_measured():
    bent = np.array([0.9, 0.9, 0.89, 0.88, 0.84, 0.7])
    assert measured_ratio(SIZES, bent, 1000, 0.84, 0.89) == pytest.approx(4)
    assert multiple_ratio(fit(SIZES, bent), 1000, 0.84, 0.89, 16_000) < 3
    assert measured_ratio(SIZES, bent, 1000, 0.84, 0.95) == pytest.approx(16), "SFT's first size is that good: 8 / .5"


def test_a_law_that_does_not_fall_has_every_multiple_beyond_its_sizes():
    assert multiple_ratio(PowerLaw(-0.5, -0.1), 1000, 0.4, 0.5, 16_000) == 1
