"""From the counts of a response to its credit: Q, advantages and the pit, by a rule that a config names."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from synthrl_jax.credit.advantages import first_pit, least_advantage_step, step_advantages
from synthrl_jax.credit.example import StepValues
from synthrl_jax.credit.values import step_q
from synthrl_jax.named import resolve

# A pit rule takes (q [S], a [S], mask [S]) and returns the pit's index, -1 for none.
PIT_RULES: dict[str, Callable] = {
    "first_pit": lambda q, a, mask: first_pit(q, mask),
    "least_advantage": lambda q, a, mask: least_advantage_step(a, mask),
}


@dataclass(frozen=True, eq=False)
class StepCredit:
    """Credit of a response's S steps: q, advantage float [S], mask bool [S], value of the prompt, the pit (-1: none)."""

    q: np.ndarray
    advantage: np.ndarray
    mask: np.ndarray
    prompt_value: float
    pit: int

    def value_before(self, step: int) -> float:
        """V of the prefix that ends before `step`."""
        return float(self.q[step - 1]) if step > 0 else self.prompt_value


def assign(values: StepValues, prompt_value: float, k: int, pit_rule: str | Callable = "first_pit") -> StepCredit:
    """Credit of one response under best-of-`k` (paper Eq. 3).

    prompt_value: V(x) by the same estimator from the sample stage's counts. pit_rule: a word of PIT_RULES,
    "module:function" or a function (q, a, mask) -> index. ValueError if it names a step that does not exist.
    """
    q, mask = step_q(values.successes, values.attempts, k)
    a = step_advantages(q, prompt_value, mask)
    pit = int(resolve(pit_rule, PIT_RULES, kind="pit rule")(q, a, mask))
    if not -1 <= pit < len(q) or (pit >= 0 and not mask[pit]):
        raise ValueError(f"pit rule {pit_rule!r} chose step {pit} of {values.root_id}, which has no value")
    return StepCredit(q, a, mask, float(prompt_value), pit)
