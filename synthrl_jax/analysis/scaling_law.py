"""The scaling law of SFT, err = exp(c) * D^-b, and the efficiency multiples that are read from it."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from synthrl_jax.analysis.evaluate import resampled_means


class PowerLaw(NamedTuple):
    """log err = c - b log D."""

    c: float
    b: float

    def error(self, size):
        """The law's error at `size` problems [...]."""
        return np.exp(self.c - self.b * np.log(size))


def fit(sizes, errors) -> PowerLaw:
    """Least squares of log err = c - b log D. sizes [n] numbers of problems, errors [n] in (0, 1]; repeats may occur.

    ValueError for fewer than two distinct sizes, or an error outside (0, 1]: the logarithm of 0 is no point of a line.
    """
    sizes, errors = np.asarray(sizes, float), np.asarray(errors, float)
    if sizes.shape != errors.shape or sizes.ndim != 1:
        raise ValueError(f"one error for each size, got shapes {sizes.shape} and {errors.shape}")
    if not (sizes > 0).all() or len(np.unique(sizes)) < 2:
        raise ValueError(f"a law needs at least two distinct sizes above 0, got {sizes.tolist()}")
    if not ((errors > 0) & (errors <= 1)).all():
        raise ValueError(f"errors must be above 0 and at most 1, got {errors.tolist()}")
    c, b = _fit(np.log(sizes), np.log(errors))
    return PowerLaw(float(c), float(b))


def efficiency_multiple(law: PowerLaw, size, error) -> float:
    """The k for which SFT on k * size problems has `error` by the law.

    Infinite where the law does not fall (b <= 0), and for error 0. ValueError for an error outside [0, 1], size <= 0.
    """
    if not 0 <= error <= 1:
        raise ValueError(f"error must lie between 0 and 1, not {error}")
    if not size > 0:
        raise ValueError(f"size must be above 0, not {size}")
    return float(_multiple(law.c, law.b, size, np.asarray(float(error))))


