"""Estimates of how good a policy is from its graded samples, and how sure they are."""

import operator
from collections.abc import Callable, Sequence
from math import comb
from typing import NamedTuple

import numpy as np

from synthrl_jax.credit.values import best_of_k_value

CHUNK = 1 << 22  # random numbers drawn at a time


def pass_at_k(correct, n, k):
    """Unbiased probability that one of k samples is right, from `correct` right ones of n: 1 - C(n-c, k) / C(n, k).

    Elementwise [...], numpy or jax; errors as in `credit.values.best_of_k_value`. (Chen et al. 2021, Eq. 1)
    """
    return best_of_k_value(correct, n, k)


class Votes(NamedTuple):
    """Samples per distinct answer, the index of the correct one (-1: nobody gave it), and samples without an answer."""

    counts: list[int]
    correct: int
    no_answer: int


def count_votes(answers: Sequence, gold, equal: Callable[[object, object], bool] = operator.eq) -> Votes:
    """The votes of one problem's sampled answers, None standing for no answer; `equal` says which are the same."""
    distinct, counts = [], []
    for answer in answers:
        if answer is None:
            continue
        place = next((i for i, known in enumerate(distinct) if equal(known, answer)), None)
        if place is None:
            distinct.append(answer)
            counts.append(1)
        else:
            counts[place] += 1
    correct = next((i for i, known in enumerate(distinct) if equal(known, gold)), -1)
    return Votes(counts, correct, len(answers) - sum(counts))


def majority_at_k(counts, correct, k: int, no_answer=0) -> np.ndarray:
    """Unbiased probability that the majority of k samples is right: the mean over all subsets of k of the n samples.

    counts int [..., A]: samples per distinct answer (0 pads); correct int [...]: the index of the correct answer, -1
    where no sample gave it; no_answer int [...]: samples that vote for nothing. Of several answers with most votes each
    wins equally often. n = counts.sum(-1) + no_answer. Returns float64 [...]. ValueError for n < k, k < 1, a negative
    count, or an index beyond A.
    """
    counts = np.asarray(counts)
    correct, no_answer = (np.broadcast_to(x, counts.shape[:-1]) for x in (correct, no_answer))
    if (counts < 0).any() or (no_answer < 0).any():
        raise ValueError("counts must not be negative")
    if (correct >= counts.shape[-1]).any() or (correct < -1).any():
        raise ValueError(f"correct must index one of the {counts.shape[-1]} answers, or be -1")
    fewest = (counts.sum(-1) + no_answer).min(initial=k)
    if k < 1 or fewest < k:
        raise ValueError(f"majority of {k} cannot be estimated from {fewest} samples")
    out = np.zeros(correct.shape)
    for where in np.ndindex(correct.shape):
        out[where] = _majority([int(c) for c in counts[where]], int(correct[where]), k, int(no_answer[where]))
    return out[()]


def bootstrap_interval(values, level: float = 0.95, resamples: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval (lo, hi) of the mean of `values` [problems], or [seeds, problems].

    Problems are resampled, and with two axes seeds too, each seed keeping its row. Same seed, same interval. ValueError
    for no values or a NaN. Values that are all equal give an interval of no width.
    """
    values = np.asarray(values, float)
    if values.ndim not in (1, 2) or not values.size or np.isnan(values).any():
        raise ValueError(f"values must be numbers [problems] or [seeds, problems], got shape {values.shape}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level}")
    rng = np.random.default_rng(seed)
    if values.ndim == 1:
        means = _resampled_means(values, resamples, rng)
    else:
        means = np.concatenate([cells[0] for cells in resampled_means([values], resamples, rng)])
    lo, hi = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(lo), float(hi)


def paired_difference_interval(first, second, **settings) -> tuple[float, float]:
    """Bootstrap interval of mean(first - second) over the same problems (and seeds); settings of `bootstrap_interval`."""
    first, second = np.asarray(first, float), np.asarray(second, float)
    if first.shape != second.shape:
        raise ValueError(f"paired values need one shape, got {first.shape} and {second.shape}")
    return bootstrap_interval(first - second, **settings)


def resampled_means(cells: Sequence[np.ndarray], resamples: int, rng: np.random.Generator):
    """Yields means [cells, r] of bootstrap resamples, `resamples` in all; each cell is [seeds, problems].

    All cells share a resample of problems; cells with the same number of seeds share one of seeds, since a seed's cells
    go together.
    """
    problems = cells[0].shape[1]
    flat = np.concatenate(cells)
    rows = np.split(np.arange(len(flat)), np.cumsum([len(cell) for cell in cells])[:-1])
    chunk = max(1, CHUNK // problems)
    for start in range(0, resamples, chunk):
        r = min(chunk, resamples - start)
        by_row = flat @ rng.multinomial(problems, np.full(problems, 1 / problems), size=r).T / problems
        seeds = {n: rng.multinomial(n, np.full(n, 1 / n), size=r).T / n for n in sorted({len(c) for c in cells})}
        yield np.stack([(by_row[row] * seeds[len(row)]).sum(0) for row in rows])


def _resampled_means(values: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Means [resamples]: a resample is a multinomial draw over the distinct values, few where values are 0 or 1."""
    distinct, counts = np.unique(values, return_counts=True)
    means, chunk = [], max(1, CHUNK // len(distinct))
    for start in range(0, resamples, chunk):
        draws = rng.multinomial(len(values), counts / len(values), size=min(chunk, resamples - start))
        means.append(draws @ distinct / len(values))
    return np.concatenate(means)


def _majority(counts: list[int], correct: int, k: int, no_answer: int) -> float:
    """Exact by counting: with m votes for the correct answer, others have at most m, and t of them m: it wins 1/(1+t)."""
    if correct < 0 or not counts[correct]:
        return 0.0
    others = [count for place, count in enumerate(counts) if place != correct and count]
    wins = 0.0
    subsets = comb(sum(counts) + no_answer, k)
    for m in range(1, min(k, counts[correct]) + 1):
        left = k - m
        # ways[t][j]: subsets of j of the samples seen so far in which t other answers have m votes each
        ways = [[comb(no_answer, j) for j in range(left + 1)]]
        for count in others:
            fewer = [comb(count, j) for j in range(min(m, left + 1))]
            tied = comb(count, m) if m <= left else 0
            grown = [[0] * (left + 1) for _ in range(len(ways) + bool(tied))]
            for t, row in enumerate(ways):
                for j, number in enumerate(row):
                    if not number:
                        continue
                    for more, choices in enumerate(fewer[: left + 1 - j]):
                        grown[t][j + more] += number * choices
                    if tied and j + m <= left:
                        grown[t + 1][j + m] += number * tied
            ways = grown
        wins += sum(row[left] * comb(counts[correct], m) / subsets / (1 + t) for t, row in enumerate(ways))
    return wins
