"""How many steps of a policy's responses are wrong, needless or leaps, how many right answers hold a wrong one (C4), and how
many responses leave a gap."""

from collections.abc import Mapping, Sequence

import numpy as np

from synthrl_jax.analysis.estimate import Estimate
from synthrl_jax.analysis.evaluate import resampled_means
from synthrl_jax.problems.oracle import KINDS, WRONG

# Each share is a ratio of two counts over the same responses.
SHARES = {
    "wrong_steps": ("wrong", "lines"),
    "needless_steps": ("needless", "lines"),
    "leaps": ("leap", "lines"),
    "right_with_wrong_step": ("right_with_wrong", "right"),
}
# A response has a gap where a line uses a value that was never stated, as a terse teacher's do: a leap, or a wrong line that is
# not ready.
GAPS = {"with_gap": ("with_gap", "responses"), "right_without_gap": ("right_without_gap", "without_gap")}
GAP = ("leap", "not ready")


def line_counts(rows: Sequence[Mapping]) -> dict[str, np.ndarray]:
    """Counts [problems] by name, from a row a problem with its `outcome` and `greedy`, the oracle's {kind: lines}.

    ValueError for a kind that the oracle does not know.
    """
    for row in rows:
        if unknown := set(row["greedy"]) - set(KINDS):
            raise ValueError(f"problem {row.get('id')}: unknown kinds of line: {', '.join(sorted(unknown))}")
    count = lambda kinds: np.array([sum(row["greedy"].get(k, 0) for k in kinds) for row in rows], float)  # noqa: E731
    right = np.array([row["outcome"] == "correct" for row in rows], float)
    wrong = count(WRONG)
    counts = {"wrong": wrong, "needless": count(["needless"]), "leap": count(["leap"]), "lines": count(KINDS)}
    gap = (count(GAP) > 0).astype(float)
    counts |= {
        "responses": np.ones_like(gap),
        "with_gap": gap,
        "without_gap": 1 - gap,
        "right_without_gap": right * (1 - gap),
    }
    return counts | {"right": right, "right_with_wrong": right * (wrong > 0)}


def step_ratios(
    by_seed: Sequence[Sequence[Mapping]], shares: Mapping[str, tuple[str, str]] = SHARES
) -> dict[str, float]:
    """The shares (SHARES or GAPS), each a ratio of two sums over all responses; `by_seed` holds, for each seed, a row a problem.

    A share that is nowhere defined (no line, no right answer) is left out.
    """
    totals: dict[str, float] = dict.fromkeys((name for pair in shares.values() for name in pair), 0.0)
    for rows in by_seed:
        counts = line_counts(rows)
        totals = {name: total + float(counts[name].sum()) for name, total in totals.items()}
    return {share: totals[part] / totals[whole] for share, (part, whole) in shares.items() if totals[whole]}


def step_shares(
    by_seed: Sequence[Sequence[Mapping]],
    shares: Mapping[str, tuple[str, str]] = SHARES,
    level: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """`step_ratios` with percentile bootstrap intervals: a resample draws problems, the same for all sums and seeds, and seeds.

    ValueError for no rows, or for seeds that differ in their number of problems.
    """
    by_seed = [list(rows) for rows in by_seed]
    if not by_seed or not by_seed[0] or len({len(rows) for rows in by_seed}) > 1:
        raise ValueError(f"every seed needs a row for each problem, got {[len(rows) for rows in by_seed]}")
    counts = [line_counts(rows) for rows in by_seed]
    names = sorted({name for pair in shares.values() for name in pair})
    cells = [np.stack([of_seed[name] for of_seed in counts]) for name in names]
    drawn = np.concatenate(list(resampled_means(cells, resamples, np.random.default_rng(seed))), axis=1)
    means, out = dict(zip(names, drawn)), {}
    for share, value in step_ratios(by_seed, shares).items():
        part, whole = shares[share]
        kept = means[whole] > 0
        lo, hi = np.quantile(means[part][kept] / means[whole][kept], [(1 - level) / 2, (1 + level) / 2])
        out[share] = Estimate(value, float(lo), float(hi))
    return out


def share_difference(
    first: Sequence[Sequence[Mapping]],
    second: Sequence[Sequence[Mapping]],
    share: str,
    level: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> Estimate | None:
    """A share (of SHARES or GAPS) of `first` minus that of `second`, paired: both answered the same problems with the same seeds.

    Rows as in `step_shares`, which says what a resample is. None where a share is not defined. ValueError for other shapes.
    """
    shapes = [[len(rows) for rows in by_seed] for by_seed in (first, second)]
    if shapes[0] != shapes[1] or not shapes[0] or len(set(shapes[0])) > 1:
        raise ValueError(f"paired rows need the same seeds and problems, got {shapes}")
    part, whole = (SHARES | GAPS)[share]
    cells = []
    for by_seed in (first, second):
        counts = [line_counts(rows) for rows in by_seed]
        cells += [np.stack([of_seed[name] for of_seed in counts]) for name in (part, whole)]
    if not (cells[1].any() and cells[3].any()):
        return None
    drawn = np.concatenate(list(resampled_means(cells, resamples, np.random.default_rng(seed))), axis=1)
    a, b, c, d = drawn[:, (drawn[1] > 0) & (drawn[3] > 0)]
    lo, hi = np.quantile(a / b - c / d, [(1 - level) / 2, (1 + level) / 2])
    value = cells[0].sum() / cells[1].sum() - cells[2].sum() / cells[3].sum()
    return Estimate(float(value), float(lo), float(hi))
