"""Choices of the pit beside those by the lowest value: a random step, and every step that falls significantly."""

import numpy as np
from scipy import stats


def random_pit(q, a, mask, key: int) -> int:
    """A step chosen by `key` among those that have a value and V(prefix) > 0, whether or not they fall; -1 where there is none.

    q, a [S], mask bool [S]: values, advantages (so V(prefix) = q - a) and which steps have them. A lower bound for what
    pits are worth: where V(prefix) is 0 no rule makes a pair, so these are the steps that one could choose.
    """
    live = np.flatnonzero(np.asarray(mask, bool) & (np.asarray(q) - np.asarray(a) > 1e-9))
    return int(live[key % len(live)]) if len(live) else -1


def drop_p_values(successes, attempts, prompt_counts: tuple[int, int]) -> np.ndarray:
    """p [S] of Fisher's exact test, one-sided, that fewer rollouts succeed after each step than before it.

    successes, attempts [S]: counts after each step; prompt_counts: those of the prompt, before step 0. Where either side has
    no attempts p is 1.
    """
    successes, attempts = np.asarray(successes), np.asarray(attempts)
    before_c = np.concatenate([[prompt_counts[0]], successes[:-1]])[: len(successes)]
    before_n = np.concatenate([[prompt_counts[1]], attempts[:-1]])[: len(successes)]
    # Given both margins, the successes after the step are hypergeometric.
    return stats.hypergeom.cdf(successes, before_n + attempts, before_c + successes, attempts)


def significant_pits(successes, attempts, prompt_counts: tuple[int, int], a, mask, level: float) -> list[int]:
    """The steps with a value, A < 0 and `drop_p_values` of at most `level`, in order."""
    p = drop_p_values(successes, attempts, prompt_counts)
    return np.flatnonzero(np.asarray(mask, bool) & (np.asarray(a) < 0) & (p <= level)).tolist()
