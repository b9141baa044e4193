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


def test_what_is_frozen_gets_no_gradient():
    x, frozen, trained = jnp.ones((2, 5, 8)), jnp.ones((8, 6)), jnp.ones((8, 8))

    def products(argnums):
        gradient = jax.grad(lambda a, w: (project(project(x, a), w) ** 2).sum(), argnums)
        return str(jax.make_jaxpr(gradient)(trained, frozen)).count("dot_general")

    assert products((0, 1)) == 2 + 3  # x itself needs none
    assert products(0) == 2 + 2
    assert products(1) == 2 + 1


@pytest.mark.parametrize("order", [(0, 1, (0, 1)), ((0, 1), 0, 1), (1, (0, 1), 0)], ids=str)
def test_one_traced_function_serves_every_choice_of_what_is_trained(order):
    rng = np.random.default_rng(0)
    x, first, second = (jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in ((3, 8), (2, 8, 8), (8, 6)))

    def loss(product):
        @jax.jit
        def layers(first, second):
            h, _ = jax.lax.scan(lambda h, w: (jnp.tanh(product(h, w)), None), x, first)
            return (product(h, second) ** 2).sum()

        return layers

    ours, plain = loss(project), loss(jnp.matmul)
    for argnums in order:
        found, wanted = (jax.jit(jax.grad(f, argnums))(first, second) for f in (ours, plain))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, wanted)
        assert all(jnp.abs(g).max() > 0 for g in jax.tree.leaves(found))
