"""Values of prefixes: what best-of-K of the sampling policy would score from there, and how sure we are."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from synthrl_jax.credit.backend import numeric, traced

BISECTIONS = 40


def best_of_k_value(successes, attempts, k):
    """Unbiased probability that the best of `k` rollouts is right: 1 - C(n-c, k) / C(n, k).

    successes c and attempts n: whole numbers [...], numpy or jax; k: a whole number or such an array. Returns Q [...] of
    the same kind. On the host n < k, c > n, a negative or a fractional count is a ValueError; under jit it is NaN.
    The paper's Q of best-of-K (K = 5, section 4); for n = k it is "any right".
    """
    _check(successes, attempts, k, least=k)
    xp, c, n, k = _as_arrays(successes, attempts, k)
    q = _estimate(xp, c, n, k)
    return xp.where(_sound(xp, c, n, k) & (n >= k), q, xp.nan)[()]


def value_interval(successes, attempts, k, level=0.95):
    """Interval of the best-of-`k` value that holds it with at least the given probability: (lo, hi), each [...].

    Clopper-Pearson for the rate p of right rollouts, put through the rising map 1 - (1-p)^k, and made to hold the point
    estimate of `best_of_k_value` too (for n close to k the unbiased estimate can lie above the exact upper end).
    No attempts give (0, 1); fewer than k attempts are allowed. Errors as in `best_of_k_value`.
    """
    if not traced(level) and not 0 < np.asarray(level) < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level}")
    _check(successes, attempts, k, least=0)
    xp, c, n, k = _as_arrays(successes, attempts, k)
    tail = (1 - level) / 2
    lo = xp.where(c > 0, _beta_quantile(xp, xp.maximum(c, 1), xp.maximum(n - c + 1, 1), tail), 0)
    hi = xp.where(c < n, _beta_quantile(xp, c + 1, xp.maximum(n - c, 1), 1 - tail), 1)
    lo, hi = (_best_of(xp, p, k) for p in (lo, hi))
    hi = xp.where(n >= k, xp.maximum(hi, _estimate(xp, c, n, k)), hi)
    sound = _sound(xp, c, n, k)
    return xp.where(sound, lo, xp.nan)[()], xp.where(sound, hi, xp.nan)[()]


def step_q(successes, attempts, k):
    """Q of each step and which steps have one: (q [..., S], mask bool [..., S]); q is 0 where masked.

    successes and attempts [..., S]. A step with fewer than k attempts has no value, nor have the steps after it:
    a step mask is a prefix mask.
    """
    xp = numeric(successes, attempts)
    successes, attempts = xp.asarray(successes), xp.asarray(attempts)
    mask = xp.cumprod(attempts >= k, axis=-1).astype(bool)
    q = best_of_k_value(xp.where(mask, successes, 0), xp.where(mask, attempts, k), k)
    return xp.where(mask, q, 0), mask


def _as_arrays(successes, attempts, k):
    xp = numeric(successes, attempts, k)
    dtype = xp.result_type(float)
    return xp, *xp.broadcast_arrays(*(xp.asarray(x).astype(dtype) for x in (successes, attempts, k)))


def _check(successes, attempts, k, least):
    if traced(successes, attempts, k):
        return
    c, n, k = (np.asarray(x) for x in (successes, attempts, k))
    if (k < 1).any() or (k != np.floor(k)).any():
        raise ValueError(f"k must be a whole number of at least 1, not {k}")
    if (c < 0).any() or (c != np.floor(c)).any() or (n != np.floor(n)).any():
        raise ValueError("successes and attempts must be whole numbers that are not negative")
    if (c > n).any():
        raise ValueError("more successes than attempts")
    if (n < least).any():
        raise ValueError(f"best-of-{k} needs at least {k} attempts, got {n.min()}: mask such steps first (step_q)")


def _sound(xp, c, n, k):
    return (c >= 0) & (c <= n) & (k >= 1)


def _estimate(xp, c, n, k):
    """1 - prod_j (1 - c / (n - j)), j < k, summed from positive terms so that nothing cancels."""

    def draw(j, q):
        hit = xp.clip(c / xp.maximum(n - j, 1), 0, 1)
        return xp.where(j < k, q + (1 - q) * hit, q)

    if xp is np:
        q = np.zeros_like(c)
        for j in range(int(k.max(initial=0))):
            q = draw(j, q)
        return q
    return jax.lax.fori_loop(0, jnp.max(k, initial=0).astype(int), draw, jnp.zeros_like(c))


def _best_of(xp, p, k):
    """1 - (1-p)^k, exact for small p and at p = 1."""
    inside = xp.where(p < 1, p, 0)
    return xp.where(p < 1, -xp.expm1(k * xp.log1p(-inside)), 1)


def _beta_quantile(xp, a, b, probability):
    """The x at which the regularised incomplete beta function I_x(a, b) reaches `probability`."""
    if xp is np:
        return special.betaincinv(a, b, probability)

    def halve(_, ends):
        lo, hi = ends
        middle = (lo + hi) / 2
        below = jax.scipy.special.betainc(a, b, middle) < probability
        return jnp.where(below, middle, lo), jnp.where(below, hi, middle)

    return jax.lax.fori_loop(0, BISECTIONS, halve, (jnp.zeros_like(a), jnp.ones_like(a)))[0]
