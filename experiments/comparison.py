"""One method of a study against others, problem by problem: `python -m experiments.claims --config=... --compare=A,B[,C]`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments import report_data
from experiments.settings import UsageError
from experiments.study import Study
from synthrl_jax.analysis.estimate import Estimate
from synthrl_jax.analysis.evaluate import paired_difference_interval

SHARES = {
    "right_with_wrong_step": "right answers with a wrong step",
    "with_gap": "responses with a gap",
    "right_without_gap": "right ones of those without a gap",
}
POINTS = {"accuracy": "accuracy", "pass_at_k": "pass@{k}", **SHARES}
CAPPED = "; each at most SFT's largest size, which one of them may pass"
TIMES = {"law": "multiple by the law", "measured": "multiple as measured"}


def compare(study: Study, first: str, second: str, size: int) -> dict[str, Any]:
    """How `first` differs from `second` at a size, on the seeds that both have; 95 % intervals by paired bootstraps.

    accuracy, pass_at_k and the shares of SHARES: differences, -1..1; by_seed: accuracy's, one a seed; law, measured: the ratio
    of their multiples; capped: those of law and measured for which a multiple or an end of its interval lies beyond SFT's largest
    size and counts as that much. None where one of them has no such number, as SFT has no multiple. KeyError for a method
    without rows.
    """
    if missing := [method for method in (first, second) if (method, size) not in study.scores]:
        raise KeyError(f"no rows of {' or '.join(missing)} at N = {size}")
    seeds = study.seeds((first, size), (second, size))
    differences = study.right(first, size, seeds) - study.right(second, size, seeds) if seeds else np.zeros((0, 1))
    return {
        "seeds": seeds,
        "by_seed": [float(mean) for mean in differences.mean(axis=1)],
        "k": study.scores[first, size].k,
        "accuracy": study.difference(first, second, size),
        "pass_at_k": _passed(study, first, second, size),
        **{share: study.share_difference(first, second, size, share) for share in SHARES},
        "law": study.multiple_ratio(first, second, size),
        "measured": study.multiple_ratio(first, second, size, measured=True),
        "capped": _capped(study, first, second, size),
    }


def _capped(study: Study, first: str, second: str, size: int) -> list[str]:
    found = {
        "law": [study.scores[method, size].multiple for method in (first, second)],
        "measured": [study.measured_multiple(method, size) for method in (first, second)],
    }
    largest = study.largest / size * (1 + 1e-9)
    return [name for name, both in found.items() if any(e is not None and e.hi > largest for e in both)]


def text(study: Study, names: Sequence[str]) -> str:
    """The first method against each of the others, a paragraph each size and pair; UsageError for an unknown one."""
    if len(names) < 2:
        raise UsageError(f"--compare={','.join(names)}: give two methods or more, with commas between them")
    known = sorted({method for method, size in study.scores if size})
    if unknown := [name for name in names if name not in known]:
        raise UsageError(f"--compare: no rows of {', '.join(unknown)}; there are {', '.join(known)}")
    paragraphs = []
    for size in sorted(study.config["sizes"]):
        for other in names[1:]:
            if all((name, size) in study.scores for name in (names[0], other)):
                paragraphs.append(_paragraph(compare(study, names[0], other, size), names[0], other, size))
    return "\n\n".join(paragraphs)


def _paragraph(found: dict[str, Any], first: str, second: str, size: int) -> str:
    lines = [f"{first} against {second}, N = {size:,}, seeds {', '.join(map(str, found['seeds'])) or 'none in common'}"]
    for name, words in POINTS.items():
        if (e := found[name]) is not None:
            value, lo, hi = (f"{100 * end:+.1f}" for end in e)
            lines.append(f"  {words.format(k=found['k']):34} {value} [{lo}, {hi}] points")
        if name == "accuracy" and len(found["by_seed"]) > 1:
            lines[-1] += f"; by seed {', '.join(f'{100 * one:+.1f}' for one in found['by_seed'])}"
    lines += [
        f"  {words:34} {e.value:.2f} [{e.lo:.2f}, {e.hi:.2f}] times{CAPPED if n in found['capped'] else ''}"
        for n, words in TIMES.items()
        if (e := found[n])
    ]
    return "\n".join(lines)


def _passed(study: Study, first: str, second: str, size: int) -> Estimate | None:
    """The difference of pass@k; None where a method drew no samples."""
    scores = [study.scores[method, size] for method in (first, second)]
    seeds = study.seeds((first, size), (second, size))
    if not seeds or any(score.passed is None for score in scores):
        return None
    a, b = (score.passed[[score.seeds.index(seed) for seed in seeds]] for score in scores)
    if a.shape != b.shape:  # problems whose samples could not be graded are left out
        return None
    return Estimate(float(np.mean(a - b)), *paired_difference_interval(a, b, resamples=report_data.RESAMPLES))
