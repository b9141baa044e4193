"""A study's rows as a Markdown table, for the README and for papers: `python -m experiments.claims --config=... --table`."""

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def markdown(rows: Sequence[Row], titles: Mapping[str, str]) -> str:
    """The table of `claims.by_setting`'s rows: SFT by size, then the methods from the least accurate to the most; titles:
    method -> words.

    Accuracies are percent, multiples have 95 % intervals; a method's tokens, all that came before included, are over SFT's
    at the same size, and the law's multiple is shown over that too. A row of fewer seeds than the others says so. Pits are
    right where they are the oracle's first wrong step. Where drift was measured there are two more columns: log p of a needed
    and right step, and of a wrong one, under pi_sft minus that under the method, in nats, the mean over steps of pi_sft's
    samples.
    """
    sizes = [row["size"] for row in rows if row["method"] == "sft"]
    start, end = min(sizes, default=0), max(sizes, default=0)
    k = next((name[8:] for name in rows[0] if name.startswith("pass_at_") and name[8:].isdigit()), "k")
    columns = {
        "accuracy %": lambda row: _percent(row, "accuracy"),
        f"pass@{k} %": lambda row: _percent(row, f"pass_at_{k}"),
        "multiple by the law": lambda row: interval(row, "multiple", end),
        "as measured": lambda row: interval(row, "multiple_measured", end, start),
        "right answers with a wrong step %": lambda row: _percent(row, "right_with_wrong_step"),
        "tokens / SFT's": lambda row: _ratio(row, "compute"),
        "multiple / tokens": lambda row: _ratio(row, "multiple_per_compute"),
    }
    if any(row.get("pit_is_first_wrong") is not None for row in rows):
        columns["pits right %"] = lambda row: _percent(row, "pit_is_first_wrong")
    if any("drift_needed_lost" in row for row in rows):
        columns["needed steps lost"] = lambda row: _ratio(row, "drift_needed_lost", 2)
        columns["wrong steps lost"] = lambda row: _ratio(row, "drift_wrong_lost", 2)
    lines = ["| " + " | ".join(["", *columns]) + " |", "|---" * (len(columns) + 1) + "|"]
    methods = [row for row in rows if row["method"] not in ("base", "sft")]
    plain = [row for row in rows if row["method"] in ("base", "sft")]
    several = len({row["size"] for row in methods}) > 1
    most = max((row.get("seeds", 0) for row in rows), default=0)
    for row in [*plain, *sorted(methods, key=lambda row: (row["size"], row["accuracy"]))]:
        fewer = (
            f" ({row['seeds']} of {most} seeds)" if row["method"] != "base" and row.get("seeds", most) < most else ""
        )
        cells = [_name(row, titles, several) + fewer, *(cell(row) for cell in columns.values())]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(" ".join(line.split()) for line in lines)


def interval(row: Row, name: str, end: int, start: int = 0) -> str:
    """`2.4 [1.7, 3.5]`, empty where the row has no such number; `>= 16` where SFT's sizes end, at `end` problems, and `<= 0.5`
    where they begin, at `start`."""
    if row.get(name) is None:
        return ""
    found, largest = (row[name], row[f"{name}_lo"], row[f"{name}_hi"]), end / row["size"]

    def end_of(one: float) -> str:
        if one >= largest * (1 - 1e-9):
            return f">= {largest:g}"
        return f"<= {start / row['size']:g}" if one <= start / row["size"] * (1 + 1e-6) else f"{one:.1f}"

    value, lo, hi = map(end_of, found)
    return f"{value} [{lo}, {hi}]"


def _name(row: Row, titles: Mapping[str, str], sized: bool) -> str:
    if row["method"] == "base":
        return titles.get("base", "base, zero-shot")
    if row["method"] == "sft":
        return f"SFT on {row['size']:,}"
    return titles.get(row["method"], f"`{row['method']}`") + (f", N = {row['size']:,}" if sized else "")


def _percent(row: Row, name: str) -> str:
    return "" if row.get(name) is None else f"{100 * row[name]:.1f}"


def _ratio(row: Row, name: str, digits: int = 1) -> str:
    base = row["method"] in ("base", "sft")
    return "" if row.get(name) is None or base else f"{row[name]:.{digits}f}"
