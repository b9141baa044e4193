"""Rows for the methods that weigh steps by their advantage: advantage-weighted RL and advantage filtering."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from synthrl_jax.credit.advantages import filter_weights
from synthrl_jax.credit.assignment import StepCredit
from synthrl_jax.credit.example import Example, Response, StepValues


def advantage_example(
    response: Response, values: StepValues, credit: StepCredit, meta: Mapping[str, Any] | None = None
) -> Example | None:
    """The row for Eq. 4, with arrays `advantage` [S] and `step_ids` [T]; None where no step counts.

    Steps without a value do not count, nor do those after a wrong response's pit: their A is 0 and exp(0) = 1 would
    clone them.
    """
    after_pit = (response.outcome != "correct") & (credit.pit >= 0) & (np.arange(len(credit.q)) > credit.pit)
    step_ids = _step_ids(response, values, credit.mask & ~after_pit)
    if (step_ids < 0).all():
        return None
    arrays = {"advantage": credit.advantage.astype(np.float32), "step_ids": step_ids}
    return Example(response.tokens, step_ids >= 0, meta=_about(response, values, meta), arrays=arrays)


def filtered_example(
    response: Response,
    values: StepValues,
    credit: StepCredit,
    threshold: float = 0.0,
    meta: Mapping[str, Any] | None = None,
) -> Example | None:
    """The row for fine-tuning on the steps with A > threshold, or on which Q stays 1, each given its prefix.

    Right and wrong responses alike; the mask holds the kept steps' tokens. None where no step is kept.
    """
    before = np.concatenate([[credit.prompt_value], credit.q])[:-1]
    saturated = credit.mask & (credit.q == 1) & (before == 1)
    step_ids = _step_ids(response, values, credit.mask)
    mask = filter_weights(credit.advantage, step_ids, threshold, saturated) > 0
    if not mask.any():
        return None
    return Example(response.tokens, mask, meta=_about(response, values, meta))


def _step_ids(response: Response, values: StepValues, counted: np.ndarray) -> np.ndarray:
    """int32 [T]: the step of each token, -1 outside the counted ones (bool [S])."""
    step_ids = np.full(len(response.tokens), -1, np.int32)
    for step in np.flatnonzero(counted):
        start, end = values.spans[step]
        step_ids[start:end] = step
    return step_ids


def _about(response: Response, values: StepValues, meta: Mapping[str, Any] | None) -> dict:
    counts = {"successes": values.successes.tolist(), "attempts": values.attempts.tolist()}
    return {"problem_id": response.problem_id, "response_id": response.id, **counts, **(meta or {})}
