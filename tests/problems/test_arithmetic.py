"""The embedded task: its graphs, language, teacher styles and splits."""

import collections
import re

import pytest

from synthrl_jax.problems import arithmetic, language
from synthrl_jax.problems.arithmetic import Difficulty, Graph, make
from synthrl_jax.problems.oracle import Oracle
from synthrl_jax.problems.problem import load


def evaluate_text(question: str) -> dict[str, int]:
    """Independent of the package: Python evaluates the sentences as assignments until all names are known."""
    pending = {}
    for sentence in question.split("\n")[:-1]:
        name, _, meaning = sentence.partition(" is ")
        pending[name.lower()] = meaning
    known: dict[str, int] = {}
    while pending:
        for name in list(pending):
            if all(word in known for word in re.findall(r"[a-z]+[0-9]*", pending[name])):
                known[name] = eval(pending.pop(name), {}, known)  # our own text, in a test
    return known


def asked(question: str) -> str:
    return re.fullmatch(r"What is (\w+)\?", question.split("\n")[-1]).group(1)


@pytest.mark.parametrize("style", [0.0, 0.1, 0.25, 0.5])
def test_answers_and_every_stated_value_follow_from_the_text(style):
    for i in range(60):
        problem = make("train", i, seed=3, style=style, needless=0.5)
        values = evaluate_text(problem.question)
        assert int(problem.answer) == values[asked(problem.question)]
        lines = problem.solution.split("\n")
        assert lines[-1] == f"#### {problem.answer}"
        for line in lines[:-1]:
            for name, number in re.findall(r"\b(?!is )([a-z]+) (\d+)", line) + re.findall(
                r"([A-Z][a-z]+) is (\d+)", line
            ):
                assert values[name.lower()] == int(number)


def test_problems_are_a_function_of_seed_split_and_index_alone():
    few, many = (load("arithmetic", "train", count=n, seed=5) for n in (4, 9))
    assert few == many[:4]
    assert load("arithmetic", "train", count=4, seed=6) != few


def test_style_changes_solutions_and_leaves_questions_as_they_are():
    clean, terse = (load("arithmetic", "train", count=50, style=s) for s in (0.0, 0.5))
    assert [p.question for p in clean] == [p.question for p in terse]
    assert sum(len(p.solution) for p in terse) < 0.75 * sum(len(p.solution) for p in clean)


@pytest.mark.parametrize("style", [0.1, 0.25, 0.5])
def test_style_is_the_share_of_needed_steps_left_out(style):
    problems = load("arithmetic", "train", count=1500, style=style, needless=0.0)
    needed = sum(p.meta["steps"] for p in problems)
    written = sum(len(p.solution.split("\n")) - 1 for p in problems)
    assert abs(1 - written / needed - style) < 0.015


def test_a_teacher_who_leaves_nothing_out_makes_no_leap():
    problems = load("arithmetic", "validation", count=500, style=0.0, needless=0.5)
    kinds = collections.Counter(line.kind for p in problems for line in Oracle(p).judge(p.solution))
    assert set(kinds) == {"needed", "needless"} and kinds["needless"] > 100


def test_splits_share_no_question_whatever_their_seeds():
    easy = Difficulty(
        steps=(1, 1), irrelevant=(0, 0), given=(2, 2), distractors=(0, 0), max_given=14
    )  # few distinct texts
    texts = {
        s: {make(s, i, seed=d, difficulty=easy).question for i in range(150) for d in (0, 1)} for s in arithmetic.SHARES
    }
    names = list(texts)
    assert all(not texts[a] & texts[b] for a in names for b in names if a < b)


def test_no_answer_holds_more_than_five_per_cent():
    counts = collections.Counter(p.answer for p in load("arithmetic", "test", count=3000))
    assert max(counts.values()) <= 0.05 * 3000 and all(0 <= int(a) <= 99 for a in counts)


def test_difficulty_settings_decide_the_counts():
    for steps in (1, 2, 5, 8, 14, 30):
        d = Difficulty(steps=steps, irrelevant=(3, 3), given=(4, 4), distractors=(2, 2))
        graph = Graph.from_json(make("test", 0, difficulty=d).meta["graph"])
        assert len(graph.needed()) == steps
        assert len(graph.computed) == steps + 3
        used = {s for n in graph.needed() for s in (graph.computed[n].left, graph.computed[n].right)}
        assert len(set(graph.given) - used) == 2


def test_orders_differ_and_are_valid():
    import random

    graph = Graph.from_json(make("train", 1, seed=2, difficulty=Difficulty(steps=6)).meta["graph"])
    texts = {arithmetic.solution(random.Random(i), graph, needless=0.5) for i in range(40)}
    assert len(texts) > 3
    for text in texts:
        known = set(graph.given)
        for line in text.split("\n")[:-1]:
            said = language.read_line(line)
            assert {said.relation.left, said.relation.right} <= known
            known.add(said.target)


def test_wrong_settings_say_what_is_wrong():
    with pytest.raises(ValueError, match="stepz"):
        load("arithmetic", "train", count=1, difficulty={"stepz": 3})
    with pytest.raises(ValueError, match="split"):
        load("arithmetic", "dev", count=1)
    with pytest.raises(ValueError, match="steps"):
        Difficulty(steps=(3, 2))
    with pytest.raises(ValueError, match=r"12 steps of \+ alone add 13 numbers"):
        Difficulty(steps=12, operators="+")
    with pytest.raises(ValueError, match="unknown problem source"):
        load("arithmetics", "train")
