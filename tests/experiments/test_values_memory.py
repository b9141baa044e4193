"""What the value stage keeps of its rollouts: enough for the same counts and rescues, and little else."""

import numpy as np

from experiments.stages.values import RESCUES, in_parts, slim, step_values
from synthrl_jax.credit.example import Response
from synthrl_jax.rollouts import Completion


def test_counts_and_rescues_are_those_of_all_tokens():
    rng = np.random.default_rng(0)
    response = Response("p/000", "p", np.arange(12), 2, "wrong")
    spans, rescued, whole, slimmed = np.array([[2, 5], [5, 9], [9, 12]]), {}, [], []
    for fork in (5, 9):
        for index in range(20):
            tokens = tuple(rng.integers(0, 2, 3).tolist())  # few distinct ones
            completion = Completion("p/000", fork, index, tokens, (0.0,) * 3, "stop")
            outcome = str(rng.choice(["correct", "wrong", "no_answer", "grader_error"]))
            whole.append((completion, outcome))
            slimmed.append((slim(completion, outcome, rescued), outcome))
    one, other = (step_values(response, spans, graded, 20) for graded in (whole, slimmed))
    assert np.array_equal(one.successes, other.successes) and np.array_equal(one.attempts, other.attempts)
    for first, second in zip(one.rescues, other.rescues):
        assert [t.tolist() for t in first] == [t.tolist() for t in second]
    assert max(len(found) for found in one.rescues) == RESCUES
    assert sum(bool(c.tokens) for c, _ in slimmed) < len(whole) / 2


def test_parts_hold_everything_in_order():
    assert list(in_parts(range(5), 2)) == [[0, 1], [2, 3], [4]]
