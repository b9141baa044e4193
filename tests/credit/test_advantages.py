"""Advantages, pits and token weights: definitions written out in loops, and the edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthrl_jax.credit.advantages import (
    filter_weights,
    first_pit,
    least_advantage_step,
    step_advantages,
    token_weights,
)
from synthrl_jax.credit.values import best_of_k_value

NAN = np.nan
rows = st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), max_size=6)


@given(rows, st.sampled_from([0.0, 0.5, 1.0]), st.data())
@settings(max_examples=150, deadline=None)
def test_definitions_hold_and_masked_entries_do_not_matter(q, v0, data):
    steps = data.draw(st.integers(0, len(q)))
    a = [q[i] - (q[i - 1] if i else v0) for i in range(steps)]
    mask = np.arange(len(q)) < steps
    poisoned = np.where(mask, q, NAN)
    found = step_advantages(poisoned, v0, mask)
    np.testing.assert_array_equal(found, a + [0] * (len(q) - steps))
    assert first_pit(poisoned, mask) == (q.index(min(q[:steps])) if steps else -1)
    assert least_advantage_step(np.where(mask, found, NAN), mask) == (a.index(min(a)) if steps else -1)
    if steps:
        np.testing.assert_allclose(found.sum(), q[steps - 1] - v0, atol=1e-12)


def test_pits_and_least_advantage_coincide_where_q_falls_from_1_to_0():
    q, mask = np.array([1.0, 1, 0, 0]), np.ones(4, bool)
    assert first_pit(q, mask) == 2 == least_advantage_step(step_advantages(q, 1.0, mask), mask)


def test_ties_take_the_first_step():
    mask = np.ones(4, bool)
    assert first_pit(np.array([0.5, 0.2, 0.2, 0.2]), mask) == 1
    assert least_advantage_step(np.array([0.1, -0.3, 0.0, -0.3]), mask) == 1
    assert first_pit(np.zeros(4), mask) == 0


@pytest.mark.parametrize("xp", [np, jnp])
def test_no_step_and_one_step(xp):
    none, one = xp.zeros(1, bool), xp.ones(1, bool)
    assert first_pit(xp.zeros(1), none) == -1 == least_advantage_step(xp.zeros(1), none)
    assert first_pit(xp.zeros(0), xp.zeros(0, bool)) == -1
    assert first_pit(xp.zeros((3, 0)), xp.zeros((3, 0), bool)).tolist() == [-1, -1, -1]
    assert first_pit(xp.ones(1), one) == 0
    assert step_advantages(xp.zeros(1), 0.75, one).tolist() == [-0.75]
    assert step_advantages(xp.zeros((2, 0)), xp.ones(2), xp.zeros((2, 0), bool)).shape == (2, 0)
    assert token_weights(xp.zeros(0), xp.full(3, -1), 1.0, 2.0).tolist() == [0, 0, 0]


def test_batches_jit_and_vmap_equal_the_host():
    rng = np.random.default_rng(1)
    q, v0 = rng.random((2, 3, 5)), rng.random((2, 3))
    mask = np.arange(5) < rng.integers(0, 6, (2, 3, 1))
    ids = np.where(mask.any(-1, keepdims=True), rng.integers(-1, 5, (2, 3, 7)), -1)
    a = step_advantages(q, v0, mask)
    functions = [
        (step_advantages, (q, v0, mask)),
        (first_pit, (q, mask)),
        (least_advantage_step, (a, mask)),
        (lambda a, ids: token_weights(a, ids, 0.3, 2.0), (a, ids)),
        (lambda a, ids: filter_weights(a, ids, 0.1, a > 0.5), (a, ids)),
    ]
    for function, arguments in functions:
        host = function(*arguments)
        assert isinstance(host, np.ndarray)
        for transform in (jax.jit, lambda f: jax.jit(jax.vmap(jax.vmap(f)))):
            found = transform(function)(*arguments)
            assert isinstance(found, jax.Array) and found.shape == host.shape
            np.testing.assert_allclose(found, host, rtol=2e-5, atol=1e-6)
        one = function(*(x[1, 2] for x in arguments))
        np.testing.assert_allclose(one, host[1, 2], rtol=1e-12)


def test_token_weights_are_capped_exponentials_on_their_steps():
    a = np.array([0.5, -1.0, 40.0])
    found = token_weights(a, np.array([-1, 0, 0, 1, 2, -1]), beta=0.5, max_weight=20.0)
    np.testing.assert_allclose(found, [0, np.e, np.e, np.exp(-2), 20, 0])


@pytest.mark.parametrize("xp", [np, jnp])
def test_nan_of_a_masked_step_reaches_no_other_token(xp):
    a, ids = xp.asarray([NAN, 0.5, NAN]), xp.asarray([-1, 1, 1])
    assert not np.isnan(np.asarray(token_weights(a, ids, 1.0, 10.0))).any()
    assert filter_weights(a, ids).tolist() == [0, 1, 1]
    assert np.isnan(np.asarray(token_weights(a, xp.asarray([0, 1, 1]), 1.0, 10.0))[0])


def test_gradients_stay_finite_beside_nan_and_overflow():
    mask, ids = jnp.array([True, True, False]), jnp.array([-1, 0, 1])

    def total(q, v0):
        a = step_advantages(q, v0, mask)
        return token_weights(a, ids, 0.001, 5.0).sum() + token_weights(a, ids, 1.0, 5.0).sum()

    gradients = jax.grad(total, (0, 1))(jnp.array([0.9, 0.4, NAN]), jnp.float32(0.1))
    # Step 0 is at the cap for beta .001; step 1 of A -.5 gives exp(-500) there.
    w = np.exp([0.8, -0.5])
    np.testing.assert_allclose(gradients[0], [w[0] - w[1], w[1], 0], rtol=1e-5)
    np.testing.assert_allclose(gradients[1], -w[0], rtol=1e-5)
    masked = jax.grad(lambda a: token_weights(a, jnp.array([-1, -1]), 1.0, 5.0).sum())(jnp.array([NAN, 1.0]))
    np.testing.assert_array_equal(masked, [0, 0])


def test_filter_keeps_rising_and_saturated_steps():
    a, ids = np.array([0.3, 0.0, -0.2, 0.0]), np.array([-1, 0, 1, 2, 3, 3])
    assert filter_weights(a, ids).tolist() == [0, 1, 0, 0, 0, 0]
    assert filter_weights(a, ids, threshold=0.3).tolist() == [0] * 6
    assert filter_weights(a, ids, saturated=np.array([False, False, False, True])).tolist() == [0, 1, 0, 0, 1, 1]


def test_wrong_use_raises():
    a, ids = np.zeros(2), np.array([0, 2])
    with pytest.raises(ValueError, match="step id 2"):
        token_weights(a, ids, 1.0, 2.0)
    with pytest.raises(ValueError, match="step id 2"):
        filter_weights(jnp.asarray(a), jnp.asarray(ids))
    assert np.isnan(jax.jit(lambda a, ids: token_weights(a, ids, 1.0, 2.0))(a, ids)).tolist() == [False, True]
    with pytest.raises(ValueError, match="beta"):
        token_weights(a, ids, 0.0, 2.0)
    with pytest.raises(ValueError, match="max_weight"):
        token_weights(a, ids, 1.0, -1.0)


def test_known_jax_arrays_may_be_closed_over_under_jit():
    a, ids, beta = jnp.array([0.5, -1.0]), jnp.array([0, 1, -1]), jnp.float32(0.5)
    found = jax.jit(lambda scale: scale * token_weights(a, ids, beta, jnp.float32(9.0)) + filter_weights(a, ids))(2.0)
    np.testing.assert_allclose(found, [2 * np.e + 1, 2 * np.exp(-2), 0], rtol=1e-6)
    q = jax.jit(lambda scale: scale * best_of_k_value(jnp.array([1]), jnp.array([5]), 5))(2.0)
    np.testing.assert_allclose(q, [2])


def test_types_follow_the_values():
    mask = np.ones(2, bool)
    assert step_advantages(np.zeros(2, np.float32), np.float32(1), mask).dtype == np.float32
    assert step_advantages(np.array([0, 1]), np.int64(1), mask).dtype == np.float64
    assert token_weights(np.zeros(2, np.float32), np.array([0, 1]), 0.1, 3.0).dtype == np.float32
