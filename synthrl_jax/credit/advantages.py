"""Advantages of steps, pits, and the weights that they give to tokens (paper Eq. 3 and 4)."""

import numpy as np

from synthrl_jax.credit.backend import as_float, check_above_zero, numeric, traced


def step_advantages(q, v0, mask):
    """A_i = Q_i - Q_{i-1} with Q_0 = V(x) (paper Eq. 3); masked steps get 0.

    q [..., S] values after each step, v0 [...] value of the prompt, mask bool [..., S] a prefix mask. Returns [..., S].
    What masked entries of q hold (NaN too) reaches neither the result nor its gradient.
    """
    xp = numeric(q, v0, mask)
    q, v0, mask = as_float(xp, q), as_float(xp, v0), xp.asarray(mask, bool)
    first = xp.broadcast_to(v0[..., None], (*q.shape[:-1], 1))
    before = xp.concatenate([first, q], axis=-1)[..., : q.shape[-1]]
    return xp.where(mask, q, 0) - xp.where(mask, before, 0)


def first_pit(q, mask):
    """The first step that attains the lowest Q, -1 where there is no step. q [..., S], mask bool [..., S]; int [...]."""
    return _first_least(q, mask)


def least_advantage_step(a, mask):
    """The first step of least advantage, -1 where there is no step. a [..., S], mask bool [..., S]; int [...]."""
    return _first_least(a, mask)


def token_weights(a, step_ids, beta, max_weight):
    """min(exp(A / beta), max_weight) on each step's tokens, 0 where step_ids < 0 (paper Eq. 4).

    a [..., S], step_ids int [..., T]; returns [..., T]. A step id beyond S is a ValueError on the host, NaN under jit;
    so are beta <= 0 and max_weight <= 0 a ValueError where they are known.
    """
    check_above_zero("beta", beta)
    check_above_zero("max_weight", max_weight)
    xp = numeric(a, step_ids, beta, max_weight)
    exponent = _on_tokens(xp, as_float(xp, a), step_ids) / xp.asarray(beta, as_float(xp, a).dtype)
    cap = xp.log(xp.asarray(max_weight, exponent.dtype))
    # The exponent is capped before exp: an infinite weight times a zero derivative would be NaN.
    weights = xp.where(exponent >= cap, max_weight, xp.exp(xp.minimum(exponent, cap)))
    return xp.where(xp.asarray(step_ids) < 0, 0, weights).astype(exponent.dtype)


def filter_weights(a, step_ids, threshold=0.0, saturated=None):
    """Advantage filtering: 1 on the tokens of steps with A > threshold, else 0; 0 where step_ids < 0.

    a [..., S], step_ids int [..., T]; `saturated` bool [..., S] marks steps to keep although their A is 0: Q stays 1 on
    the rest of a solved response. Returns [..., T] of a's floating type. A step id beyond S as in `token_weights`.
    """
    xp = numeric(a, step_ids, threshold, saturated)
    a = as_float(xp, a)
    keep = a > threshold
    if saturated is not None:
        keep = keep | xp.asarray(saturated, bool)
    return _on_tokens(xp, keep.astype(a.dtype), step_ids)


def _first_least(values, mask):
    xp = numeric(values, mask)
    values, mask = as_float(xp, values), xp.asarray(mask, bool)
    shape = np.broadcast_shapes(values.shape, mask.shape)
    if shape[-1] == 0:
        return xp.full(shape[:-1], -1)[()]
    candidates = mask & ~xp.isnan(values)
    least = xp.argmin(xp.where(candidates, values, xp.inf), axis=-1)
    return xp.where(candidates.any(axis=-1), least, -1)[()]


def _on_tokens(xp, per_step, step_ids):
    """Each token's entry of `per_step` [..., S], 0 where step_ids [..., T] < 0."""
    steps = per_step.shape[-1]
    if not traced(step_ids) and (np.asarray(step_ids) >= steps).any():
        raise ValueError(f"step id {np.max(step_ids)} but only {steps} steps")
    step_ids = xp.asarray(step_ids)
    lead = np.broadcast_shapes(per_step.shape[:-1], step_ids.shape[:-1])
    per_step = xp.broadcast_to(per_step, (*lead, steps))
    # One column of 0 for tokens of no step, so that no step's value (or its NaN) is touched for them.
    per_step = xp.concatenate([per_step, xp.zeros((*lead, 1), per_step.dtype)], axis=-1)
    index = xp.broadcast_to(xp.where(step_ids < 0, steps, xp.minimum(step_ids, steps)), (*lead, step_ids.shape[-1]))
    return xp.where(step_ids >= steps, xp.nan, xp.take_along_axis(per_step, index, axis=-1)).astype(per_step.dtype)