def efficiency_multiple_interval(
    sft_correct: Mapping[int, np.ndarray],
    size: int,
    method_correct: np.ndarray,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval (lo, hi) of the multiple of a method at `size` problems; ends may be infinite.

    sft_correct: at each SFT size, which test problems were solved, [seeds, problems] (or [problems]) in 0..1;
    method_correct the same for the method. A resample draws test problems, the same for all cells, and seeds, the same
    for cells of equally many seeds, and fits the law anew; one with b <= 0 counts as infinite. An SFT error of 0 in a
    resample is taken as half a wrong answer. ValueError for fewer than two sizes, other numbers of problems, or an SFT
    cell without any error.
    """
    sizes = sorted(sft_correct)
    multiples = []
    for errors in _resampled_errors(sft_correct, [method_correct], level, resamples, seed):
        c, b = _fit(np.log(np.array(sizes, float)), np.log(errors[:-1]))
        multiples.append(_multiple(c, b, size, errors[-1]))
    return _ends(np.concatenate(multiples), level)


def multiple_ratio_interval(
    sft_correct: Mapping[int, np.ndarray],
    size: int,
    first_correct: np.ndarray,
    second_correct: np.ndarray,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
    measured: bool = False,
) -> tuple[float, float]:
    """Percentile bootstrap interval (lo, hi) of `multiple_ratio` (`measured_ratio`), one method's multiple over another's.

    Both are read from the same law and problems in a resample, so what they share cancels: the interval is narrower than the
    two multiples' own suggest. Arguments and errors as in `efficiency_multiple_interval`.
    """
    sizes, ratios = sorted(sft_correct), []
    for errors in _resampled_errors(sft_correct, [first_correct, second_correct], level, resamples, seed):
        if measured:
            ratios.append(measured_ratio(sizes, errors[:-2], size, errors[-2], errors[-1]))
            continue
        c, b = _fit(np.log(np.array(sizes, float)), np.log(errors[:-2]))
        ratios.append(multiple_ratio(PowerLaw(c, b), size, errors[-2], errors[-1], sizes[-1]))
    return _ends(np.concatenate(ratios), level)


def multiple_ratio(law: PowerLaw, size, first_error, second_error, largest) -> np.ndarray:
    """How many times the multiple of one method is that of another [...], by their errors at `size` problems.

    Nothing is extrapolated: a multiple beyond largest / size, with `largest` SFT's largest size, counts as that much.
    """
    first, second = (
        np.minimum(_multiple(*law, size, np.asarray(e, float)), largest / size) for e in (first_error, second_error)
    )
    return first / second


def measured_ratio(sizes, errors, size, first_error, second_error) -> np.ndarray:
    """`multiple_ratio` by `measured_multiple` [...]: no law, and nothing beyond SFT's sizes, the largest and the smallest."""
    first, second = (
        np.minimum(measured_multiple(sizes, errors, size, e), sizes[-1] / size) for e in (first_error, second_error)
    )
    return first / second


def measured_multiple(sizes, errors, size, error) -> np.ndarray:
    """The k for which SFT on k * size problems has `error` [...] by its own measured errors, without a law.

    sizes [n], ascending; errors [n, ...] at them, made non-increasing first (pooled as in isotonic regression); between sizes
    a line in logarithms. Infinite where no size comes down to the error, and sizes[0] / size where the first one does: beyond
    the sizes nothing is known. A law that bends hides in `efficiency_multiple` and shows here.
    """
    sizes, errors, error = np.asarray(sizes, float), np.asarray(errors, float), np.asarray(error, float)
    if len(sizes) < 2 or (np.diff(sizes) <= 0).any() or len(errors) != len(sizes):
        raise ValueError(f"two or more ascending sizes, each with its errors, got {sizes.tolist()} and {errors.shape}")
    n = len(sizes)
    # Non-increasing least squares: at i the least of the greatest mean of a stretch that holds i.
    sums = np.concatenate([np.zeros_like(errors[:1]), np.cumsum(errors, axis=0)])
    means = {(a, z): (sums[z + 1] - sums[a]) / (z + 1 - a) for a in range(n) for z in range(a + 1, n)}
    means |= {(i, i): errors[i] for i in range(n)}  # as they are, not to the last bit but one
    curve = np.stack(
        [np.min([np.max([means[a, z] for z in range(i, n)], axis=0) for a in range(i + 1)], axis=0) for i in range(n)]
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        y, target, x = np.log(curve), np.log(error), np.log(sizes)
        out = np.full(np.broadcast_shapes(curve[0].shape, error.shape), np.inf)
        for i in range(1, n):
            here = (curve[i] <= error) & (curve[i - 1] > error)
            share = np.where(curve[i] > 0, (y[i - 1] - target) / (y[i - 1] - y[i]), 1.0)
            out = np.where(here, x[i - 1] + share * (x[i] - x[i - 1]), out)
        return np.where(curve[0] <= error, sizes[0], np.exp(out)) / size


def measured_multiple_interval(
    sft_correct: Mapping[int, np.ndarray],
    size: int,
    method_correct: np.ndarray,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval (lo, hi) of `measured_multiple`; arguments as in `efficiency_multiple_interval`."""
    sizes = sorted(sft_correct)
    drawn = _resampled_errors(sft_correct, [method_correct], level, resamples, seed)
    return _ends(np.concatenate([measured_multiple(sizes, e[:-1], size, e[-1]) for e in drawn]), level)


def _resampled_errors(sft_correct: Mapping[int, np.ndarray], methods, level: float, resamples: int, seed: int):
    """Yields errors [SFT's sizes and then the methods, r] of bootstrap resamples; those of SFT are above 0."""
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level}")
    sizes = sorted(sft_correct)
    cells = [np.atleast_2d(np.asarray(cell, float)) for cell in [*(sft_correct[s] for s in sizes), *methods]]
    if len({cell.shape[1] for cell in cells}) > 1:
        raise ValueError(f"cells differ in their test problems: {[cell.shape for cell in cells]}")
    if not all(((cell >= 0) & (cell <= 1)).all() for cell in cells):
        raise ValueError("correct must be numbers from 0 to 1")
    fit(sizes, [1 - cell.mean() for cell in cells[: len(sizes)]])
    least = np.array([0.5 / cell.size for cell in cells[: len(sizes)]] + [0.0] * len(methods))[:, None]
    for means in resampled_means(cells, resamples, np.random.default_rng(seed)):
        yield np.maximum(np.clip(1 - means, 0, 1), least)


def _ends(values: np.ndarray, level: float) -> tuple[float, float]:
    """The two ends of a percentile interval. No interpolation: between a finite and an infinite multiple there is nothing."""
    values = np.sort(values)
    lo = values[int(np.floor((1 - level) / 2 * (len(values) - 1)))]
    hi = values[int(np.ceil((1 + level) / 2 * (len(values) - 1)))]
    return float(lo), float(hi)


def exponent_interval(
    sft_correct: Mapping[int, np.ndarray], level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval (lo, hi) of the law's exponent b; arguments as in `efficiency_multiple_interval`."""
    sizes = sorted(sft_correct)
    cells = [np.atleast_2d(np.asarray(sft_correct[s], float)) for s in sizes]
    fit(sizes, [1 - cell.mean() for cell in cells])
    least = np.array([0.5 / cell.size for cell in cells])[:, None]
    exponents = [
        _fit(np.log(np.array(sizes, float)), np.log(np.maximum(1 - means, least)))[1]
        for means in resampled_means(cells, resamples, np.random.default_rng(seed))
    ]
    lo, hi = np.quantile(np.concatenate(exponents), [(1 - level) / 2, (1 + level) / 2])
    return float(lo), float(hi)


def format_multiple(multiple: float, size: float, largest: float) -> str:
    """The multiple as text, ">= 16" where it lies beyond the largest SFT size (16 * size): it is never extrapolated."""
    beyond = multiple * size > largest * (1 + 1e-9)
    return f">= {largest / size:.3g}" if beyond else f"{multiple:.3g}"


def _fit(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """c, b [...] of y = c - b x by least squares; x [n], y [n, ...]."""
    spread = x - x.mean()
    b = -np.tensordot(spread, y, axes=1) / (spread**2).sum()
    return y.mean(axis=0) + b * x.mean(), b


def _multiple(c, b, size, error: np.ndarray) -> np.ndarray:
    falls = (np.asarray(b) > 0) & (error > 0)
    with np.errstate(over="ignore", divide="ignore"):
        logarithm = np.where(falls, c - np.log(error), np.inf) / np.where(falls, b, 1) - np.log(size)
        return np.exp(logarithm)
