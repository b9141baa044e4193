"""How far a method moved right and wrong steps: against log-probabilities taken response by response."""

import dataclasses

import jax
import numpy as np
import pytest
from owl_problem import PROBLEM, QUESTION

from experiments import artifacts
from experiments.stages import drift as stage
from synthrl_jax.credit.example import Response
from synthrl_jax.policy import decoder, load_pretrained
from synthrl_jax.problems.problem import Problem

# Lines with what the oracle calls them.
RIGHT = [
    ("hen: fig 10 + tea 20, Hen is 30", "needed"),
    ("owl: hen 30 + fig 10, Owl is 40", "needed"),
    ("#### 40", "needed"),
]
WRONG = [
    ("owl: hen 30 + fig 10, Owl is 40", "leap"),
    ("hen: fig 10 + tea 20, Hen is 31", "wrong"),
    ("#### 41", "wrong"),
]


@pytest.fixture(scope="module")
def policies():
    first = load_pretrained("arithmetic_base")
    moved = jax.tree.map(lambda x: 1.05 * x, first.params)
    return {"sft": first, "policy": dataclasses.replace(first, params=moved)}


@pytest.fixture
def run(policies, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "load_sampler", lambda cell, settings: policies[cell.name])
    tokenizer = policies["sft"].tokenizer
    prompt = tokenizer.encode(QUESTION + "\n")

    def go(solutions, count=10, problem=PROBLEM, seed=0):
        responses = []
        for i, lines in enumerate(solutions):
            tokens = [*prompt, *tokenizer.encode("\n".join(text for text, _ in lines)), tokenizer.eos_id]
            responses.append(Response(f"p/{i:03}", "p", tokens, len(prompt), "wrong"))
        artifacts.write_jsonl(tmp_path / "problems.jsonl", [problem.to_json()])
        artifacts.write_responses(tmp_path / "responses.jsonl", responses)
        inputs = {"data": tmp_path, "grade": tmp_path, "sft": tmp_path / "sft", "policy": tmp_path / "policy"}
        stage.drift({"count": count, "delimiters": ["\n"]}, inputs, tmp_path, seed, "drift")
        (summary,) = artifacts.read_jsonl(tmp_path / "summary.jsonl")
        return responses, summary

    return go


def lost_by_kind(policies, responses, solutions):
    out = {"needed": [], "wrong": [], "leap": []}
    tokenizer = policies["sft"].tokenizer
    for response, lines in zip(responses, solutions):
        tokens = response.tokens[None]
        scores = [
            np.asarray(decoder.token_logprobs(policies[role].config, policies[role].params, tokens))[0]
            for role in ("sft", "policy")
        ]
        place = response.prompt_len
        for number, (text, kind) in enumerate(lines):
            last = number == len(lines) - 1
            length = len(tokenizer.encode(text)) + 1  # the newline, or the end of the sequence
            out[kind].append(float((scores[0] - scores[1])[place : place + length].sum()))
            place += length
            assert not last or place == len(response.tokens)
    return out


def test_each_kind_of_step_has_its_own_mean(run, policies):
    solutions = [RIGHT, WRONG]
    responses, summary = run(solutions)
    lost = lost_by_kind(policies, responses, solutions)
    assert (summary["responses"], summary["needed_steps"], summary["wrong_steps"]) == (2, 3, 2)
    for kind in ("needed", "wrong"):
        assert summary[f"{kind}_lost"] == pytest.approx(np.mean(lost[kind]), abs=2e-4)
        assert summary[f"{kind}_moved"] == pytest.approx(np.mean(np.abs(lost[kind])), abs=2e-4)
        assert summary[f"{kind}_moved"] > 0.01


def test_a_method_that_changed_nothing_has_no_drift_and_a_kind_that_is_not_there_no_number(run, policies, monkeypatch):
    monkeypatch.setitem(policies, "policy", policies["sft"])
    _, summary = run([RIGHT])
    assert summary["needed_lost"] == summary["needed_moved"] == 0
    assert summary["wrong_steps"] == 0 and "wrong_lost" not in summary


def test_so_many_responses_are_taken_the_same_for_every_method(run, policies, monkeypatch):
    solutions = [RIGHT, WRONG, RIGHT, WRONG, RIGHT, WRONG]
    _, first = run(solutions, count=3)
    _, again = run(solutions, count=3)
    assert first == again and first["responses"] == 3
    found = {run(solutions, count=3, seed=seed)[1]["wrong_steps"] for seed in range(6)}
    assert len(found) > 1


def test_it_needs_a_graph(run):
    with pytest.raises(ValueError, match="graph"):
        run([RIGHT], problem=Problem("p", QUESTION, "40", "", {}))
