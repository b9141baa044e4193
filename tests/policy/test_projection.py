"""The product with a weight against einsum, and the order of its gradient's operands."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from synthrl_jax.policy.projection import project

CASES = {  # name: einsum, shape of x, shape of the weight, summed axes
    "to heads": ("btd,dhe->bthe", (2, 5, 8), (8, 3, 4), 1),
    "from heads": ("bthe,hed->btd", (2, 5, 3, 4), (3, 4, 8), 2),
    "one row": ("d,dm->m", (8,), (8, 6), 1),
}


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_einsums(name):
    form, x_shape, weight_shape, inputs = CASES[name]
    rng = np.random.default_rng(0)
    x, weight = (jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in (x_shape, weight_shape))
    y, back = jax.vjp(lambda x, weight: project(x, weight, inputs), x, weight)
    expected, expected_back = jax.vjp(lambda x, weight: jnp.einsum(form, x, weight), x, weight)
    np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-6)
    dy = jnp.asarray(rng.standard_normal(y.shape), jnp.float32)
    for found, wanted in zip(back(dy), expected_back(dy), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_the_weights_gradient_is_not_a_transposed_product():
    x, weight = jnp.ones((2, 5, 8)), jnp.ones((8, 6))

    def transposes(product):
        program = jax.make_jaxpr(jax.grad(lambda weight: (product(x, weight) ** 2).sum()))(weight)
        return str(program).count("transpose[")

    assert transposes(project) == 0
    assert transposes(jnp.matmul) == 1


def test_shapes_that_differ_are_refused():
    with pytest.raises((TypeError, ValueError)):
        project(jnp.ones((2, 5)), jnp.ones((6, 3)))
