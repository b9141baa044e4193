"""The figures of a run: plain numbers in, a matplotlib figure out."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from synthrl_jax.analysis.estimate import Estimate
from synthrl_jax.analysis.style import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    PERCENT,
    PINK,
    RED,
    SKY,
    YELLOW,
    looks_of,
    new_figure,
    quiet,
    styled,
)
from synthrl_jax.problems.oracle import KINDS, WRONG

KIND_COLOURS = dict(zip(KINDS, ("#b5c4d1", YELLOW, SKY, RED, ORANGE, PINK, "#4d4d4d")))
MOST_STEPS = 10  # later pits share the last column


@styled
def accuracy_plot(panels: Mapping[str, Mapping[str, Mapping[str, Estimate]]], reference: str = "sft") -> Figure:
    """Dots with intervals, a row of panels for each group (a size): {group: {measure: {method: Estimate}}}.

    The value of `reference` is drawn as a line through each panel that has it.
    """
    heights = [max(len(methods) for methods in measures.values()) for measures in panels.values()]
    columns = max(len(measures) for measures in panels.values())
    figure = new_figure(8.6, 0.3 * sum(heights) + 0.75 * len(panels))
    grid = figure.subplots(len(panels), columns, squeeze=False, gridspec_kw={"height_ratios": [h + 1 for h in heights]})
    for row, (group, measures) in zip(grid, panels.items()):
        order = list(max(measures.values(), key=len))
        for axes in row[len(measures) :]:
            axes.set_visible(False)
        for column, (axes, (measure, methods)) in enumerate(zip(row, measures.items())):
            _dots(axes, {method: methods[method] for method in order if method in methods}, order, reference)
            axes.set_title(f"{measure}{', ' if group else ''}{group}")
            if column:
                axes.set_yticklabels([])
    return figure


def _dots(axes: Axes, methods: Mapping[str, Estimate], order: Sequence[str], reference: str) -> None:
    quiet(axes, "x")
    looks = looks_of(order)
    if reference in methods:
        axes.axvline(100 * methods[reference].value, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), alpha=0.7)
    for method, estimate in methods.items():
        (value, lo, hi), y = 100 * np.array(estimate), order.index(method)
        colour, marker = looks[method]
        axes.plot([lo, hi], [y, y], color=colour, linewidth=2.2, solid_capstyle="round")
        axes.plot([value], [y], marker=marker, color=colour, markersize=6.5)
        axes.annotate(f"{value:.1f}", (hi, y), (5, 0), textcoords="offset points", va="center", fontsize=8)
    lows, highs = [100 * e.lo for e in methods.values()], [100 * e.hi for e in methods.values()]
    span = max(max(highs) - min(lows), 5.0)
    axes.set_xlim(max(-0.03 * span, min(lows) - 0.06 * span), min(lows) + 1.16 * span)
    axes.set_ylim(len(order) - 0.5, -0.5)
    axes.set_yticks(range(len(order)), order)
    axes.xaxis.set_major_formatter(PERCENT)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.spines["left"].set_visible(False)


@styled
def line_kinds_plot(kinds: Mapping[str, Mapping[str, int]]) -> Figure:
    """Stacked bars: what share of a method's lines the oracle calls what; {method: {kind: lines}}."""
    figure = new_figure(8.6, 0.32 * len(kinds) + 1.1)
    axes = quiet(figure.subplots(), "x")
    totals = np.array([max(1, sum(counts.values())) for counts in kinds.values()])
    left = np.zeros(len(kinds))
    for kind in KINDS:
        width = 100 * np.array([counts.get(kind, 0) for counts in kinds.values()]) / totals
        if width.any():
            axes.barh(range(len(kinds)), width, left=left, height=0.68, color=KIND_COLOURS[kind], label=kind)
        left += width
    for y, (counts, total) in enumerate(zip(kinds.values(), totals)):
        wrong = 100 * sum(counts.get(kind, 0) for kind in WRONG) / total
        axes.annotate(f"{wrong:.1f} % wrong", (100, y), (6, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_xlim(0, 100)
    axes.set_ylim(len(kinds) - 0.5, -0.5)
    axes.set_yticks(range(len(kinds)), list(kinds))
    axes.set_xlabel("share of the lines of greedy answers")
    axes.xaxis.set_major_formatter(PERCENT)
    for spine in axes.spines.values():
        spine.set_visible(False)
    figure.legend(loc="outside upper left", ncol=len(KINDS), columnspacing=1.2, handlelength=1, handletextpad=0.5)
    return figure


@styled
def pit_plot(pits: Sequence[Mapping]) -> Figure:
    """Where pits lie: against the oracle's first wrong step where that is known, and the values before them.

    A row a wrong response: `pit`, `value_before`, and where there is an oracle `first_wrong`, `lost` (step indices from 0, -1
    for none).
    """
    known = bool(pits) and all("first_wrong" in row for row in pits)
    if known:
        figure = new_figure(8.6, 3.3)
        first, second, third = figure.subplots(1, 3, gridspec_kw={"width_ratios": [1.15, 0.85, 1]})
        _pit_matrix(first, pits)
        _pit_agreement(second, pits)
    else:
        figure = new_figure(7.0, 2.8)
        first, third = figure.subplots(1, 2)
        _pit_positions(first, pits)
    values = [row["value_before"] for row in pits]
    quiet(third, "y").hist(values, bins=np.linspace(0, 1, 11), color=BLUE, rwidth=0.9)
    third.set_title("Value before the pit")
    third.set_xlabel("Q of the prefix before the pit")
    third.set_ylabel("wrong responses")
    third.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    return figure


def _pit_matrix(axes: Axes, pits: Sequence[Mapping]) -> None:
    pairs = np.array([(min(row["first_wrong"], MOST_STEPS - 1), min(row["pit"], MOST_STEPS - 1)) for row in pits])
    size = int(max(pairs.max(), 0)) + 1
    counts = np.zeros((size, size), int)
    for wrong, pit in pairs:
        if wrong >= 0:
            counts[wrong, pit] += 1
    most = max(1, counts.max())
    for wrong, pit in np.ndindex(counts.shape):
        share = counts[wrong, pit] / most
        axes.add_patch(
            Rectangle((pit + 0.04, wrong + 0.04), 0.92, 0.92, facecolor=BLUE, alpha=0.06 + 0.94 * share, linewidth=0)
        )
        if wrong == pit:
            axes.add_patch(Rectangle((pit + 0.04, wrong + 0.04), 0.92, 0.92, fill=False, edgecolor=INK, linewidth=0.8))
        if counts[wrong, pit]:
            colour = "#fefefe" if share > 0.45 else INK
            axes.text(
                pit + 0.5, wrong + 0.5, str(counts[wrong, pit]), ha="center", va="center", fontsize=7.5, color=colour
            )
    labels = [str(i + 1) if i < MOST_STEPS - 1 else f"{MOST_STEPS}+" for i in range(size)]
    axes.set(xlim=(0, size), ylim=(size, 0), aspect="equal")
    axes.set_xticks(np.arange(size) + 0.5, labels)
    axes.set_yticks(np.arange(size) + 0.5, labels)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel("pit (step)")
    axes.set_ylabel("oracle's first wrong step")
    axes.set_title("Pit against oracle")


def _pit_agreement(axes: Axes, pits: Sequence[Mapping]) -> None:
    quiet(axes, "y")
    groups = {"all pits": pits, "value before > 0": [row for row in pits if row["value_before"] > 0]}
    for place, (label, rows) in enumerate(groups.items()):
        first = [row["pit"] == row["first_wrong"] for row in rows]
        lost = [row["pit"] == row["lost"] for row in rows]
        shares = [100 * float(np.mean(hits)) if rows else 0.0 for hits in (first, lost, np.logical_or(first, lost))]
        bars = axes.bar(np.arange(3) + 0.38 * (place - 0.5), shares, 0.36, color=(GREY, BLUE)[place], label=label)
        axes.bar_label(bars, [f"{share:.0f}" for share in shares], fontsize=7.5, padding=1.5)
    axes.set_ylim(0, 128)
    axes.set_yticks([0, 25, 50, 75, 100])
    axes.yaxis.set_major_formatter(PERCENT)
    axes.set_xticks(range(3), ["first\nwrong", "answer\nlost", "either"])
    axes.legend(loc="upper left", handlelength=1, borderaxespad=0.1, labelspacing=0.25, fontsize=8)
    axes.set_title("The pit is the ...")


def _pit_positions(axes: Axes, pits: Sequence[Mapping]) -> None:
    steps = [min(row["pit"], MOST_STEPS - 1) + 1 for row in pits]
    quiet(axes, "y").bar(*np.unique(steps, return_counts=True), color=BLUE, width=0.8)
    axes.set_title("Where pits lie")
    axes.set_xlabel(f"step of the pit ({MOST_STEPS} and later together)")
    axes.set_ylabel("wrong responses")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))


