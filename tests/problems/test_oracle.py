"""The oracle for steps against hand-made lines and an independent evaluation of the graph."""

import random
import re

import pytest
from test_arithmetic import evaluate_text

from synthrl_jax.problems.arithmetic import Difficulty, Graph, make
from synthrl_jax.problems.language import Relation
from synthrl_jax.problems.oracle import KINDS, Oracle, first_wrong_step, losing_step

# owl = fig + tea = 19; fox = owl - nut = 14; cat = fig - nut = 7 (not needed)
GRAPH = Graph(
    {"fig": 12, "tea": 7, "nut": 5},
    {"owl": Relation("fig", "+", "tea"), "fox": Relation("owl", "-", "nut"), "cat": Relation("fig", "-", "nut")},
    "fox",
)
OWL, FOX = "owl: fig 12 + tea 7, Owl is 19", "fox: owl 19 - nut 5, Fox is 14"

CASES = [
    ([OWL, FOX, "#### 14"], ["needed", "needed", "needed"], [True, True, True]),
    (["owl: tea 7 + fig 12, Owl is 19"], ["needed"], [True]),
    ([OWL, OWL], ["needed", "needless"], [True, True]),
    (["cat: fig 12 - nut 5, Cat is 7", OWL], ["needless", "needed"], [True, True]),
    ([FOX, "#### 14"], ["leap", "needed"], [True, True]),
    (["#### 14"], ["leap"], [True]),
    (["#### 15"], ["not ready"], [False]),
    ([FOX, "#### 15"], ["leap", "wrong value"], [True, False]),
    (["owl: fig 12 + tea 7, Owl is 18"], ["wrong value"], [False]),
    (["owl: fig 13 + tea 7, Owl is 20"], ["wrong value"], [False]),
    (["owl: fig 13 + tea 7, Owl is 19"], ["wrong value"], [True]),
    (["fox: owl 20 - nut 5, Fox is 15"], ["not ready"], [False]),
    (["cat: fig 12 - nut 5, Cat is 8", OWL], ["wrong value", "needed"], [True, True]),
    (["owl: fig 12 - tea 7, Owl is 5"], ["wrong relation"], [False]),
    (["cat: nut 5 - fig 12, Cat is 7"], ["wrong relation"], [True]),
    (["fig: tea 7 + nut 5, Fig is 12"], ["wrong relation"], [True]),
    (["elk: tea 7 + nut 5, Elk is 12"], ["wrong relation"], [True]),
    (["owl: fig 12 + tea 7, Fox is 19"], ["unparsable"], [True]),
    (["owl is 19", "", "Owl is 19.", "#### x"], ["unparsable"] * 3, [True] * 3),
    (
        ["owl: fig 12 + tea 7, Owl is 18", "fox: owl 18 - nut 5, Fox is 13"],
        ["wrong value", "wrong value"],
        [False, False],
    ),
]


@pytest.mark.parametrize("lines,kinds,answerable", CASES)
def test_each_kind_on_hand_made_lines(lines, kinds, answerable):
    verdicts = Oracle(GRAPH).judge("\n".join(lines))
    assert [v.kind for v in verdicts] == kinds
    assert [v.answerable for v in verdicts] == answerable


@pytest.mark.parametrize("style", [0.0, 0.25, 0.5])
def test_teacher_solutions_hold_no_wrong_line(style):
    kinds = set()
    for i in range(100):
        problem = make("train", i, seed=1, style=style, needless=0.3)
        verdicts = Oracle(problem).judge(problem.solution)
        assert first_wrong_step(verdicts) == losing_step(verdicts) == -1
        kinds |= {v.kind for v in verdicts}
    assert kinds == ({"needed", "needless"} if style == 0 else {"needed", "needless", "leap"})


def judge_again(question: str, response: str) -> tuple[list[str], list[bool]]:
    """The definition of the kinds written a second time, on strings and dictionaries only."""
    values = evaluate_text(question)
    told = dict(s.lower().split(" is ") for s in question.split("\n")[:-1])
    target = question.split(" ")[-1][:-1]
    needed, todo = set(), [target]
    while todo:
        name = todo.pop()
        if not told[name].isdigit() and name not in needed:
            needed.add(name)
            todo += re.split(r"[+-]", told[name])
    said, kinds, alive, ok = [n for n in told if told[n].isdigit()], [], [], True
    for line in response.split("\n"):
        if m := re.fullmatch(r"#### (\d+)", line):
            right, ready, use = int(m[1]) == values[target], target in said, True
            ok &= right
        elif m := re.fullmatch(r"(\w+): (\w+) (\d+) ([+-]) (\w+) (\d+), (\w+) is (\d+)", line):
            t, a, av, op, b, bv, t2, v = m.groups()
            forms = {a + op + b, b + op + a} if op == "+" else {a + op + b}
            ready, use = a in said and b in said, t in needed and t not in said
            right = a in values and b in values and (values[a], values[b], values.get(t)) == (int(av), int(bv), int(v))
            said.append(t)
            ok &= t not in needed or values[t] == int(v)
            if told.get(t) not in forms:
                kinds.append("wrong relation")
                alive.append(ok)
                continue
        else:
            kinds.append("unparsable")
            alive.append(ok)
            continue
        kinds.append(
            (("needed" if use else "needless") if ready else "leap")
            if right
            else "wrong value"
            if ready
            else "not ready"
        )
        alive.append(ok)
    return kinds, alive


def test_agrees_with_an_independent_judge_on_damaged_solutions():
    rng, seen = random.Random(0), set()
    for i in range(400):
        problem = make(
            "test", i, seed=4, difficulty=Difficulty(steps=(2, 6)), style=rng.choice([0, 0.25, 0.5]), needless=0.4
        )
        lines = problem.solution.split("\n")
        for _ in range(rng.randint(0, 3)):
            k = rng.randrange(len(lines))
            damage = rng.randrange(5)
            if damage == 0:
                lines[k] = re.sub(r"\d+$", lambda m: str((int(m[0]) + rng.randint(1, 9)) % 100), lines[k])
            elif damage == 1:
                lines[k] = lines[k].replace(" + ", " * " if rng.random() < 0.2 else " - ")
            elif damage == 2:
                lines.pop(k) if len(lines) > 1 else None
            elif damage == 3:
                rng.shuffle(lines)
            else:
                lines[k] = re.sub(r" (\d+) ", lambda m: f" {(int(m[1]) + 1) % 100} ", lines[k], count=1)
        response = "\n".join(lines)
        verdicts = Oracle(problem).judge(response)
        kinds, alive = judge_again(problem.question, response)
        assert [v.kind for v in verdicts] == kinds, response
        assert [v.answerable for v in verdicts] == alive, response
        seen |= set(kinds)
    assert seen == set(KINDS)
