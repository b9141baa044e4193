"""Heat maps of a grid of settings: what each method makes of every point, not of the best one alone."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from synthrl_jax.analysis.style import INK, new_figure, styled

ACROSS, DOWN = "learning_rate", "beta"  # the fields that make a panel's columns and rows, where a grid has them
COLOURS = matplotlib.colormaps["RdBu"]  # red below the middle, blue above


class Grid(NamedTuple):
    """A grid as panels: columns and rows by (field, values), panels title -> values [rows, columns], NaN where no point is."""

    across: tuple[str, list]
    down: tuple[str, list]
    panels: dict[str, np.ndarray]
    chosen: tuple[str, int, int]


def leaves(point: Mapping[str, Any]) -> dict[str, Any]:
    """A point's fields by their last name, in the order of the nesting."""
    out: dict[str, Any] = {}
    for name, value in point.items():
        out |= leaves(value) if isinstance(value, Mapping) else {name: value}
    return out


def as_grid(rows: Sequence[Mapping]) -> Grid:
    """Rows {point, validation_accuracy} as panels; the chosen point is the first of the best ones.

    Columns are learning rates and rows betas where the grid varies them, else the first and the second field that it varies;
    every combination of the others is a panel of its own. ValueError for no rows.
    """
    if not rows:
        raise ValueError("a grid without a point")
    points = [leaves(row["point"]) for row in rows]
    fields = {name: sorted({point[name] for point in points}) for name in points[0]}
    names = sorted(fields, key=lambda name: (len(fields[name]) == 1, (ACROSS, DOWN, name).index(name)))
    across, down, *others = [*names[:2], *[""] * (2 - len(names[:2])), *names[2:]]
    columns, heights = fields.get(across, [None]), fields.get(down, [None])
    panels = {}
    for values in itertools.product(*(fields[name] for name in others)):
        panels[_title(others, values)] = np.full((len(heights), len(columns)), np.nan)
    best, chosen = -np.inf, ("", 0, 0)
    for point, row in zip(points, rows):
        title = _title(others, [point[name] for name in others])
        place = (heights.index(point.get(down)), columns.index(point.get(across)))
        panels[title][place] = row["validation_accuracy"]
        if row["validation_accuracy"] > best:
            best, chosen = row["validation_accuracy"], (title, *place)
    return Grid((across, columns), (down, heights), panels, chosen)


@styled
def heat_map_plot(grids: Mapping[str, Sequence[Mapping]], reference: float | None = None) -> Figure:
    """Validation accuracy over the grid of each method: a row of panels each, one panel for each value of NLL.

    grids: method -> rows {point, validation_accuracy}; reference: the accuracy of the policy that the methods start from,
    which is white in every panel (None: the mean of all points is). One colour scale for all; the chosen point is outlined.
    """
    found = {method: as_grid(rows) for method, rows in grids.items()}
    everything = np.concatenate([panel.ravel() for grid in found.values() for panel in grid.panels.values()])
    middle = float(np.nanmean(everything)) if reference is None else reference
    norm = CenteredNorm(middle, max(float(np.nanmax(np.abs(everything - middle))), 1e-3))
    heights = [len(grid.down[1]) + 1.1 for grid in found.values()]
    columns = max(len(grid.panels) for grid in found.values())
    figure = new_figure(max(4.4, 1.2 + 2.9 * columns), 0.33 * sum(heights) + 0.5)
    axes = figure.subplots(len(found), columns, squeeze=False, gridspec_kw={"height_ratios": heights})
    for row, (method, grid) in zip(axes, found.items()):
        for place, panel in enumerate(row):
            panel.set_visible(place < len(grid.panels))
        for place, (panel, title) in enumerate(zip(row, grid.panels)):
            _draw(panel, grid, title, norm, labels=place == 0)
            panel.set_title(", ".join(filter(None, [method, title])))
    middle_is = "the mean of all points" if reference is None else f"pi_sft, {100 * reference:.1f} %"
    figure.suptitle(f"validation accuracy in %; white: {middle_is}; outlined: chosen", x=0.01, ha="left", fontsize=8.5)
    return figure


def _draw(axes: Axes, grid: Grid, title: str, norm: CenteredNorm, labels: bool) -> None:
    (across, columns), (down, heights) = grid.across, grid.down
    for (y, x), value in np.ndenumerate(grid.panels[title]):
        if np.isnan(value):
            continue
        colour = COLOURS(norm(value))
        axes.add_patch(Rectangle((x + 0.03, y + 0.04), 0.94, 0.92, facecolor=colour, linewidth=0))
        light = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
        ink = "#101418" if light > 0.5 else "#fefefe"
        axes.text(x + 0.5, y + 0.5, f"{100 * value:.1f}", ha="center", va="center", fontsize=7.5, color=ink)
    if title == grid.chosen[0]:
        y, x = grid.chosen[1:]
        axes.add_patch(Rectangle((x + 0.03, y + 0.04), 0.94, 0.92, fill=False, edgecolor=INK, linewidth=2.0))
    axes.set(xlim=(0, len(columns)), ylim=(len(heights), 0))
    axes.set_xticks(np.arange(len(columns)) + 0.5, [_text(value) for value in columns])
    axes.set_yticks(np.arange(len(heights)) + 0.5, [_text(value) for value in heights] if labels else [])
    axes.tick_params(length=0)
    axes.set_xlabel(across.replace("_", " "), fontsize=8)
    axes.set_ylabel(down.replace("_", " ") if labels else "", fontsize=8)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _title(names: Sequence[str], values: Sequence) -> str:
    return ", ".join(f"{name.upper() if name == 'nll' else name} {_text(value)}" for name, value in zip(names, values))


def _text(value: Any) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
