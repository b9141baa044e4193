"""What methods make of earlier artifacts."""

import collections
import dataclasses

import numpy as np
import pytest

from experiments import artifacts, methods
from synthrl_jax.credit.example import Example, Response
from synthrl_jax.problems.arithmetic import Graph
from synthrl_jax.problems.problem import Problem, load


def made(tmp_path, problems=(), responses=()):
    artifacts.write_jsonl(tmp_path / "problems.jsonl", (problem.to_json() for problem in problems))
    artifacts.write_responses(tmp_path / "responses.jsonl", responses)
    row = lambda problem: Example([1, 2], [False, True], meta={"problem_id": problem.id})  # noqa: E731
    return artifacts.Artifacts({"data": tmp_path, "positives": tmp_path}, 0, row)


def kept(name, found, **options):
    method, defaults = methods.find(name, {})
    return [row.meta["problem_id"] for row in method.examples(found, **defaults, **options)]


def test_complete_solutions_state_every_needed_quantity(tmp_path):
    problems = load("arithmetic", "train", seed=3, count=200, style=0.25)
    whole = []
    for problem in problems:
        stated = {line.split(":")[0] for line in problem.solution.split("\n")[:-1]}
        if Graph.from_json(problem.meta["graph"]).needed() <= stated:
            whole.append(problem.id)
    assert kept("sft_complete", made(tmp_path, problems)) == whole
    assert 10 < len(whole) < 150


def test_a_teacher_who_leaves_nothing_out_is_kept_whole(tmp_path):
    problems = load("arithmetic", "train", seed=3, count=40, style=0.0)
    assert kept("sft_complete", made(tmp_path, problems)) == [problem.id for problem in problems]


def test_complete_solutions_need_an_oracle(tmp_path):
    with pytest.raises(ValueError, match=r"word-1.*graph"):
        kept("sft_complete", made(tmp_path, [Problem("word-1", "Q", "1", "#### 1")]))


def test_positives_can_be_capped_and_the_first_selected_stay(tmp_path):
    of = [0, 0, 0, 1, 2, 2]
    responses = [Response(f"r{i}", f"p{p}", np.array([1, i]), 1, "correct") for i, p in enumerate(of)]
    found = made(tmp_path, responses=responses)
    assert kept("rft", found) == [f"p{p}" for p in of]
    assert kept("rft", found, cap=1) == ["p0", "p1", "p2"]
    rows = methods.positives(found, cap=2)
    assert [row.meta["response_id"] for row in rows] == ["r0", "r1", "r3", "r4", "r5"]
    assert collections.Counter(kept("rft", found, cap=2)) == {"p0": 2, "p1": 1, "p2": 2}


class Characters:
    """A tokenizer of one token a character."""

    def decode(self, ids):
        return "".join(map(chr, ids))


def test_flawed_and_flawless_positives_are_as_many_and_differ_where_a_problem_has_both(tmp_path):
    problems = load("arithmetic", "train", seed=3, count=3, style=0.0)
    whole = [problem.solution for problem in problems]
    slip = lambda text: text.replace("\n", "\nso it is\n", 1)  # noqa: E731
    texts = [(0, slip(whole[0])), (0, whole[0]), (1, whole[1]), (2, slip(whole[2]))]
    ids = [[ord(c) for c in text] for _, text in texts]
    responses = [Response(f"r{i}", problems[p].id, ids[i], 0, "correct") for i, (p, _) in enumerate(texts)]
    found = dataclasses.replace(made(tmp_path, problems, responses), tokenizer=Characters())
    chosen = lambda **o: {row.meta["response_id"] for row in methods.positives(found, cap=1, **o)}  # noqa: E731
    assert chosen() == chosen(first="flawed") == {"r0", "r2", "r3"}
    assert chosen(first="flawless") == {"r1", "r2", "r3"}
    assert len(methods.positives(found, first="flawed")) == 4
    with pytest.raises(ValueError, match="flawless"):
        methods.positives(found, first="best")
    with pytest.raises(ValueError, match=r"word-1.*graph"):
        methods.positives(made(tmp_path, [Problem("word-1", "Q", "1", "#### 1")]), first="flawed")


def test_a_method_s_cost_is_what_its_rows_hang_on():
    unused = lambda name: set(methods.find(name, {})[0].unused)  # noqa: E731
    assert unused("dpo_per_step") == unused("advantage_weighted") == set()
    assert unused("rft") == unused("dpo_outcome") == {"values", "credit"}
    assert unused("sft_continued") == {"values", "credit", "grade", "positives"}
    assert unused("sft_complete") == unused("sft_continued") | {"sft"}
    outside = methods.find("dpo_outcome", {"examples": "own_parts:shortest_positives"})[0]
    assert outside.unused == () and outside.needs_credit
