import re
import xml.etree.ElementTree as ElementTree

import numpy as np

from synthrl_jax.analysis import figures, scaling_figures
from synthrl_jax.analysis.estimate import Estimate
from synthrl_jax.analysis.scaling_law import PowerLaw
from synthrl_jax.analysis.style import INK, METHODS, looks_of, save_png, to_svg
from synthrl_jax.analysis.worked_example import ExampleStep, WorkedExample, worked_example_plot

SCORES = {"base": Estimate(0.1, 0.08, 0.12), "sft": Estimate(0.3, 0.27, 0.33), "rft": Estimate(0.4, 0.37, 0.43)}


def texts(figure):
    figure.draw_without_rendering()
    found = [t for axes in figure.axes for t in axes.findobj(lambda a: hasattr(a, "get_text"))]
    return [t.get_text() for t in found if t.get_text()]


def dots(axes):
    """Positions of the lines that are single marks."""
    return [
        tuple(map(float, (*line.get_xdata(), *line.get_ydata()))) for line in axes.lines if len(line.get_xdata()) == 1
    ]


def test_accuracy_plot_puts_each_method_at_its_value_and_sft_on_the_line():
    figure = figures.accuracy_plot({"": {"Greedy accuracy": SCORES, "pass@5": {"sft": SCORES["sft"]}}})
    left, right = figure.axes
    assert dots(left) == [(10.0, 0.0), (30.0, 1.0), (40.0, 2.0)]
    assert left.lines[0].get_xdata() == [30.0, 30.0]
    assert dots(right) == [(30.0, 1.0)]  # on the row of its name
    assert [label.get_text() for label in left.get_yticklabels()] == list(SCORES)


def test_accuracy_plot_copes_with_nothing_right():
    zero = {"sft": Estimate(0.0, 0.0, 0.0), "rft": Estimate(0.0, 0.0, 0.0)}
    assert texts(figures.accuracy_plot({"": {"Greedy accuracy": zero}})).count("0.0") == 2


def test_line_kinds_fill_the_bar_and_name_the_wrong_share():
    kinds = {"sft": {"needed": 6, "leap": 1, "wrong value": 2, "unparsable": 1}, "rft": {"needed": 5}}
    figure = figures.line_kinds_plot(kinds)
    widths = np.array([[bar.get_width() for bar in container] for container in figure.axes[0].containers])
    np.testing.assert_allclose(widths.sum(axis=0), [100, 100])
    assert {"30.0 % wrong", "0.0 % wrong"} <= set(texts(figure))


def test_pit_matrix_counts_every_response_once():
    pits = [{"pit": 1, "first_wrong": 1, "lost": 2, "value_before": 1.0}] * 3
    pits += [{"pit": 0, "first_wrong": 2, "lost": 2, "value_before": 0.0}] * 2
    figure = figures.pit_plot(pits)
    cells = {t.get_position(): t.get_text() for t in figure.axes[0].texts}
    assert cells == {(1.5, 1.5): "3", (0.5, 2.5): "2"}
    shares = [text.get_text() for text in figure.axes[1].texts]
    assert shares == ["60", "0", "60", "100", "0", "100"]  # all pits, then those with value before them
    assert sum(bar.get_height() for bar in figure.axes[2].patches) == 5


def test_pits_without_an_oracle_are_counted_by_step():
    figure = figures.pit_plot([{"pit": step, "value_before": 0.5} for step in (0, 0, 3, 14)])
    bars = {round(bar.get_x() + bar.get_width() / 2): bar.get_height() for bar in figure.axes[0].patches}
    assert bars == {1: 2, 4: 1, 10: 1}


def test_looks_of_seeds_are_averaged_where_they_match():
    curves = {"sft": [[(10, 0.1), (20, 0.3)], [(10, 0.2), (20, 0.4)]], "rft": [[(5, 0.3)], [(7, 0.5)]]}
    sft, methods = figures.looks_plot(curves).axes
    np.testing.assert_allclose(sft.lines[0].get_ydata(), [15.0, 35.0])
    assert dots(methods) == [(5.0, 30.0), (7.0, 50.0)]
    np.testing.assert_allclose(methods.lines[-1].get_ydata(), [35.0, 35.0])  # the mean of the seeds' best looks


def test_multiples_end_at_the_largest_size():
    law, grid = PowerLaw(np.log(2.0), 0.15), np.geomspace(500, 8000, 5)
    sft = {n: Estimate(*[float(law.error(n)) * f for f in (1, 0.98, 1.02)]) for n in (500, 2000, 8000)}
    multiples = {("rft", 2000): Estimate(2.0, 1.5, 3.0), ("dpo_per_step", 2000): Estimate(9.0, 3.0, np.inf)}
    methods = {"rft": {2000: sft[2000]}, "dpo_per_step": {2000: sft[8000]}}
    figure = scaling_figures.scaling_plot(
        sft, methods, law, (grid, law.error(grid) * 0.9, law.error(grid) * 1.1), multiples
    )
    left, right = figure.axes
    assert (2.0, 0.0) in dots(right)
    assert dots(right).count((4.0, 1.0)) == 2  # the estimate and the arrow: 8,000 problems are four times 2,000
    assert max(x for line in right.lines for x in line.get_xdata()) == 4.0
    assert (500.0, 100 * sft[500].value) in dots(left)


