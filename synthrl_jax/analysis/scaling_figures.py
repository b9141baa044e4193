"""Figures of scaling: error against the number of problems, and what each method is worth in problems."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.markers import CARETRIGHT
from matplotlib.ticker import NullFormatter, NullLocator

from synthrl_jax.analysis.estimate import Estimate
from synthrl_jax.analysis.scaling_law import PowerLaw
from synthrl_jax.analysis.style import INK, PERCENT, looks_of, new_figure, quiet, styled

Band = tuple[np.ndarray, np.ndarray, np.ndarray]  # sizes, and the ends of the law's error there
Points = Mapping[str, Mapping[int, Estimate]]  # method -> size -> error
Multiples = Mapping[tuple[str, int], Estimate]  # (method, size) -> efficiency multiple; ends may be infinite
Names = Mapping[str, str]  # method -> words for it; its own name where it has none
NO_NAMES: Names = {}
ERROR_TICKS = (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 10, 15, 20, 30, 40, 50, 55, 60, 65, 70, 75, 80, 85, 90, 95, 100)
MULTIPLE_TICKS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8, 16, 32, 64, 128)


@styled
def scaling_plot(
    sft: Mapping[int, Estimate], methods: Points, law: PowerLaw, band: Band, multiples: Multiples, split: str = "test"
) -> Figure:
    """`error_plot` and `multiple_plot` beside each other."""
    figure = new_figure(8.6, max(4.0, 0.26 * len(multiples) + 1.6))
    left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": [1.15, 1]})
    looks = looks_of(["sft", *methods])
    _error_curve(left, sft, methods, law, band, looks, split)
    _legend_below(figure, left)
    _multiples(right, multiples, looks, max(sft))
    return figure


@styled
def error_plot(
    sft: Mapping[int, Estimate],
    methods: Points,
    law: PowerLaw,
    band: Band,
    split: str = "test",
    names: Names = NO_NAMES,
) -> Figure:
    """Error against the number of problems: SFT with its fitted law and the law's band, the methods as points.

    sft, methods: errors by size with their intervals; points of one size are shifted sideways to be told apart. split: what
    they were read on, for the title.
    """
    figure = new_figure(9.0, 5.8)
    axes = figure.subplots()
    _error_curve(axes, sft, methods, law, band, looks_of(["sft", *methods]), split, names)
    if any(sum(size in points for points in methods.values()) > 1 for size in sft):
        axes.set_xlabel("problems in training (methods at one size are drawn side by side)")
    longest = max((len(label) for label in axes.get_legend_handles_labels()[1]), default=0)
    _legend_below(figure, axes, columns=2 if longest > 30 else 4, fontsize=7.5)
    return figure


@styled
def multiple_plot(
    multiples: Multiples, largest: int, names: Names = NO_NAMES, measured: Multiples | None = None
) -> Figure:
    """The efficiency multiples with their intervals, drawn up to the largest SFT size and never beyond: an arrow is "or more".

    measured: those by SFT's errors as they were measured, hollow, below the law's; None: the law's alone.
    """
    figure = new_figure(8.6, (0.34 if measured else 0.26) * len(multiples) + 1.2)
    axes, looks = figure.subplots(), looks_of(dict.fromkeys(method for method, _ in multiples))
    _multiples(axes, multiples, looks, largest, names)
    if measured:
        for y, at in enumerate(multiples):
            if at in measured:
                _multiple(axes, y + 0.32, measured[at], looks[at[0]], largest / at[1], hollow=True)
        # Under the axis: beside the title it would not fit where the labels are long.
        axes.set_xlabel(f"{axes.get_xlabel()}\nfilled: by the fitted law, hollow: as measured")
        _ticks(axes)
    return figure


def _legend_below(figure: Figure, axes: Axes, columns: int = 5, **settings: float) -> None:
    shown = {"ncol": columns, "columnspacing": 1.2, "handlelength": 1.4, **settings}
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", **shown)


def _error_curve(
    axes: Axes,
    sft: Mapping[int, Estimate],
    methods: Points,
    law: PowerLaw,
    band: Band,
    looks,
    split: str,
    names: Names = NO_NAMES,
) -> None:
    sizes = sorted(sft)
    quiet(axes)
    axes.set(xscale="log", yscale="log")
    axes.fill_between(band[0], 100 * band[1], 100 * band[2], color=INK, alpha=0.13, linewidth=0)
    line = np.geomspace(sizes[0], sizes[-1], 50)
    axes.plot(line, 100 * law.error(line), color=INK, linewidth=1.3, label=f"SFT: error ~ D$^{{{-law.b:.2g}}}$")
    _errors(axes, sft, 1.0, INK, "o", None)
    step = 1.06 if len(methods) < 8 else 1.03
    for index, (method, points) in enumerate(methods.items()):
        shift = step ** (index - (len(methods) - 1) / 2)
        _errors(axes, points, shift, *looks[method], names.get(method, method))
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes], rotation=35, ha="right", rotation_mode="anchor")
    axes.xaxis.set_minor_locator(NullLocator())
    lowest, highest = axes.get_ylim()
    axes.set_yticks([t for t in ERROR_TICKS if lowest <= t <= highest])
    axes.yaxis.set_major_formatter(PERCENT)
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("problems in training")
    axes.set_title(f"{split.capitalize()} error")


def _errors(
    axes: Axes, points: Mapping[int, Estimate], shift: float, colour: str, marker: str, label: str | None
) -> None:
    for size, estimate in points.items():
        axes.plot([size * shift] * 2, 100 * np.array(estimate[1:]), color=colour, linewidth=1.3)
        axes.plot(
            [size * shift],
            [100 * estimate.value],
            marker=marker,
            color=colour,
            markersize=5.5,
            linestyle="",
            label=label,
        )
        label = None


def _multiples(axes: Axes, multiples: Multiples, looks: Mapping, largest: int, names: Names = NO_NAMES) -> None:
    quiet(axes, "x")
    axes.set_xscale("log")
    axes.axvline(1, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), alpha=0.7)
    several = len({size for _, size in multiples}) > 1
    for y, ((method, size), estimate) in enumerate(multiples.items()):
        _multiple(axes, y, estimate, looks[method], largest / size)
    axes.set_ylim(len(multiples) - 0.5, -0.5)
    words = [(names.get(method, method), size) for method, size in multiples]
    axes.set_yticks(range(len(multiples)), [f"{name}, {size:,}" if several else name for name, size in words])
    _ticks(axes)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("times the problems that SFT needs")
    axes.set_title("Efficiency multiple")


def _multiple(
    axes: Axes, y: float, estimate: Estimate, look: tuple[str, str], cap: float, hollow: bool = False
) -> None:
    colour, marker = look
    lo, value, hi = (float(np.clip(end, 1 / 32, cap)) for end in (estimate.lo, estimate.value, estimate.hi))
    axes.plot([lo, hi], [y, y], color=colour, linewidth=1.1 if hollow else 2.2, solid_capstyle="round")
    if estimate.hi > cap:
        axes.plot([cap], [y], marker=CARETRIGHT, color=colour, markersize=8)
    filled = {"markerfacecolor": "white", "markersize": 4.5} if hollow else {"markersize": 6.5}
    axes.plot([value], [y], marker=marker, color=colour, **filled)


def _ticks(axes: Axes) -> None:
    lowest, highest = axes.get_xlim()
    ticks = [t for t in MULTIPLE_TICKS if lowest <= t <= highest]
    axes.set_xticks(ticks, [f"{t:g}" if t >= 1 else f"1/{1 / t:.0f}" for t in ticks])
