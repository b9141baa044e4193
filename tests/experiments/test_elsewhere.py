"""Sets out of distribution: evaluation cells of their own, and columns of the table; without them a run is what it was."""

import dataclasses
import json

import pytest
from made_up_run import arithmetic_problems, write_run

from configs import base
from experiments import report
from experiments.artifacts import read_jsonl, write_jsonl
from experiments.graph import plan
from experiments.settings import UsageError

SETS = ("svamp", "gsm_hard")


def config_of(also=(), seeds=(0,)):
    config = base.get_config()
    config.name, config.sizes, config.seeds, config.test_problems = "made_up", (1000,), seeds, 40
    config.methods = {"rft": {"updates": 150}}
    config.evaluate.also, config.evaluate.also_path = also, "data/ood" if also else ""
    return config


def test_each_set_adds_its_data_and_one_evaluation_of_every_policy():
    before, after = ({node.label: node for node in plan(config_of(also))} for also in ((), SETS))
    assert {label: after[label] for label in before} == before
    new = set(after) - set(before)
    policies = ("base", "sft N=1000 seed=0", "rft N=1000 seed=0")
    assert new == {f"data {s}" for s in SETS} | {f"elsewhere {s} {policy}" for s in SETS for policy in policies}
    node, plain = after["elsewhere svamp rft N=1000 seed=0"], after["evaluate rft N=1000 seed=0"]
    assert node == dataclasses.replace(plain, label=node.label, inputs={**plain.inputs, "test": "data svamp"})
    assert after["data svamp"].settings == {"source": "svamp", "split": "test", "path": "data/ood"}
    assert not any("also" in name for found in after.values() for name in found.settings)


def test_an_unknown_set_is_told_before_anything_runs():
    with pytest.raises(UsageError, match="unknown problem source 'swamp'"):
        plan(config_of(("swamp",)))


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_the_table_has_a_column_for_each_set(seeds, tmp_path):
    cells = write_run(tmp_path, config_of(seeds=seeds), arithmetic_problems())
    for label in [label for label in cells if label.startswith("evaluate ")]:
        rows = read_jsonl(cells[label].path / "problems.jsonl")
        place = tmp_path / "cells" / f"other {label}"
        place.mkdir()
        # every fourth of 20 answers is right
        rows = [row | {"outcome": "wrong" if i % 4 else "correct"} for i, row in enumerate(rows[:20])]
        write_jsonl(place / "problems.jsonl", rows)
        write_jsonl(place / "row.jsonl", [{"accuracy": 0.25, "accuracy_lo": 0.1, "accuracy_hi": 0.4}])
        (place / "manifest.json").write_text((cells[label].path / "manifest.json").read_text())
        name = label.replace("evaluate", "elsewhere svamp")
        cells[name] = dataclasses.replace(cells[label], label=name, path=place)
    found = report.collect(config_of(("svamp",), seeds).to_dict(), cells)
    assert found.missing == ["data svamp"]
    shown = report.table(found)
    assert "svamp %" in shown.splitlines()[2] and "25.0 [" in shown and "gsm_hard" not in shown
    for row in report.rows(found):
        assert row["accuracy_svamp"] == 0.25 and 0 < row["accuracy_svamp_lo"] < 0.25 < row["accuracy_svamp_hi"]
    report.render(found, tmp_path / "page")
    assert "svamp %" in (tmp_path / "page" / "index.html").read_text()


def test_reports_of_runs_from_before_are_read(tmp_path):
    cells = write_run(tmp_path, config_of(), arithmetic_problems())
    run = json.loads((tmp_path / "run.json").read_text())
    for name in ("also", "also_path"):
        del run["config"]["evaluate"][name]
    (tmp_path / "run.json").write_text(json.dumps(run))
    assert set(cells) and not report.read_run(tmp_path).missing