@styled
def looks_plot(curves: Mapping[str, Sequence[Sequence[tuple[int, float]]]], first: str = "sft") -> Figure:
    """Validation accuracy at each look, {method: a list of (update, accuracy) for each seed}; `first` in a panel of its own.

    Seeds that looked at the same updates are drawn as their mean.
    """
    figure = new_figure(8.6, 3.2)
    others = [method for method in curves if method != first]
    present = [[first]] * (first in curves) + [others] * bool(others)
    panels = figure.subplots(1, len(present), squeeze=False, sharey=True, width_ratios=[1, 1.35][: len(present)])[0]
    looks = looks_of(curves)
    for axes, methods in zip(panels, present):
        quiet(axes)
        for method in methods:
            colour, marker = looks[method]
            lines = _mean_curve(curves[method])
            for index, curve in enumerate(lines):
                updates, scores = zip(*curve)
                style = {"color": colour, "marker": marker, "markersize": 5, "linewidth": 1.6}
                style |= {"label": None if index else method, "alpha": 1.0 if len(lines) == 1 else 0.6}
                axes.plot(updates, 100 * np.array(scores), **style)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_xlabel("updates")
        axes.yaxis.set_major_formatter(PERCENT)
        axes.set_title(first if methods == [first] else "methods")
    if first in curves and others:
        best = 100 * float(np.mean([max(score for _, score in curve) for curve in curves[first]]))
        panels[-1].axhline(
            best, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), alpha=0.7, label=f"{first}, best look"
        )
    panels[0].set_ylabel("validation accuracy, greedy")
    figure.legend(*panels[-1].get_legend_handles_labels(), loc="outside right upper", handlelength=1.6)
    return figure


def _mean_curve(curves: Sequence[Sequence[tuple[int, float]]]) -> list[Sequence[tuple[int, float]]]:
    """The mean over seeds, where all looked at the same updates; else the curves as they are."""
    if len({tuple(update for update, _ in curve) for curve in curves}) > 1:
        return list(curves)
    return [[(look[0][0], float(np.mean([score for _, score in look]))) for look in zip(*curves)]]
