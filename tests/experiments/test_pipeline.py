"""The whole pipeline on a handful of problems: what each cell holds, and parts that come from outside."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments import artifacts, run
from experiments.cells import MANIFEST, fingerprint
from experiments.stages import find_stage
from experiments.stages.base import load_policy
from synthrl_jax.credit.example import load_examples
from synthrl_jax.credit.values import best_of_k_value
from synthrl_jax.policy import checksum, load_pretrained, scoring
from synthrl_jax.problems.oracle import Oracle
from tests.xla_flags import UNOPTIMISED

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]

CONFIG = """
from configs import tiny

def get_config():
    c = tiny.get_config()
    c.name = "own"
    c.tune_seeds, c.drift = (0,), 6
    rows = c.methods.rft.to_dict()
    c.methods = {
        "dpo_per_step": c.methods.dpo_per_step,
        "advantage_weighted": c.methods.advantage_weighted,
        "hinge": {
            **rows, "method": "dpo_outcome", "loss": "own_parts:hinge", "loss_args": {"margin": 1.0},
            "grid": {"loss_args": {"margin": (0.5, 2.0)}},
        },
        "rounds": c.methods.dpo_per_step.to_dict() | {"method": "dpo_per_step", "rounds": {"count": 2, "problems": 20}},
        "last_drop": c.methods.dpo_per_step.to_dict() | {"method": "dpo_per_step", "credit": {"pit_rule": "own_parts:last_drop"}},
        "true": c.methods.dpo_per_step.to_dict() | {
            "method": "dpo_per_step", "credit": {"pit_rule": "oracle", "pair_weight": "value_before"},
        },
        "short": {**rows, "examples": "own_parts:shortest_positives", "loss": "sft", "start": "base", "options": {"count": 5}},
    }
    return c
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("pipeline")
    (directory / "own.py").write_text(CONFIG)
    flags = [
        f"--config={directory / 'own.py'}",
        f"--workdir={directory / 'run'}",
        "--json",
        str(directory / "rows.json"),
    ]
    # nearly all of its time is the compiler's, so in a process of its own that does not optimise
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    env = {**os.environ, "SYNTHRL_QUIET": "1", "XLA_FLAGS": UNOPTIMISED, "PYTHONPATH": path}
    subprocess.run([sys.executable, "-m", "experiments.run", *flags], env=env, check=True, cwd=ROOT)
    cells = json.loads((directory / "run" / "run.json").read_text())["cells"]
    return directory, {label: directory / "run" / place for label, place in cells.items()}


def cell(finished, stage):
    return finished[1][f"{stage} N=48 seed=0"]


def test_the_table_has_a_row_for_the_base_the_sft_and_every_method(finished):
    rows = json.loads((finished[0] / "rows.json").read_text())
    assert {row["method"] for row in rows} >= {"base", "sft", "dpo_per_step", "hinge", "last_drop", "short"}
    assert all(row["accuracy_lo"] <= row["accuracy"] <= row["accuracy_hi"] for row in rows)


def test_the_same_run_again_makes_nothing_anew(finished, capsys):
    before = {label: fingerprint(path) for label, path in finished[1].items()}
    assert run.main([f"--config={finished[0] / 'own.py'}", f"--workdir={finished[0] / 'run'}"]) == 0
    assert "cells: " not in capsys.readouterr().out
    assert {label: fingerprint(path) for label, path in finished[1].items()} == before


def test_outcomes_are_the_last_line_against_the_answer(finished):
    problems = {p.id: p for p in artifacts.read_problems(cell(finished, "data"))}
    tokenizer = load_pretrained("arithmetic_base").tokenizer
    responses = artifacts.read_responses(cell(finished, "grade") / "responses.jsonl")
    assert len(responses) == 48 * 8 and {r.outcome for r in responses} >= {"correct", "wrong"}
    for response in responses:
        last = tokenizer.decode(response.completion).split("\n")[-1]
        right = last == f"#### {problems[response.problem_id].answer}"
        assert right == (response.outcome == "correct"), (last, response.outcome)


