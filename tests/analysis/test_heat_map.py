"""Heat maps: every point of a grid at its place, in one colour scale, the chosen one outlined."""

import itertools

import numpy as np
import pytest
from matplotlib.patches import Rectangle

from synthrl_jax.analysis.heat_map import COLOURS, as_grid, heat_map_plot
from synthrl_jax.analysis.style import to_svg

RATES, BETAS, NLLS = (2e-5, 1e-4, 1e-3), (0.03, 0.3), (0.0, 0.2)


def rows(accuracy=lambda rate, beta, nll: 0.1, betas=BETAS, nlls=NLLS):
    return [
        {
            "point": {"loss_args": {"beta": beta, "nll": nll}, "optimizer": {"learning_rate": rate}},
            "validation_accuracy": accuracy(rate, beta, nll),
        }
        for beta, nll, rate in itertools.product(betas, nlls, RATES)
    ]


def number(rate, beta, nll):
    return 0.1 + 0.01 * RATES.index(rate) + 0.1 * BETAS.index(beta) + 0.3 * NLLS.index(nll)


def test_a_panel_for_each_nll_with_rates_across_and_betas_down():
    grid = as_grid(rows(number))
    assert grid.across == ("learning_rate", list(RATES)) and grid.down == ("beta", list(BETAS))
    assert list(grid.panels) == ["NLL 0", "NLL 0.2"]
    np.testing.assert_allclose(grid.panels["NLL 0"], [[0.1, 0.11, 0.12], [0.2, 0.21, 0.22]])
    np.testing.assert_allclose(grid.panels["NLL 0.2"], [[0.4, 0.41, 0.42], [0.5, 0.51, 0.52]])
    assert grid.chosen == ("NLL 0.2", 1, 2)


def test_the_first_of_equals_is_chosen_as_in_training():
    assert as_grid(rows()).chosen == ("NLL 0", 0, 0)


def test_a_grid_of_one_field_is_one_row_and_other_fields_are_panels():
    only = [{"point": {"optimizer": {"learning_rate": r}}, "validation_accuracy": r} for r in RATES]
    grid = as_grid(only)
    assert grid.down == ("", [None]) and {title: p.shape for title, p in grid.panels.items()} == {"": (1, 3)}
    epochs = [
        {"point": {"epochs": e, "optimizer": {"learning_rate": r}}, "validation_accuracy": e * r}
        for e in (2.0, 4.0)
        for r in RATES
    ]
    grid = as_grid(epochs)
    assert grid.across[0] == "learning_rate" and grid.down == ("epochs", [2.0, 4.0])
    with pytest.raises(ValueError, match="without a point"):
        as_grid([])


def faces(axes):
    return {
        (round(p.get_x() - 0.03), round(p.get_y() - 0.04)): p.get_facecolor()
        for p in axes.findobj(Rectangle)
        if p.get_fill() and p is not axes.patch
    }


def outlined(axes):
    return [
        (round(p.get_x() - 0.03), round(p.get_y() - 0.04))
        for p in axes.findobj(Rectangle)
        if not p.get_fill() and p.get_linewidth() == 2.0
    ]


def test_cells_show_their_numbers_one_scale_for_all_and_white_is_the_reference():
    method = rows(lambda rate, beta, nll: 0.2 if nll else 0.25 + 0.05 * RATES.index(rate))
    other = [{"point": {"optimizer": {"learning_rate": r}}, "validation_accuracy": 0.05} for r in RATES]
    figure = heat_map_plot({"dpo": method, "plain": other}, reference=0.2)
    dpo, nll, plain, empty = figure.axes
    assert [text.get_text() for text in dpo.texts] == ["25.0", "30.0", "35.0"] * 2
    assert dpo.get_title(loc="left") == "dpo, NLL 0" and plain.get_title(loc="left") == "plain"
    assert not empty.get_visible() and outlined(dpo) == [(2, 0)] and outlined(nll) == [] and outlined(plain) == [(0, 0)]
    np.testing.assert_allclose(list(faces(nll).values()), [COLOURS(0.5)] * 6, atol=0.03)
    np.testing.assert_allclose(faces(dpo)[2, 0], COLOURS(1.0), atol=0.03)
    np.testing.assert_allclose(faces(plain)[0, 0], COLOURS(0.0), atol=0.03)  # as far below as the other above
    assert "pi_sft, 20.0 %" in figure.get_suptitle()


def test_without_a_reference_the_mean_is_white_and_an_even_grid_can_be_drawn():
    figure = heat_map_plot({"dpo": rows()})
    for axes in figure.axes:
        np.testing.assert_allclose(list(faces(axes).values()), [COLOURS(0.5)] * 6, atol=0.03)
    assert "mean of all points" in figure.get_suptitle()


def test_the_map_becomes_vector_graphics():
    assert "<image" not in to_svg(heat_map_plot({"dpo": rows(number)}, 0.2), "map", "x")
