"""How figures look, and how they become SVG inside a page (light and dark) and PNG files."""

import io
import re
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

# A page replaces these by its own variables, so that a figure follows the page's light or dark colours.
INK, MUTED, GRID, TINT = "#1f2933", "#66727f", "#dfe4e9", "#fdeecb"
VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--grid)", TINT: "var(--tint)"}

# Okabe and Ito's colours, which colour-blind readers can tell apart; kinds of methods keep their hue.
BLUE, SKY, GREEN, ORANGE, RED, PINK, YELLOW = (
    "#0072b2",
    "#56b4e9",
    "#009e73",
    "#e69f00",
    "#d55e00",
    "#cc79a7",
    "#d8c62a",
)
GREY = "#929ca7"
PERCENT = FuncFormatter(lambda value, _: f"{value:g} %")
METHODS = {
    "base": (GREY, "v"),
    "sft": (INK, "o"),
    "sft_continued": (GREY, "o"),
    "rft": (GREEN, "s"),
    "dpo_outcome": (ORANGE, "X"),
    "dpo_edit_distance": (RED, "P"),
    "dpo_per_step": (BLUE, "D"),
    "dpo_per_step_solution": (SKY, "d"),
    "advantage_weighted": (PINK, "^"),
    "advantage_filtered": (YELLOW, "*"),
    "rft_1": (GREEN, "o"),
    "sft_complete": (GREY, "D"),
    "rounds_fork": (BLUE, "h"),
    "rounds_outcome": (ORANGE, "<"),
    "rounds_outcome_slow": (ORANGE, ">"),
    "rounds_rft": (GREEN, "H"),
    "rounds_weighted": (PINK, "v"),
}
OTHERS = ((GREEN, "H"), (ORANGE, "<"), (BLUE, "h"), (PINK, "p"), (RED, "8"), (SKY, ">"), (GREEN, "v"), (ORANGE, "s"))
OTHERS += ((BLUE, "^"), (PINK, "D"), (RED, "o"), (SKY, "X"), (YELLOW, "P"), (GREY, "d"), (GREEN, "*"), (BLUE, "o"))

RC = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.labelsize": 9,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.fonttype": "path",
    "text.hinting": "no_hinting",
}


def styled(function):
    """A function that draws a figure, under the style of all figures."""

    def draw(*args, **kwargs) -> Figure:
        with matplotlib.rc_context(RC):
            return function(*args, **kwargs)

    draw.__doc__, draw.__name__ = function.__doc__, function.__name__
    return draw


def new_figure(width: float, height: float, layout: str | None = "constrained") -> Figure:
    """A figure of its own, without pyplot's global state; inches. `layout` None leaves places to the caller."""
    return Figure(figsize=(width, height), layout=layout)


def look_of(method: str, index: int = 0) -> tuple[str, str]:
    """Colour and marker of a method; `index` chooses among those of methods that have none of their own."""
    return METHODS.get(method) or OTHERS[index % len(OTHERS)]


def looks_of(methods) -> dict[str, tuple[str, str]]:
    """Colour and marker of each of several methods."""
    methods = list(methods)
    unknown = [method for method in methods if method not in METHODS]
    return {method: look_of(method, unknown.index(method) if method in unknown else 0) for method in methods}


def quiet(axes: Axes, grid: str = "both") -> Axes:
    """Light grid lines, no tick marks."""
    axes.grid(True, axis=grid)
    axes.tick_params(length=0, which="both")
    return axes


def save_png(figure: Figure, path, dpi: int = 150) -> None:
    with matplotlib.rc_context(RC):
        figure.savefig(Path(path), format="png", dpi=dpi, facecolor="white")


def to_svg(figure: Figure, name: str, description: str) -> str:
    """The figure as one <svg> element for a page: transparent, ids of its own, the page's colours for text and lines."""
    buffer = io.StringIO()
    empty = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with matplotlib.rc_context({**RC, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=empty)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, variable)
    label = description.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    text = re.sub(r'(<svg[^>]*?) width="([\d.]+)pt" height="[\d.]+pt"', r'\1 style="max-width: \2pt"', text, count=1)
    return text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
