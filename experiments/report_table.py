"""The result table: its columns, and its text for a terminal."""

import dataclasses
from collections.abc import Callable

from experiments.report_data import CONTROL, Report, Scores
from experiments.report_words import paragraphs, what
from synthrl_jax.analysis.estimate import Estimate
from synthrl_jax.analysis.scaling_law import format_multiple

SHARE_TITLES = {
    "wrong_steps": "wrong steps %",
    "needless_steps": "needless %",
    "leaps": "leaps %",
    "right_with_wrong_step": "right, wrong step %",
}


# nats a step, on pi_sft's samples: how much less likely the method made it, and how far it moved it either way
DRIFT_TITLES = {
    "drift_needed_lost": "right steps lost",
    "drift_needed_moved": "right steps moved",
    "drift_wrong_lost": "wrong steps lost",
    "drift_wrong_moved": "wrong steps moved",
}


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of the result table: its title, and a row's number and interval as text, empty where there is none."""

    title: str
    number: Callable[[Scores], str]
    interval: Callable[[Scores], str] = lambda scores: ""
    brief: bool = False  # the terminal leaves its intervals out


def columns(report: Report) -> list[Column]:
    """The table's columns; what no row has is left out."""
    k = max((s.k for s in report.scores), default=0)
    found = [Column("method", lambda s: "base (zero-shot)" if s.method == "base" else s.method)]
    if len(report.sizes) > 1:
        found.append(Column("problems", lambda s: f"{s.size:,}" if s.size else ""))
    if any(len(s.seeds) > 1 for s in report.scores):
        found.append(Column("seeds", lambda s: str(len(s.seeds))))
    found.append(_estimates("accuracy %", lambda s: s.accuracy))
    found.append(_estimates(f"pass@{k} %", lambda s: s.pass_at_k))
    found.append(_estimates(f"vs {CONTROL}", lambda s: s.difference, sign="+"))
    if report.scaling is not None:
        largest = max(report.scaling.sizes)
        text = lambda s, value: format_multiple(value, s.size, largest)  # noqa: E731
        number = lambda s: text(s, s.multiple.value) if s.multiple else ""  # noqa: E731
        interval = lambda s: f"[{text(s, s.multiple.lo)}, {text(s, s.multiple.hi)}]" if s.multiple else ""  # noqa: E731
        found.append(Column("multiple", number, interval))
    for name in dict.fromkeys(name for s in report.scores for name in s.elsewhere):
        found.append(_estimates(f"{name} %", lambda s, name=name: s.elsewhere.get(name)))
    for name, title in SHARE_TITLES.items():
        found.append(_estimates(title, lambda s, name=name: s.shares.get(name), brief=True))
    for name, title in DRIFT_TITLES.items():
        found.append(Column(title, lambda s, name=name: f"{s.facts[name]:.2f}" if name in s.facts else ""))
    return [column for column in found if any(column.number(s) for s in report.scores)]


def _estimates(title: str, get: Callable[[Scores], Estimate | None], sign: str = "", brief: bool = False) -> Column:
    def number(scores: Scores) -> str:
        estimate = get(scores)
        return "" if estimate is None else f"{100 * estimate.value:{sign}.1f}"

    def interval(scores: Scores) -> str:
        estimate = get(scores)
        return "" if estimate is None else f"[{100 * estimate.lo:{sign}.1f}, {100 * estimate.hi:{sign}.1f}]"

    return Column(title, number, interval, brief)


def table(report: Report) -> str:
    """The result table and what the stages found, as text for a terminal."""
    shown = columns(report)
    lines = [[column.title for column in shown]]
    for scores in report.scores:
        cells = []
        for column in shown:
            interval = "" if column.brief else column.interval(scores)
            cells.append(f"{column.number(scores)} {interval}".strip() or "-")
        lines.append(cells)
    widths = [max(len(line[i]) for line in lines) for i in range(len(shown))]
    fill = lambda line: "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths)))  # noqa: E731
    rule = "-" * (sum(widths) + 2 * len(widths) - 2)
    body = (
        [fill(lines[0]), rule, *map(fill, lines[1:]), rule] if report.scores else ["no method has been evaluated yet"]
    )
    return "\n".join([f"{report.name}: {what(report)}", "", *body, "", *paragraphs(report)])