def test_q_and_advantages_follow_from_the_counts(finished):
    values = {v.root_id: v for v in artifacts.read_values(cell(finished, "values") / "values.jsonl")}
    credits = artifacts.read_credits(cell(finished, "credit") / "credits.jsonl")
    responses = artifacts.read_responses(cell(finished, "grade") / "responses.jsonl")
    valued = {r.id: r for r in artifacts.read_responses(cell(finished, "values") / "responses.jsonl")}
    assert credits and {valued[name].outcome for name in credits} == {"correct", "wrong"}
    for name, credit in credits.items():
        counted, response = values[name], valued[name]
        assert (np.diff(counted.spans.ravel()) >= 0).all() and counted.spans[0][0] == response.prompt_len
        assert counted.spans[-1][1] == len(response.tokens)
        q = best_of_k_value(counted.successes, counted.attempts, 5)
        siblings = [r for r in responses if r.problem_id == response.problem_id]
        v0 = best_of_k_value(sum(r.outcome == "correct" for r in siblings), len(siblings), 5)
        assert np.allclose(credit.q, q) and np.isclose(credit.prompt_value, v0)
        assert np.allclose(credit.advantage, np.diff([v0, *q]))
        assert credit.pit == int(np.argmin(q)) and q[-1] == (response.outcome == "correct")


def test_fork_pairs_share_their_prefix_and_a_rescue_is_right(finished):
    problems = {p.id: p for p in artifacts.read_problems(cell(finished, "data"))}
    tokenizer = load_pretrained("arithmetic_base").tokenizer
    rows = load_examples(cell(finished, "credit") / "pairs_fork.npz")
    assert rows
    for chosen, rejected in zip(rows[0::2], rows[1::2]):
        start = int(np.argmax(chosen.mask))
        assert start == int(np.argmax(rejected.mask)) and np.array_equal(chosen.tokens[:start], rejected.tokens[:start])
        problem = problems[chosen.meta["problem_id"]]
        text = tokenizer.decode(chosen.tokens)
        assert text.startswith(problem.question) and text.split("\n")[-1] == f"#### {problem.answer}"
        assert int(rejected.tokens[-1]) != tokenizer.eos_id


def test_the_oracle_s_numbers_in_the_pits_are_those_of_the_responses(finished):
    problems = {p.id: p for p in artifacts.read_problems(cell(finished, "data"))}
    valued = {r.id: r for r in artifacts.read_responses(cell(finished, "values") / "responses.jsonl")}
    tokenizer = load_pretrained("arithmetic_base").tokenizer
    for row in artifacts.read_jsonl(cell(finished, "credit") / "pits.jsonl"):
        response = valued[row["response_id"]]
        verdicts = Oracle(problems[response.problem_id]).judge(tokenizer.decode(response.completion))
        wrong = [v.wrong for v in verdicts]
        if len(wrong) == row["steps"]:  # else a step is an empty line, of which the oracle says nothing
            assert row["first_wrong"] == (wrong.index(True) if True in wrong else -1)


def test_a_pit_rule_from_outside_makes_its_own_pairs(finished):
    label = next(label for label in finished[1] if label.startswith("credit last_drop"))
    own = artifacts.read_credits(finished[1][label] / "credits.jsonl")
    for credit in own.values():
        drops = np.flatnonzero(credit.advantage < 0)
        assert credit.pit == (drops[-1] if len(drops) else -1)


def test_the_oracle_s_pits_make_pairs_weighted_by_the_value_before(finished):
    pits = artifacts.read_jsonl(cell(finished, "credit true") / "pits.jsonl")
    assert pits and all(row["pit"] == row["first_wrong"] for row in pits)
    rows = load_examples(cell(finished, "credit true") / "pairs_fork.npz")
    values, weights = (np.array([row.meta[name] for row in rows]) for name in ("value_before", "pair_weight"))
    assert len(rows) and np.allclose(weights, values / values.mean())


def test_without_rollouts_the_pairs_of_whole_responses_are_the_same(finished, tmp_path):
    inputs = {role: cell(finished, role) for role in ("data", "sft", "grade", "positives")}
    for stage, changes in (("values", {"rollouts": 0}), ("credit", {})):
        made = json.loads((cell(finished, stage) / MANIFEST).read_text())
        inputs[stage] = tmp_path / stage
        inputs[stage].mkdir()
        find_stage(stage)[0](made["settings"] | changes, inputs, inputs[stage], made["seed"], stage)
    (summary,) = artifacts.read_jsonl(inputs["values"] / "summary.jsonl")
    assert summary["rollouts"] == summary["tokens"] == 0 < summary["responses"]
    for name in ("pairs_outcome", "pairs_edit_distance"):
        assert (inputs["credit"] / f"{name}.npz").read_bytes() == (
            cell(finished, "credit") / f"{name}.npz"
        ).read_bytes()
        assert len(load_examples(inputs["credit"] / f"{name}.npz")) > 0
    for name in ("pairs_fork", "weighted", "filtered"):
        assert not len(load_examples(inputs["credit"] / f"{name}.npz"))


