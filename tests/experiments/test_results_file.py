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


def test_it_says_where_the_study_stands(recorded):
    nodes = plan(config())
    assert ResultsFile(recorded, nodes).progress(nodes) == f"{recorded}: 2 of 5 results are there, 3 to do"
    other = plan(config(rate=5e-4))
    assert "1 of 5 results are there, 4 to do" in ResultsFile(recorded, other).progress(other)


def test_a_changed_setting_makes_its_cells_anew(recorded):
    nodes = plan(config(rate=5e-4))
    left = {node.label: node.stage for node in ResultsFile(recorded, nodes).remaining(nodes)}
    assert left["evaluate rft N=48 seed=0"] == "evaluate" and "rft N=48 seed=0" in left
    assert left["choose sft N=48"] == "recorded"


def test_a_key_hangs_on_all_that_a_cell_comes_from():
    first, other = (static_keys(plan(config(rate))) for rate in (1e-3, 5e-4))
    changed = {label for label in first if first[label] != other[label]}
    assert changed == {"rft N=48 seed=0", "evaluate rft N=48 seed=0"}


def test_an_evaluation_has_the_tokens_of_its_policy_and_of_all_that_it_comes_from(tmp_path):
    c = tiny.get_config()
    dpo = {"loss_args": {"beta": 0.3}}
    rounds = dpo | {"method": "dpo_per_step", "rounds": {"count": 2, "problems": 10}}
    c.methods = {name: {} for name in ("sft_complete", "sft_continued", "rft")}
    c.methods.update({"dpo_per_step": dpo, "dpo_outcome": dpo | {"grid": RATES}, "again": rounds})
    c.tune_seeds = (0,)
    nodes = plan(c)
    results, store = ResultsFile(tmp_path / "study.json", nodes), CellStore(str(tmp_path / "run"))
    tokens = {"sft": 1_000_000, "train": 10_000, "grade": 100, "values": 1}
    for node in nodes:
        if node.stage in tokens:
            finish(results, store, node.label, nodes, lambda out, n=tokens[node.stage]: write_jsonl(
                out / "summary.jsonl", [{"tokens": n}]))  # fmt: skip
    wanted = {"base": (0, 0, 0), "sft N=48 seed=0": (1_000_000, 0, 0), "rft N=48 seed=0": (1_010_000, 100, 0)}
    wanted |= {"sft_continued N=48 seed=0": (1_010_000, 0, 0), "sft_complete N=48 seed=0": (10_000, 0, 0)}
    wanted["dpo_outcome N=48 seed=0"] = (1_010_000, 100, 0)  # neither its grid nor rollouts, which it does not use
    wanted["dpo_per_step N=48 seed=0"] = (1_010_000, 100, 1)
    wanted["again N=48 seed=0"] = (1_020_000, 200, 2)
    names = ("train_tokens", "sample_tokens", "rollout_tokens")
    for policy, numbers in wanted.items():
        finish(results, store, f"evaluate {policy}", nodes, evaluation)
        row = results.rows[results.keys[f"evaluate {policy}"]]
        assert tuple(row[name] for name in names) == numbers, policy
        assert row["hardware"]


def test_tokens_that_are_not_known_are_left_out(recorded):
    (row,) = [row for row in json.loads(recorded.read_text()) if row["stage"] == "evaluate"]
    assert "train_tokens" not in row


def test_drifts_are_results_too(tmp_path):
    c = config()
    c.drift = 50
    nodes = plan(c)
    results, store = ResultsFile(tmp_path / "study.json", nodes), CellStore(str(tmp_path / "first"))
    numbers = {"responses": 50, "needed_steps": 120, "needed_lost": 0.25, "needed_moved": 0.5}
    finish(results, store, "drift rft N=48 seed=0", nodes, lambda out: write_jsonl(out / "summary.jsonl", [numbers]))
    (row,) = json.loads((tmp_path / "study.json").read_text())
    assert row.items() >= numbers.items()
    again = ResultsFile(tmp_path / "study.json", nodes)
    left = {node.label: node.stage for node in again.remaining(nodes)}
    assert left["drift rft N=48 seed=0"] == "recorded" and left["drift dpo_per_step N=48 seed=0"] == "drift"
    assert unpack(row["files"])["summary.jsonl"] == [numbers]
