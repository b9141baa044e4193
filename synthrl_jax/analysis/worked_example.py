"""One wrong response with the credit of each of its steps, as a picture that teaches the method."""

import dataclasses
import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from synthrl_jax.analysis.style import BLUE, GREEN, GREY, INK, MUTED, RED, TINT, new_figure, styled

NARROW, WIDE = 44, 66  # characters of a step's text on one line, at least and at most
CHARACTER, LINE = 0.067, 0.235  # inches of a monospaced character's width, and of a row's height
# Inches from the left edge, and from the end of the text.
TEXT, BARS, BAR_WIDTH, ADVANTAGE, VERDICT, END = 0.12, 0.1, 1.3, 2.35, 2.75, 4.3


@dataclasses.dataclass(frozen=True)
class ExampleStep:
    """A step's text, Q after it (None: not known), its advantage, and the oracle's word for it (None: no oracle)."""

    text: str
    q: float | None
    advantage: float
    verdict: str | None = None
    wrong: bool = False


@dataclasses.dataclass(frozen=True)
class WorkedExample:
    """A wrong response: V of the prompt, its steps, the pit's index, and a correct completion from before the pit."""

    question: str
    answer: str
    prompt_value: float
    steps: Sequence[ExampleStep]
    pit: int
    rescue: Sequence[str]


@styled
def worked_example_plot(example: WorkedExample) -> Figure:
    """Steps as rows with Q after each as a bar, its advantage, the pit, the oracle's verdict, and one rescue below."""
    longest = max(len(text) for text in [*(step.text for step in example.steps), *example.rescue])
    width = min(max(longest, NARROW), WIDE)
    at = TEXT + CHARACTER * (width + 1)
    question = _flowed(example.question.split("\n"), int((at + END) / (CHARACTER * 7 / 8)) - 2)
    steps = [_wrapped(step.text, width) for step in example.steps]
    rescue = [line for text in example.rescue for line in _wrapped(text, width)]
    rows = len(question) + sum(map(len, steps)) + len(rescue) + 2.7 + 1.7 * bool(rescue)
    figure = new_figure(at + END, LINE * rows, layout=None)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, at + END), ylim=(rows, 0))
    axes.axis("off")
    y = 0.5
    for line in question:
        _text(axes, TEXT, y, line, color=MUTED, family="DejaVu Sans Mono", fontsize=7)
        y += 1
    y += 0.4
    _text(axes, TEXT, y, "a sampled response, step by step", weight="bold", fontsize=8.5)
    _text(axes, at + BARS, y, "Q after the step", weight="bold", fontsize=8.5)
    _text(axes, at + ADVANTAGE, y, "A", weight="bold", fontsize=8.5, ha="right")
    if any(step.verdict for step in example.steps):
        _text(axes, at + VERDICT, y, "oracle's verdict", weight="bold", fontsize=8.5)
    y += 0.6
    axes.plot([TEXT / 2, at + END - TEXT / 2], [y, y], color=MUTED, linewidth=0.7)
    y += 0.5
    _text(axes, TEXT, y, "the problem alone", style="italic", color=MUTED)
    _bar(axes, at, y, example.prompt_value)
    y += 1
    for index, (step, lines) in enumerate(zip(example.steps, steps)):
        _step(axes, at, y, step, lines, index == example.pit)
        y += len(lines)
    if rescue:
        y += 0.8
        head = f"a correct completion from before step {example.pit + 1}, found by the rollouts"
        _text(axes, TEXT, y, head, weight="bold", fontsize=8.5, color=GREEN)
        y += 0.9
        axes.plot([TEXT / 2] * 2, [y - 0.4, y + len(rescue) - 0.6], color=GREEN, linewidth=2.5)
        for line in rescue:
            _text(axes, TEXT, y, line, family="DejaVu Sans Mono")
            y += 1
    return figure


def _step(axes: Axes, at: float, y: float, step: ExampleStep, lines: Sequence[str], is_pit: bool) -> None:
    middle = y + (len(lines) - 1) / 2
    if is_pit:
        axes.add_patch(Rectangle((0, y - 0.5), at + END, len(lines), facecolor=TINT, linewidth=0, zorder=0))
        axes.plot([TEXT / 2] * 2, [y - 0.5, y + len(lines) - 0.5], color=RED, linewidth=2.5)
        _text(axes, at + END - TEXT, middle, "pit", color=RED, weight="bold", ha="right")
    for offset, line in enumerate(lines):
        _text(axes, TEXT, y + offset, line, family="DejaVu Sans Mono")
    _bar(axes, at, middle, step.q)
    if step.q is not None:
        advantage = f"{step.advantage:+.2f}" if abs(step.advantage) > 0.004 else "0"
        _text(axes, at + ADVANTAGE, middle, advantage, ha="right")
    if step.verdict:
        _text(axes, at + VERDICT, middle, step.verdict, color=RED if step.wrong else INK)


def _bar(axes: Axes, at: float, y: float, q: float | None) -> None:
    left, end = at + BARS, at + BARS + BAR_WIDTH + 0.07
    axes.add_patch(Rectangle((left, y - 0.3), BAR_WIDTH, 0.6, facecolor=GREY, alpha=0.22, linewidth=0))
    if q is None:
        _text(axes, end, y, "not known", color=MUTED, fontsize=7.5)
        return
    axes.add_patch(Rectangle((left, y - 0.3), BAR_WIDTH * q, 0.6, facecolor=BLUE, linewidth=0))
    _text(axes, end, y, f"{q:.2f}")


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width) or [""]


def _flowed(sentences: Sequence[str], width: int) -> list[str]:
    """Sentences side by side on lines of at most `width` characters; one is cut only where it is longer than a line."""
    lines = [""]
    for sentence in sentences:
        for piece in _wrapped(sentence, width):
            joined = f"{lines[-1]}   {piece}" if lines[-1] else piece
            lines = [*lines[:-1], joined] if len(joined) <= width else [*lines, piece]
    return lines


def _text(axes: Axes, x: float, y: float, text: str, **style) -> None:
    # A dollar sign in a problem is no mathematics.
    axes.text(x, y, text, va="center_baseline", parse_math=False, **{"fontsize": 8, **style})
