"""The credit stage on samples, values and problems made by hand: what its choices of pits make of them."""

import numpy as np
import pytest
from owl_problem import PROBLEM, QUESTION

from experiments import artifacts, crediting
from experiments.stages import credit as stage
from synthrl_jax.credit.assignment import assign
from synthrl_jax.credit.example import Response, StepValues, load_examples
from synthrl_jax.credit.steps import step_spans
from synthrl_jax.policy import load_pretrained
from synthrl_jax.problems.problem import Problem

# The second line is the first wrong one; the third is wrong because of it.
LINES = ["hen: fig 10 + tea 20, Hen is 30", "owl: hen 30 + fig 10, Owl is 41", "#### 41"]
RIGHT = ["hen: tea 20 + fig 10, Hen is 30", "owl: hen 30 + fig 10, Owl is 40", "#### 40"]
DEFAULTS = {"k": 5, "pit_rule": "first_pit", "rejected": "step", "limit": 1, "per_problem": 4, "threshold": 0.0}


@pytest.fixture(scope="module")
def policy():
    return load_pretrained("arithmetic_base")


@pytest.fixture
def run(policy, tmp_path, monkeypatch):
    """A function (settings, counts after each step, problem) -> rows of one kind and credits."""
    tokenizer, number = policy.tokenizer, iter(range(99))
    monkeypatch.setattr(stage, "load_sampler", lambda *_: policy)
    prompt = tokenizer.encode(QUESTION + "\n")
    tokens = [*prompt, *tokenizer.encode("\n".join(LINES)), tokenizer.eos_id]
    wrong = Response("p/000", "p", tokens, len(prompt), "wrong")
    right = Response(
        "p/001", "p", [*prompt, *tokenizer.encode("\n".join(RIGHT)), tokenizer.eos_id], len(prompt), "correct"
    )
    spans = step_spans(wrong.tokens, tokenizer, len(prompt), ("\n",))

    def rescue(i):
        return (np.array([*tokenizer.encode("\n".join(RIGHT[i:])), tokenizer.eos_id]),)

    def go(changes, successes, problem=PROBLEM, seed=0, kind="pairs_fork"):
        place = tmp_path / str(next(number))
        out = place / "out"
        out.mkdir(parents=True)
        samples = [wrong, right] * 8
        samples = [Response(f"p/{i:03}", "p", r.tokens, r.prompt_len, r.outcome) for i, r in enumerate(samples)]
        values = StepValues("p/000", spans, successes, [8] * len(spans), [rescue(i) for i in range(len(spans))])
        artifacts.write_jsonl(place / "problems.jsonl", [problem.to_json()])
        inputs = {"sft": place, "data": place}
        for role, found in (("grade", samples), ("values", [wrong]), ("positives", [right])):
            inputs[role] = place / role
            inputs[role].mkdir()
            artifacts.write_responses(inputs[role] / "responses.jsonl", found)
        artifacts.write_values(inputs["values"] / "values.jsonl", [values])
        stage.credit(DEFAULTS | changes, inputs, out, seed, "credit")
        return load_examples(out / f"{kind}.npz"), artifacts.read_credits(out / "credits.jsonl")["p/000"]

    return go


def test_the_defaults_say_what_settings_without_them_say(run):
    plain, credit = run({}, [8, 6, 0])
    told, again = run(crediting.DEFAULTS, [8, 6, 0])
    assert credit.pit == again.pit == 2 and len(plain) == len(told) == 2
    for a, b in zip(plain, told):
        assert a.tokens.tolist() == b.tokens.tolist() and a.mask.tolist() == b.mask.tolist()
        assert a.pair == b.pair and dict(a.meta) == dict(b.meta) and "pair_weight" not in a.meta


def test_the_oracle_s_pit_is_the_first_wrong_line_though_its_value_did_not_fall(run):
    rows, credit = run({"pit_rule": "oracle"}, [2, 8, 0])
    assert credit.pit == 1 and credit.advantage[1] > 0
    assert [row.meta["pit"] for row in rows] == [1, 1]
    dead, credit = run({"pit_rule": "oracle"}, [0, 0, 0])
    assert credit.pit == 1 and dead == [], "V(prefix) is 0"


@pytest.mark.parametrize("blank", [0, 1])
def test_pits_and_the_oracle_s_steps_are_counted_alike_where_a_blank_line_comes_first(policy, blank):
    tokenizer = policy.tokenizer
    prompt = tokenizer.encode(QUESTION + "\n")
    tokens = [*prompt, *tokenizer.encode("\n" * blank + "\n".join(LINES)), tokenizer.eos_id]
    response = Response("p/000", "p", tokens, len(prompt), "wrong")
    spans = step_spans(tokens, tokenizer, len(prompt), ("\n",))
    successes = [8] * blank + [8, 0, 0]
    assert len(spans) == len(successes)
    values = StepValues("p/000", spans, successes, [8] * len(spans), [()] * len(spans))
    credits = {"p/000": assign(values, 1.0, 5)}
    (row,) = stage.pit_rows({"p/000": response}, [values], credits, {"p": PROBLEM}, tokenizer)
    assert row["pit"] == row["first_wrong"] == row["lost"] == 1 + blank
    assert row["kind"] == "wrong value" and row["steps"] == 3 + blank


def test_the_oracle_s_pit_needs_a_graph(run):
    with pytest.raises(ValueError, match="graph"):
        run({"pit_rule": "oracle"}, [8, 0, 0], problem=Problem("p", QUESTION, "40", "", {}))


def test_random_pits_are_spread_over_the_steps_by_the_seed(run):
    found = {seed: run({"pit_rule": "random"}, [2, 8, 0], seed=seed) for seed in range(12)}
    pits = [credit.pit for _, credit in found.values()]
    assert set(pits) == {0, 1, 2}
    assert all(len(rows) == 2 for rows, _ in found.values()), "a step that rises has its pair too"
    again, credit = run({"pit_rule": "random"}, [2, 8, 0], seed=3)
    assert credit.pit == pits[3] and [r.meta["pit"] for r in again] == [r.meta["pit"] for r in found[3][0]]


def test_significant_pits_have_a_pair_each(run):
    rows, _ = run({"pits": "significant", "k": 1}, [8, 4, 0])
    assert [row.meta["pit"] for row in rows[::2]] == [1, 2]
    rows, _ = run({"pits": "significant", "k": 1, "significance": 0.02}, [8, 4, 0])
    assert rows == [], "8 to 4 of 8 has p = .038, 4 to 0 the same"
    capped, _ = run({"pits": "significant", "k": 1, "per_problem": 1}, [8, 4, 0])
    assert len(capped) == 2


def test_weights_and_the_least_value_reach_the_rows(run):
    rows, credit = run({"pair_weight": "value_before", "pits": "significant", "k": 1}, [8, 4, 0])
    weights = [row.meta["pair_weight"] for row in rows[::2]]
    assert weights == pytest.approx([1 / 0.75, 0.5 / 0.75])
    outcome, _ = run({"pair_weight": "value_before"}, [8, 4, 0], kind="pairs_outcome")
    assert outcome and all("pair_weight" not in row.meta for row in outcome)
    rows, _ = run({"least_value": 0.6, "pits": "significant", "k": 1}, [8, 4, 0])
    assert [row.meta["pit"] for row in rows[::2]] == [1]