def test_drift_is_measured_on_the_same_samples_for_every_method(finished):
    found = {}
    for name in ("dpo_per_step", "rounds", "short", "true"):
        (found[name],) = artifacts.read_jsonl(cell(finished, f"drift {name}") / "summary.jsonl")
    counts = {(row["responses"], row["needed_steps"], row["wrong_steps"]) for row in found.values()}
    assert len(counts) == 1 and counts.pop()[0] == 6
    assert all(row["wrong_moved"] >= abs(row["wrong_lost"]) and row["wrong_moved"] > 0 for row in found.values())


def test_rounds_sample_from_the_round_before_on_other_problems(finished):
    slices = [artifacts.read_problems(cell(finished, f"slice {number} of 20")) for number in (1, 2)]
    assert [len(part) for part in slices] == [20, 20]
    assert not {p.id for p in slices[0]} & {p.id for p in slices[1]}
    for number, sampler in ((1, "sft"), (2, "rounds round 1")):
        rows = load_examples(cell(finished, f"credit rounds round {number}") / "pairs_fork.npz")
        policy = load_policy(cell(finished, sampler))
        assert {row.meta["sampler"] for row in rows} == {checksum(policy.params)}
        assert {row.meta["problem_id"] for row in rows} <= {p.id for p in slices[number - 1]}
    looks = artifacts.read_jsonl(cell(finished, "rounds") / "looks.jsonl")
    (summary,) = artifacts.read_jsonl(cell(finished, "rounds") / "summary.jsonl")
    assert summary["best_round"] == 1 + int(np.argmax([look["validation_accuracy"] for look in looks]))
    best = load_policy(cell(finished, f"rounds round {summary['best_round']}"))
    assert checksum(load_policy(cell(finished, "rounds")).params) == checksum(best.params)


def test_the_best_point_of_a_grid_is_the_one_that_is_trained(finished):
    choose = finished[1]["choose hinge N=48"]
    points = artifacts.read_jsonl(choose / "grid.jsonl")
    assert [row["point"]["loss_args"]["margin"] for row in points] == [0.5, 2.0]
    (choice,) = artifacts.read_jsonl(choose / "choice.jsonl")
    assert choice["validation_accuracy"] == max(row["validation_accuracy"] for row in points)
    margin = choice["point"]["loss_args"]["margin"]
    chosen, point = (cell(finished, name) for name in ("hinge", f"hinge [{margin:g}]"))
    assert checksum(load_policy(chosen).params) == checksum(load_policy(point).params)
    assert fingerprint(chosen) == fingerprint(point)


def test_trained_policies_differ_from_their_start_and_load_again(finished):
    base = load_pretrained("arithmetic_base")
    tokens = np.array([base.tokenizer.encode("What is owl?\nowl: fig 1 + tea 2, Owl is 3")])
    scores = {"base": scoring.score(base.config, base.params, tokens)}
    for name in ("sft", "dpo_per_step", "hinge", "last_drop", "short", "advantage_weighted"):
        policy = load_pretrained(Path(cell(finished, name)) / "policy")
        scores[name] = scoring.score(policy.config, policy.params, tokens)
    names = list(scores)
    assert all(not np.allclose(scores[a], scores[b], atol=1e-6) for i, a in enumerate(names) for b in names[:i])


@pytest.mark.long
def test_a_problem_source_from_outside(tmp_path):
    changes = {'c.name = "own"': 'c.problems.source = "own_parts:counting"; c.problems.settings = {"largest": 50}'}
    # the oracle and the drift of steps need problems whose graph is known
    changes |= {"c.drift = (0,), 6": "c.drift = (0,), 0", "    return c": '    del c.methods["true"]\n    return c'}
    text = CONFIG
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "counting.py").write_text(text)
    flags = [f"--config={tmp_path / 'counting.py'}", f"--workdir={tmp_path / 'run'}", "--config.train.updates=2"]
    assert run.main([*flags, "--config.sizes=16"]) == 0
