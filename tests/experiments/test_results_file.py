"""A study's results file: a fresh checkout goes on from its rows."""

import json

import numpy as np
import pytest

from configs import tiny
from experiments.artifacts import read_jsonl, write_jsonl
from experiments.cells import CellStore, make
from experiments.graph import plan
from experiments.results_file import ResultsFile, pack, static_keys, unpack

RATES = {"optimizer": {"learning_rate": (1e-3, 2e-3)}}


def config(rate=1e-3):
    c = tiny.get_config()
    c.methods = {"rft": {"optimizer": {"learning_rate": rate}}, "dpo_per_step": {"loss_args": {"beta": 0.3}}}
    c.tune_seeds, c.sft.grid = (0,), RATES
    return c


def evaluation(path, count=30):
    rng = np.random.default_rng(0)
    outcomes = ("correct", "wrong", "no_answer")
    rows = [
        {"id": f"problem-{i}", "outcome": outcomes[rng.integers(3)], "samples": 10, "correct": int(rng.integers(11))}
        for i in range(count)
    ]
    for row in rows[1:]:
        row["greedy"] = {"needed": int(rng.integers(1, 7)), "leap": 1}
    rows[0]["greedy"] = {}
    write_jsonl(path / "problems.jsonl", rows)
    write_jsonl(path / "row.jsonl", [{"accuracy": 0.5, "problems": count}])
    return rows


def test_what_is_packed_comes_back(tmp_path):
    rows = evaluation(tmp_path)
    files = unpack(json.loads(json.dumps(pack(tmp_path))))
    assert files == {"problems.jsonl": rows, "row.jsonl": [{"accuracy": 0.5, "problems": 30}]}


def finish(results, store, label, nodes, write):
    node = next(node for node in nodes if node.label == label)
    cell = make(store, node, 1, {}, lambda settings, inputs, out, seed, label: write(out))
    results.add(node, cell, seconds=1)
    return cell


@pytest.fixture
def recorded(tmp_path):
    """A results file with the evaluation of one method and the choice of SFT's grid."""
    nodes = plan(config())
    results, store = ResultsFile(tmp_path / "study.json", nodes), CellStore(str(tmp_path / "first"))
    finish(results, store, "evaluate rft N=48 seed=0", nodes, evaluation)
    grid = [{"point": {"optimizer": {"learning_rate": rate}}, "validation_accuracy": rate} for rate in (1e-3, 2e-3)]

    def choice(out):
        write_jsonl(out / "grid.jsonl", grid)
        write_jsonl(out / "choice.jsonl", grid[1:])

    finish(results, store, "choose sft N=48", nodes, choice)
    return tmp_path / "study.json"


def test_a_cell_with_a_row_is_copied_and_what_only_it_needs_is_left_out(recorded, tmp_path):
    nodes = plan(config())
    left = {node.label: node for node in ResultsFile(recorded, nodes).remaining(nodes)}
    assert "rft N=48 seed=0" not in left and "sft [0.001] N=48 seed=0" not in left
    assert {"sft N=48 seed=0", "dpo_per_step N=48 seed=0", "values N=48 seed=0"} <= set(left)
    for label, names in (("evaluate rft N=48 seed=0", {"problems.jsonl", "row.jsonl"}),
                         ("choose sft N=48", {"grid.jsonl", "choice.jsonl"})):  # fmt: skip
        node = left[label]
        assert node.stage == "recorded" and not node.inputs
        from experiments.stages.rounds import recorded as stage

        out = tmp_path / label
        out.mkdir()
        stage(node.settings, {}, out, 0, label)
        assert {path.name for path in out.iterdir()} == names
    assert read_jsonl(tmp_path / "choose sft N=48" / "choice.jsonl")[0]["validation_accuracy"] == 2e-3


def test_a_changed_setting_makes_its_cells_anew(recorded):
    nodes = plan(config(rate=5e-4))
    left = {node.label: node.stage for node in ResultsFile(recorded, nodes).remaining(nodes)}
    assert left["evaluate rft N=48 seed=0"] == "evaluate" and "rft N=48 seed=0" in left
    assert left["choose sft N=48"] == "recorded"


def test_a_key_hangs_on_all_that_a_cell_comes_from():
    first, other = (static_keys(plan(config(rate))) for rate in (1e-3, 5e-4))
    changed = {label for label in first if first[label] != other[label]}
    assert changed == {"rft N=48 seed=0", "evaluate rft N=48 seed=0"}
