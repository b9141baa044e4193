"""The stage `values` with early stopping: fewer rollouts, and those it draws are the fixed budget's first."""

import types

import pytest

from experiments.artifacts import read_jsonl, read_values, write_jsonl, write_responses
from experiments.settings import UsageError
from experiments.stages import values as stage
from synthrl_jax.credit.example import Response
from synthrl_jax.problems.problem import Problem
from synthrl_jax.rollouts import Completion

STEPS, PROMPT = 4, 3
TOKENS = [7] * PROMPT + [9, 1] * STEPS  # token 1 is the delimiter
SETTINGS = {"negatives": 9, "positives": 9, "rollouts": 24, "max_tokens": 20, "delimiters": ["\n"], "shard_roots": 3}
SETTINGS |= {"grading": "x", "sampler": "grouped", "rows": 8, "k": 5, "looks": (8, 16), "level": 0.95}


def right(root: str, fork: int, index: int) -> bool:
    """Whether a rollout ends right: prefixes of up to three steps are good, the last is lost."""
    return fork <= PROMPT + 6 and (fork + index + len(root)) % 3 != 0


@pytest.fixture
def run(tmp_path, monkeypatch):
    class Tokenizer:
        eos_id = 0

        def pieces(self, ids):
            return ["\n" if i == 1 else "a" for i in ids]

        def decode(self, ids):
            return " ".join(map(str, ids))

    stores = {}

    def sample_to_store(directory, policy, roots, settings, **_):
        stores[directory] = [
            Completion(root.id, fork.position, i, (len(root.id), fork.position, i), (0.0,) * 3, "stop")
            for root in roots
            for fork in root.forks
            for i in range(fork.first, fork.first + root.n)
        ]

    def grade_many(rows):
        tasks = [tuple(int(word) for word in text.split()[-3:]) for text, _, _ in rows]
        return [types.SimpleNamespace(outcome="correct" if right("r" * n, f, i) else "wrong") for n, f, i in tasks]

    monkeypatch.setattr(stage, "load_sampler", lambda *_: types.SimpleNamespace(tokenizer=Tokenizer()))
    monkeypatch.setattr(stage.rollouts, "sample_to_store", sample_to_store)
    monkeypatch.setattr(stage.rollouts, "read_store", stores.__getitem__)
    monkeypatch.setattr(stage.grading, "grade_many", grade_many)
    problems = [Problem(f"p{i}", "?", "1", "1", {}) for i in range(3)]
    responses = [Response("r" * (i + 1), f"p{i}", [*TOKENS, 20 + i], PROMPT, "wrong") for i in range(3)]
    for name in ("data", "grade", "positives"):
        (tmp_path / name).mkdir()
    write_jsonl(tmp_path / "data" / "problems.jsonl", [problem.to_json() for problem in problems])
    write_responses(tmp_path / "grade" / "responses.jsonl", responses)
    write_responses(tmp_path / "positives" / "responses.jsonl", [])

    def one(rule):
        out = tmp_path / (rule or "fixed")
        out.mkdir()
        inputs = {name: tmp_path / name for name in ("sft", "data", "grade", "positives")}
        stage.values({**SETTINGS, "early_stop": rule}, inputs, out, 0, "values")
        return {v.root_id: v for v in read_values(out / "values.jsonl")}, read_jsonl(out / "summary.jsonl")[0]

    return one


@pytest.mark.parametrize("rule", ["pit", "advantage"])
def test_an_early_stopped_step_has_the_first_rollouts_of_the_fixed_budget(run, rule):
    fixed, whole = run("")
    early, less = run(rule)
    assert whole["rollouts"] == 3 * STEPS * 24 and len(fixed) == len(early) == 3
    assert 3 * STEPS * 8 <= less["rollouts"] < whole["rollouts"]
    seen = set()
    for name, found in early.items():
        for step, (_, end) in enumerate(found.spans[:-1].tolist()):
            n = int(found.attempts[step])
            seen.add(n)
            assert n in (8, 16, 24)
            assert found.successes[step] == sum(right(name, end, i) for i in range(n))
            assert len(found.rescues[step + 1]) == min(4, found.successes[step])
        assert found.attempts[-1] == 24 and found.successes[-1] == 0
        assert (fixed[name].attempts == 24).all()
    assert len(seen) > 1
    # a right rollout settles that a step is no pit; only the fall to the lost step is a settled sign
    settled, still_open = (3, 1) if rule == "pit" else (1, 3)
    assert less["rollouts"] == 3 * (settled * 8 + still_open * 24)


def test_looks_that_make_no_sense_stop_a_run_before_it_starts():
    from configs import tiny
    from experiments.graph import plan

    config = tiny.get_config()
    config.monte_carlo.early_stop, config.monte_carlo.looks = "pit", (3,)
    with pytest.raises(UsageError, match="looks"):
        plan(config)
    config.monte_carlo.looks, config.monte_carlo.rollouts = (5,), 8
    nodes = [node for node in plan(config) if node.stage == "values"]
    assert nodes and all(node.settings["k"] == 5 and node.settings["early_stop"] == "pit" for node in nodes)
