"""Rollouts spent where they decide: a step needs no more of them once its interval settles what is asked.

Stopping on what was drawn biases the estimate. Against a fixed threshold, by exact enumeration (`stopped_estimate`): looks
after 5, 8, 12 and 20 rollouts of best-of-5 against 0.5 bias no value by more than 0.025 and draw 11.2 of 20, averaged over
rates 0..1. Against thresholds that are estimates themselves, by simulation of wrong responses (experiments/bench/early_stop.py,
same looks): "pit" finds the pit of the full budget in every response with 13.2 of 20 rollouts a step, but Q of the other steps
is 0.08 too high on average (0.21 for values in the middle): use it for pairs, not for weights. "advantage" draws 18.3 of 20, its
bias is 0.007, 97.4 % of the signs are those of the full budget, but only 81 % of the pits, and the mean square error of Q is
0.044 in place of 0.016: steps on which nothing hangs keep 5 rollouts. A step that is settled once gets no more, also where
later rollouts of other steps would open it again. Off by default.
"""

import itertools
from collections.abc import Sequence

import numpy as np

from synthrl_jax.credit.values import best_of_k_value, value_interval

RULES = ("pit", "advantage")


def needs_more(successes, attempts, k, threshold, most, level=0.95):
    """Whether steps need more rollouts [...] bool: fewer than k, or fewer than `most` with `threshold` in their interval.

    threshold [...] is what the value is compared with: the Q of the step before asks whether A is above 0, the lowest
    Q of the other steps whether this is the pit. Host arrays; errors as in `value_interval`; most < k: ValueError.
    """
    if np.any(np.asarray(most) < k):
        raise ValueError(f"at most {most} rollouts cannot give a value of best-of-{k}")
    lo, hi = value_interval(successes, attempts, k, level)
    open_ = (lo <= threshold) & (threshold <= hi)
    return np.asarray(attempts < np.asarray(k)) | (open_ & (np.asarray(attempts) < most))


def rounds_of(looks: Sequence[int], budget: int, k: int, rule: str) -> list[int]:
    """Rollouts a step after each look, the last being the budget. ValueError: an unknown rule, or looks that make no sense."""
    rounds = [*looks, budget]
    if rule not in RULES:
        raise ValueError(f"early_stop must be one of {', '.join(RULES)} or empty, not {rule!r}")
    if rounds[0] < k or any(a >= b for a, b in itertools.pairwise(rounds)):
        raise ValueError(f"looks {tuple(looks)} must rise from at least k={k} to below the budget of {budget} rollouts")
    return rounds


def open_steps(successes, attempts, k: int, budget: int, rule: str, start: float, level: float = 0.95) -> np.ndarray:
    """Which steps of one response need more rollouts [S] bool.

    successes, attempts [S]; the last step's are its own verdict's: its value is known. start: V(x), NaN where unknown.
    "pit" asks of each step whether its Q is below that of all others. "advantage" asks of each pair of neighbours whether A
    is above 0, the first one's Q taken at its estimate; both get more rollouts while it is open.
    """
    successes, attempts = np.asarray(successes), np.asarray(attempts)
    if len(successes) < 2:
        return np.zeros(len(successes), bool)
    known = attempts >= k
    q = np.where(known, best_of_k_value(np.where(known, successes, 0), np.where(known, attempts, k), k), np.nan)
    if rule == "pit":
        others = np.where(np.eye(len(q), dtype=bool) | np.isnan(q), np.inf, q).min(axis=1)
        found = needs_more(successes, attempts, k, others, budget, level)
    else:
        lo, hi = value_interval(successes, attempts, k, level)
        before = np.concatenate([[start], q[:-1]])
        pair = np.isnan(before) | ((lo <= before) & (before <= hi))
        pair[-1] = q[-1] > 0 and hi[-2] >= q[-1]  # after a wrong end A is not above 0
        found = (attempts < k) | ((pair | np.append(pair[1:], False)) & (attempts < budget))
    found[-1] = False
    return found


def stopped_estimate(rate: float, k: int, threshold: float, rounds, level: float = 0.95) -> tuple[float, float]:
    """(expected estimate, expected rollouts) of a step whose rollouts are right with probability `rate`, exactly.

    rounds: rollouts after each look, ascending; the last is the most that are drawn. The fixed-size estimate is
    unbiased, so the first number less 1 - (1 - rate)^k is the bias of stopping early.
    """
    mass, before, estimate, spent = {0: 1.0}, 0, 0.0, 0.0
    for attempts in rounds:
        drawn = _binomial(attempts - before, rate)
        after: dict[int, float] = {}
        for count, weight in mass.items():
            for more, chance in enumerate(drawn):
                after[count + more] = after.get(count + more, 0.0) + weight * chance
        mass, before = {}, attempts
        for count, weight in after.items():
            if needs_more(count, attempts, k, threshold, rounds[-1], level):
                mass[count] = weight
            else:
                estimate += weight * float(best_of_k_value(count, attempts, k))
                spent += weight * attempts
    return estimate, spent


def _binomial(n: int, rate: float) -> np.ndarray:
    out = np.ones(1)
    for _ in range(n):
        out = np.convolve(out, [1 - rate, rate])
    return out
