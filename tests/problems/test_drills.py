"""What the base model is pre-trained on: right statements, never four steps."""

import random

from test_arithmetic import evaluate_text

from synthrl_jax.problems import drills, language
from synthrl_jax.problems.arithmetic import SHARES
from synthrl_jax.problems.problem import content_share


def test_facts_are_right_and_defined_nowhere():
    drill = drills.facts(random.Random(0), lines=200)
    for line in drill.response.split("\n"):
        said = language.read_line(line)
        assert said.value == said.relation.value(
            {said.relation.left: said.left_value, said.relation.right: said.right_value}
        )
        assert 10 <= said.value <= 99
    assert drill.prompt == "" and drill.counted == "values"


def test_lookups_solve_every_definition_once_from_given_numbers():
    for i in range(50):
        drill = drills.lookups(random.Random(i))
        values = evaluate_text(drill.prompt + "What is x?")
        said = [language.read_line(line) for line in drill.response.split("\n")]
        told = {s.partition(" is ")[0].lower(): s.partition(" is ")[2] for s in drill.prompt.strip().split("\n")}
        assert {s.target for s in said} == {name for name, meaning in told.items() if not meaning.isdigit()}
        assert all(values[s.target] == s.value and told[s.relation.left].isdigit() for s in said)


def test_no_drill_needs_four_steps_and_none_is_a_problem_of_another_split():
    low, high = SHARES["pretrain"]
    for i in range(200):
        drill = drills.short_problem(random.Random(i), i, (0.0, 0.5))
        assert (
            1 <= len([line for line in drill.response.split("\n") if not line.startswith("#")]) <= drills.MOST_STEPS + 7
        )
        assert low <= content_share(drill.prompt.strip()) < high


def test_the_needed_steps_of_short_problems_are_one_to_three():
    from synthrl_jax.problems.arithmetic import Graph, make

    seen = set()
    for i in range(100):
        rng = random.Random(i)
        steps = random.Random(i).randint(1, drills.MOST_STEPS)
        drill = drills.short_problem(rng, i, (0.0,))
        difficulty = drills.Difficulty(steps=steps, irrelevant=(0, 3))
        problem = make("pretrain", i, seed=7 + steps, difficulty=difficulty)
        assert problem.question + "\n" == drill.prompt
        seen.add(len(Graph.from_json(problem.meta["graph"]).needed()))
    assert seen == {1, 2, 3}
