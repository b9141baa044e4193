"""The scaling law on synthetic data: its parameters come back, multiples are the paper's numbers, intervals cover."""

import math

import numpy as np
import pytest

from synthrl_jax.analysis.scaling_law import (
    PowerLaw,
    efficiency_multiple,
    efficiency_multiple_interval,
    exponent_interval,
    fit,
    format_multiple,
)

SIZES = [1000, 2000, 4000, 8000, 16000]


def test_an_exact_law_comes_back():
    law = fit(SIZES, 2.5 * np.array(SIZES, float) ** -0.15)
    assert law == pytest.approx((math.log(2.5), 0.15), rel=1e-10)
    np.testing.assert_allclose(law.error(np.array(SIZES)), 2.5 * np.array(SIZES, float) ** -0.15)


def test_fit_is_least_squares_in_logarithms():
    rng = np.random.default_rng(0)
    errors = rng.random(5) * 0.5 + 0.2
    slope, intercept = np.polyfit(np.log(SIZES), np.log(errors), 1)
    assert fit(SIZES, errors) == pytest.approx((intercept, -slope), rel=1e-9)


@pytest.mark.parametrize("b, ratio, multiple", [(0.15, 0.901, 2), (0.15, 0.732, 8), (0.05, 0.966, 2), (0.05, 0.901, 8)])
def test_error_ratios_of_the_paper(b, ratio, multiple):
    law = PowerLaw(0.3, b)
    assert efficiency_multiple(law, 8000, law.error(8000) * ratio) == pytest.approx(multiple, rel=0.01)
    assert isinstance(efficiency_multiple(law, 8000, 0.5), float)


@pytest.mark.parametrize("size", [500, 8000])
def test_the_multiple_puts_the_law_at_the_error(size):
    law = PowerLaw(0.1, 0.22)
    for error in (0.05, 0.3, 0.9, 1.0):
        assert law.error(efficiency_multiple(law, size, error) * size) == pytest.approx(error)
    assert efficiency_multiple(law, size, law.error(size)) == pytest.approx(1)


def test_edges_of_the_multiple():
    law = PowerLaw(0.1, 0.2)
    assert efficiency_multiple(law, 1000, 0.0) == math.inf
    assert efficiency_multiple(PowerLaw(-1, 0.0), 1000, 0.5) == math.inf
    assert efficiency_multiple(PowerLaw(-1, -0.1), 1000, 0.5) == math.inf
    assert efficiency_multiple(PowerLaw(0.1, 1e-5), 1000, 0.2) == math.inf  # beyond what a float holds
    assert 0 < efficiency_multiple(law, 1000, 1.0) < 0.01
    for size, error in [(1000, -0.1), (1000, 1.1), (0, 0.5), (1000, math.nan)]:
        with pytest.raises(ValueError):
            efficiency_multiple(law, size, error)


@pytest.mark.parametrize(
    "sizes, errors, match",
    [
        ([1000], [0.5], "two distinct"),
        ([1000, 1000], [0.5, 0.4], "two distinct"),
        ([0, 1000], [0.5, 0.4], "two distinct"),
        ([1000, 2000], [0.5, 0.0], "above 0"),
        ([1000, 2000], [1.5, 0.5], "at most 1"),
        ([1000, 2000], [math.nan, 0.5], "above 0"),
        ([1000, 2000], [0.5], "one error for each"),
    ],
)
def test_fit_refuses_what_is_no_curve(sizes, errors, match):
    with pytest.raises(ValueError, match=match):
        fit(sizes, errors)


def test_errors_of_1_and_repeated_sizes_are_points_like_others():
    assert fit([1, 2], [1.0, 0.5]) == pytest.approx((0, 1), abs=1e-12)
    assert fit([1, 1, 2, 2], [0.9, 0.7, 0.5, 0.3]).b == pytest.approx(
        fit([1, 2], np.sqrt([0.9 * 0.7, 0.5 * 0.3])).b, rel=1e-12
    )


def simulated(rng, law, multiple, seeds=4, problems=400, size=1000):
    """Cells of 0/1 outcomes: problems differ in difficulty alike in all cells, and each seed shifts its cells."""
    place = rng.random(problems)[None, :]
    shift = rng.normal(scale=0.01, size=(seeds, 1))

    def cell(n):
        error = np.clip(law.error(n) + shift, 0, 1)
        return rng.random((seeds, problems)) > np.clip(error + 0.3 * (place - 0.5), 0, 1)

    return {n: cell(n) for n in SIZES}, cell(multiple * size)


