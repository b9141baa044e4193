"""What the value stage keeps of its rollouts: counts and rescues, and little else."""

import numpy as np
import pytest

from experiments.stages.values import RESCUES, Tally, in_parts, step_values, tally
from synthrl_jax.credit.example import Response
from synthrl_jax.rollouts import Completion


@pytest.mark.parametrize("part", [7, 40])
def test_counts_and_rescues_are_those_of_all_rollouts_however_they_are_parted(part):
    rng = np.random.default_rng(0)
    response = Response("p/000", "p", np.arange(12), 2, "wrong")
    spans, drawn = np.array([[2, 5], [5, 9], [9, 12]]), []
    for fork in (5, 9):
        for index in range(20):
            tokens = tuple(rng.integers(0, 2, 3).tolist())  # few distinct ones
            outcome = str(rng.choice(["correct", "wrong", "no_answer", "grader_error"]))
            drawn.append((Completion("p/000", fork, index, tokens, (0.0,) * 3, "stop"), outcome))
    forks: dict[int, Tally] = {}
    for rows in in_parts(drawn, part):
        for (_, fork), found in tally(*zip(*rows)).items():
            forks.setdefault(fork, Tally()).add(found)
    values = step_values(response, spans, forks, 20)
    for step, fork in enumerate((5, 9)):
        outcomes = [outcome for completion, outcome in drawn if completion.fork == fork]
        assert values.successes[step] == outcomes.count("correct")
        assert values.attempts[step] == 20 - outcomes.count("grader_error")
        right = [c.tokens for c, outcome in drawn if c.fork == fork and outcome == "correct"]
        expected = list(dict.fromkeys(right))[:RESCUES]
        assert [tuple(t.tolist()) for t in values.rescues[step + 1]] == expected
    assert max(map(len, values.rescues)) == RESCUES
    assert (values.successes[2], values.attempts[2]) == (0, 20)


def test_parts_hold_everything_in_order():
    assert list(in_parts(range(5), 2)) == [[0, 1], [2, 3], [4]]