def test_error_and_multiples_can_be_figures_of_their_own():
    law, grid = PowerLaw(np.log(2.0), 0.15), np.geomspace(500, 8000, 5)
    sft = {n: Estimate(*[float(law.error(n)) * f for f in (1, 0.98, 1.02)]) for n in (500, 2000, 8000)}
    band = (grid, law.error(grid) * 0.9, law.error(grid) * 1.1)
    (axes,) = scaling_figures.error_plot(sft, {"rft": {2000: sft[8000]}}, law, band, "validation").axes
    assert axes.get_title(loc="left") == "Validation error"
    assert (500.0, 100 * sft[500].value) in dots(axes) and (2000.0, 100 * sft[8000].value) in dots(axes)
    multiples = {("rft", 2000): Estimate(2.0, 1.5, 3.0), ("rft", 500): Estimate(20.0, 3.0, np.inf)}
    (axes,) = scaling_figures.multiple_plot(multiples, 8000).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["rft, 2,000", "rft, 500"]
    assert (2.0, 0.0) in dots(axes) and (16.0, 1.0) in dots(axes)


def test_figures_take_words_for_methods_and_show_measured_multiples_below_the_laws():
    law, grid = PowerLaw(np.log(2.0), 0.15), np.geomspace(500, 8000, 5)
    sft = {n: Estimate(*[float(law.error(n)) * f for f in (1, 0.98, 1.02)]) for n in (500, 2000, 8000)}
    names = {"rounds_rft": "six rounds of RFT"}
    methods = {"rft": {500: sft[2000]}, "rounds_rft": {500: sft[8000]}}
    (axes,) = scaling_figures.error_plot(sft, methods, law, (grid, grid, grid), "test", names).axes
    assert axes.get_legend_handles_labels()[1][1:] == ["rft", "six rounds of RFT"]
    assert "side by side" in axes.get_xlabel()
    multiples = {(name, 500): Estimate(2.0, 1.5, 3.0) for name in methods}
    measured = {("rounds_rft", 500): Estimate(3.0, 2.5, np.inf)}
    (axes,) = scaling_figures.multiple_plot(multiples, 8000, names, measured).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["rft", "six rounds of RFT"]
    assert (2.0, 1.0) in dots(axes) and (3.0, 1.32) in dots(axes) and (16.0, 1.32) in dots(axes)
    assert "hollow" in axes.get_xlabel()


def example(**changes):
    steps = [
        ExampleStep("one: 1 + 1", 0.9, 0.1, "needed"),
        ExampleStep("two: costs $3 or $4", 0.0, -0.9, "wrong value", True),
        ExampleStep("#### 7", None, 0.0, "wrong value", True),
    ]
    return WorkedExample(**{"question": "What?", "answer": "2", "prompt_value": 0.8, "steps": steps, "pit": 1,
                            "rescue": ["two: 2", "#### 2"], **changes})  # fmt: skip


def test_worked_example_shows_every_step_with_its_numbers():
    said = texts(worked_example_plot(example()))
    for text in (
        "one: 1 + 1",
        "two: costs $3 or $4",
        "#### 7",
        "0.80",
        "0.90",
        "+0.10",
        "0.00",
        "-0.90",
        "not known",
        "pit",
    ):
        assert text in said
    assert said.count("wrong value") == 2
    assert {"two: 2", "#### 2", "oracle's verdict"} <= set(said)


def test_worked_example_without_oracle_or_rescue_leaves_them_out():
    plain = [ExampleStep("a", 0.5, 0.0)]
    said = texts(worked_example_plot(example(steps=plain, pit=0, rescue=[])))
    assert "oracle's verdict" not in said and not any("correct completion" in text for text in said)


def test_svg_stands_alone_with_ids_of_its_own():
    figure = figures.accuracy_plot({"": {"Greedy accuracy": SCORES}})
    text = to_svg(figure, "first", 'a "title" & <more>')
    root = ElementTree.fromstring(text)
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert ids and all(name.startswith("first-") for name in ids) and len(set(ids)) == len(ids)
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    assert used and used <= set(ids)
    assert "http" not in text and INK not in text and "var(--ink)" in text
    assert root.get("aria-label") == 'a "title" & <more>'


def test_the_same_figure_gives_the_same_svg():
    draw = lambda: to_svg(figures.line_kinds_plot({"sft": {"needed": 1}}), "kinds", "x")  # noqa: E731
    assert draw() == draw()


def test_png_is_written(tmp_path):
    save_png(worked_example_plot(example()), tmp_path / "x.png", dpi=50)
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_methods_can_be_told_apart():
    assert len(set(METHODS.values())) == len(METHODS)
    looks = looks_of(["sft", "mine", "yours"])
    assert looks["mine"] != looks["yours"]


def test_no_panel_is_left_empty_without_methods():
    only = figures.looks_plot({"sft": [[(1, 0.5)]]})
    assert len(only.axes) == 1 and only.axes[0].get_title(loc="left") == "sft"