def test_the_interval_covers_the_multiple():
    law, rng, hits, trials = PowerLaw(math.log(0.6 * 1000**0.25), 0.25), np.random.default_rng(0), 0, 80
    for trial in range(trials):
        sft, method = simulated(rng, law, multiple=4)
        lo, hi = efficiency_multiple_interval(sft, 1000, method, resamples=400, seed=trial)
        hits += lo <= 4 <= hi
    assert 0.86 <= hits / trials <= 1.0


def test_the_exponent_s_interval_covers_it_and_shrinks_with_data():
    law, rng, hits, trials = PowerLaw(math.log(0.6 * 1000**0.15), 0.15), np.random.default_rng(5), 0, 60
    for trial in range(trials):
        sft, _ = simulated(rng, law, multiple=1)
        lo, hi = exponent_interval(sft, resamples=300, seed=trial)
        hits += lo <= 0.15 <= hi
    assert 0.85 <= hits / trials <= 1.0
    widths = [np.ptp(exponent_interval(simulated(rng, law, 1, problems=n)[0], resamples=300)) for n in (200, 5000)]
    assert widths[1] < 0.6 * widths[0]


def test_the_interval_holds_the_estimate_and_shrinks_with_data():
    law, rng = PowerLaw(math.log(0.6 * 1000**0.15), 0.15), np.random.default_rng(1)
    widths = []
    for problems in (300, 5000):
        sft, method = simulated(rng, law, 2, problems=problems)
        lo, hi = efficiency_multiple_interval(sft, 1000, method, resamples=800)
        point = fit(SIZES, [1 - sft[n].mean() for n in SIZES])
        assert lo < efficiency_multiple(point, 1000, 1 - method.mean()) < hi
        assert (lo, hi) == efficiency_multiple_interval(sft, 1000, method, resamples=800)
        widths.append(math.log(hi / lo))
    assert widths[1] < 0.6 * widths[0]


def test_resamples_of_problems_are_shared_by_all_cells():
    # A method that is SFT at 4000 itself: the curve and the method move together, and far apart if they did not.
    rng = np.random.default_rng(2)
    hard = rng.random(1000)[None, :]
    sft = {n: np.repeat(hard < 1 - 0.7 * (n / 1000) ** -0.15, 2, axis=0) for n in SIZES}
    lo, hi = efficiency_multiple_interval(sft, 1000, sft[4000], resamples=1000)
    assert lo < 4 < hi
    shuffled = sft[4000][:, rng.permutation(1000)]
    wide_lo, wide_hi = efficiency_multiple_interval(sft, 1000, shuffled, resamples=1000)
    assert math.log(hi / lo) < 0.7 * math.log(wide_hi / wide_lo)


def test_a_flat_curve_has_an_infinite_end():
    rng = np.random.default_rng(3)
    sft = {n: rng.random((3, 200)) < 0.5 for n in SIZES}
    lo, hi = efficiency_multiple_interval(sft, 1000, rng.random((3, 200)) < 0.7, resamples=500)
    assert hi == math.inf and lo > 1


def test_cells_may_differ_in_seeds_and_have_no_errors_in_a_resample():
    rng = np.random.default_rng(4)
    sft = {1000: rng.random((1, 30)) < 0.5, 2000: np.arange(30) > 0}  # one error: some resamples have none
    lo, hi = efficiency_multiple_interval(sft, 1000, rng.random((3, 30)) < 0.6, resamples=500)
    assert 0 < lo < hi and not math.isnan(hi)
    lo, hi = efficiency_multiple_interval(sft, 1000, np.ones((3, 30)), resamples=100)
    assert lo == hi == math.inf


def test_the_interval_refuses_what_it_cannot_use():
    sft = {1000: np.array([[1, 0, 0]]), 2000: np.array([[1, 1, 0]])}
    with pytest.raises(ValueError, match="test problems"):
        efficiency_multiple_interval(sft, 1000, np.ones((1, 4)))
    with pytest.raises(ValueError, match="two distinct"):
        efficiency_multiple_interval({1000: sft[1000]}, 1000, np.ones((1, 3)))
    with pytest.raises(ValueError, match="above 0"):
        efficiency_multiple_interval(sft | {4000: np.ones((1, 3))}, 1000, np.ones((1, 3)))
    with pytest.raises(ValueError, match="0 to 1"):
        efficiency_multiple_interval(sft, 1000, np.full((1, 3), 2))
    with pytest.raises(ValueError, match="level"):
        efficiency_multiple_interval(sft, 1000, np.ones((1, 3)), level=2)


def test_multiples_are_never_extrapolated_in_print():
    assert format_multiple(7.96, 1000, 16000) == "7.96"
    assert format_multiple(16.0, 1000, 16000) == "16"
    assert format_multiple(16.2, 1000, 16000) == ">= 16"
    assert format_multiple(math.inf, 1000, 16000) == ">= 16"
