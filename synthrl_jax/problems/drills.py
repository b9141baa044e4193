"""What the shipped base model is pre-trained on: facts, look-ups, and problems of one to three steps. Never four or more."""

import dataclasses
import random
from collections.abc import Sequence

from synthrl_jax.problems import arithmetic, language
from synthrl_jax.problems.arithmetic import Difficulty
from synthrl_jax.problems.language import Relation

MOST_STEPS = 3  # the evaluation's problems begin at four
MAIN = Difficulty()


@dataclasses.dataclass(frozen=True)
class Drill:
    """A text to learn from. counted: `response` (all of it), or `values` (only what follows each `Name is `); ends: whether an
    end of sequence follows."""

    prompt: str
    response: str
    counted: str = "response"
    ends: bool = False


def facts(rng: random.Random, task: Difficulty = MAIN, lines: int = 8) -> Drill:
    """Solution lines of quantities that nothing defines: only the sums and differences can be learnt."""
    out = []
    for _ in range(lines):
        target, value = rng.choice(language.COMPUTED_NAMES), -1
        while not task.min_value <= value <= task.max_value:
            left, right = (rng.randint(task.min_value, task.max_value) for _ in range(2))
            op = rng.choice(task.operators)
            value = language.OPERATORS[op](left, right)
        parts = rng.sample(sorted({*language.GIVEN_NAMES, *language.COMPUTED_NAMES} - {target}), 2)
        relation = Relation(parts[0], op, parts[1])
        out.append(language.state(target, relation, {parts[0]: left, parts[1]: right, target: value}))
    return Drill("", "\n".join(out), counted="values")


def lookups(rng: random.Random, task: Difficulty = MAIN, most_given: int = 6, most_computed: int = 8) -> Drill:
    """Definitions without a question; every one-operation quantity is solved, in random order. How many varies: a short list of
    definitions is where looking up is first learnt."""
    given = {
        name: rng.randint(task.min_value, task.max_given)
        for name in rng.sample(language.GIVEN_NAMES, rng.randint(2, most_given))
    }
    values, computed = dict(given), {}
    for name in rng.sample(language.COMPUTED_NAMES, rng.randint(1, most_computed)):
        arithmetic.assign(rng, name, tuple(rng.sample(sorted(given), 2)), values, computed, task)
    sentences = [language.define(name, meaning) for name, meaning in [*given.items(), *computed.items()]]
    rng.shuffle(sentences)
    order = rng.sample(sorted(computed), len(computed))
    lines = [language.state(name, computed[name], values) for name in order]
    return Drill("\n".join(sentences) + "\n", "\n".join(lines))


def short_problem(rng: random.Random, index: int, styles: Sequence[float], task: Difficulty = MAIN) -> Drill:
    """A problem of one to three steps in one of the teacher's styles; numbers and distractors as in the task's problems."""
    steps = rng.randint(1, MOST_STEPS)
    difficulty = dataclasses.replace(task, steps=steps, irrelevant=(0, 3))
    problem = arithmetic.make("pretrain", index, seed=7 + steps, difficulty=difficulty, style=rng.choice(styles))
    return Drill(problem.question + "\n", problem.solution, ends=True)
