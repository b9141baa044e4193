"""What a run says of the cells done and to do, and of the time left."""

import json

import pytest

from experiments import run
from experiments.cells import Cell, Node
from experiments.countdown import Countdown, duration


def training(updates=0, epochs=1.0):
    return {"train": {"batch": 16, "updates": updates, "epochs": epochs}}


def nodes():
    out = [Node(f"data N={n} seed=0", "data", {}) for n in (100, 200)]
    out += [Node(f"sft N={n} seed=0", "sft", training(epochs=8.0)) for n in (100, 200)]
    out += [Node(f"evaluate sft N={n} seed=0", "evaluate", {}) for n in (100, 200)]
    return [*out, Node("choose sft N=100", "choose", {})]


@pytest.fixture
def finish(tmp_path):
    def go(count, node, seconds):
        (tmp_path / "manifest.json").write_text(json.dumps({"seconds": seconds}))
        count.done(node, Cell(node.label, tmp_path, "k", "f"))

    return go


def test_cells_of_a_kind_are_expected_to_take_as_long_and_larger_ones_longer(finish):
    plan = nodes()
    count = Countdown(plan)
    assert count.line() == "0/7 cells" and count.time_left() == ""
    for node, seconds in zip([plan[0], plan[1], plan[2]], (1.0, 2.0, 600.0)):
        finish(count, node, seconds)
    assert count.line() == "3/7 cells"
    assert count.seconds_left() == (1200.0, False), "SFT of twice the problems; no evaluation was timed yet"
    assert count.time_left() == ", more than 20 min left"
    finish(count, plan[4], 300.0)
    assert count.seconds_left() == (1500.0, True), "an evaluation takes the same at every size"
    assert count.time_left() == ", about 25 min left"


def test_cells_that_take_no_time_tell_of_no_other(finish):
    count = Countdown(
        [Node("slice 1 of 10 N=100 seed=0", "slice", {}), Node("dpo N=100 seed=0", "train", training(50))]
    )
    finish(count, count.nodes["slice 1 of 10 N=100 seed=0"], 0.1)
    assert count.line() == "1/2 cells" and count.time_left() == ""


def test_training_is_expected_to_take_as_long_as_its_rows(finish):
    few, many = (Node(f"dpo N={n} seed=0", "train", training(updates)) for n, updates in ((100, 50), (200, 100)))
    epochs = Node("rft N=400 seed=0", "train", training(epochs=2.0))
    count = Countdown([few, many, epochs])
    finish(count, few, 10.0)
    assert count.seconds_left() == (10.0 * (100 * 16 + 2 * 400) / (50 * 16), True)


def test_workers_share_the_time_and_the_end_needs_none(finish):
    plan = nodes()
    count = Countdown(plan, workers=2)
    for node in plan[:5]:
        finish(count, node, 100.0)
    assert count.seconds_left() == (50.0, True)
    for node in plan[5:]:
        finish(count, node, 100.0)
    assert count.line() == "7/7 cells" and count.time_left() == ""


def test_a_point_of_a_grid_that_is_not_trained_again_takes_no_time_and_tells_of_none(finish):
    points = [Node(f"rft [{rate}] N=100 seed=0", "train", {}, {}, 0) for rate in (1, 2)]
    choice = Node("choose rft N=100", "choose", {}, {"0 0": points[0].label, "1 0": points[1].label})
    best = [Node(f"rft N=100 seed={seed}", "train", {}, {"choice": choice.label}, seed) for seed in (0, 1)]
    again = Node("rft round 1 N=100 seed=0", "train", {}, {"choice": choice.label}, 0)
    count = Countdown([*points, choice, *best, again])
    for node, seconds in [(points[0], 100.0), (points[1], 100.0), (choice, 0.0), (best[0], 1.0)]:
        finish(count, node, seconds)
    assert count.seconds_left() == (200.0, True), (
        "seed 1 and the round are trained; seed 0's second of copying does not count"
    )
    count = Countdown([*points, choice, *best])
    finish(count, points[0], 100.0)
    assert count.seconds_left() == (200.0, True), "the other point and seed 1; seed 0 will be a copy"


def test_durations_have_two_units_at_most():
    assert [duration(s) for s in (5, 99, 120, 3599, 7500)] == ["5 s", "99 s", "2 min", "1 h 00 min", "2 h 05 min"]


def test_a_run_tells_of_each_cell_that_it_makes(tmp_path, capsys):
    settings = {"source": "arithmetic", "split": "validation", "count": 2}
    plan = [Node("data validation", "data", settings), Node("data test", "data", settings | {"split": "test"})]
    run.run(plan, str(tmp_path))
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("1/2 cells: data validation, about 0 s left") and second.endswith("2/2 cells: data test")
    run.run(plan, str(tmp_path))
    assert capsys.readouterr().out == ""


def test_cells_that_are_there_count_before_any_is_made(tmp_path, capsys):
    data = [Node(f"data {n}", "data", {"source": "arithmetic", "split": "train", "count": n}) for n in (2, 4)]
    chain = [data[1], Node("slice 1 of 2", "slice", {"number": 0, "count": 2}, {"data": data[1].label})]
    run.run(chain, str(tmp_path))
    capsys.readouterr()
    run.run([data[0], *chain], str(tmp_path))
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith("3/3 cells: data 2"), "the chain was found before the first one was made"


def test_sampling_goes_with_problems_and_samples_those_of_a_slice_in_rounds(finish):
    data = [Node("data validation", "data", {"count": 200}), Node("data N=1000 seed=0", "data", {"count": 1000})]
    part = Node("slice 1 of 300 N=1000 seed=0", "slice", {"count": 300}, {"data": data[1].label})
    whole = Node("sample N=1000 seed=0", "sample", {"n": 16}, {"data": data[1].label})
    few = Node("rounds round 1 sample N=1000 seed=0", "sample", {"n": 80}, {"data": part.label})
    count = Countdown([*data, part, whole, few])
    finish(count, data[0], 2.0)
    assert count.seconds_left()[0] == 10.0, "the training problems are five times as many"
    finish(count, data[1], 10.0)
    finish(count, whole, 160.0)
    assert count.seconds_left() == (160.0 * 300 * 80 / (1000 * 16), True)


def test_values_without_rollouts_take_a_little(finish):
    drawn = {"rollouts": 0}
    first, second = (Node(f"values dpo_outcome round {i} N=300 seed=0", "values", drawn) for i in (1, 2))
    full = Node("values N=300 seed=0", "values", {"rollouts": 8})
    count = Countdown([first, second, full])
    finish(count, first, 3.0)
    assert count.seconds_left()[0] > 10 * 3.0, "the one with rollouts takes most of the time"
    finish(count, full, 480.0)
    assert count.seconds_left()[0] < 0.01 * 480.0
