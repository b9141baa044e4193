"""The product of activations with a weight, and its gradient in the operand order that costs no transposed copies."""

import functools

import jax
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.custom_derivatives import SymbolicZero

EMPTY = np.zeros((0,), np.float32)
PRODUCT = "product"  # the name under which rematerialisation may keep a product


def project(x: jax.Array, weight: jax.Array, inputs: int = 1) -> jax.Array:
    """x [..., *I] times weight [*I, *O], summed over the `inputs` axes I: [..., *O]. ValueError or TypeError: they differ.

    Reverse mode only. JAX's own rule asks for the weight's gradient as dy x and transposes it; on CPU XLA then writes
    dy down its columns: with 2,048 tokens a step of SwiGLU at width 768 takes 1.4 times as long as with x dy.
    """
    return checkpoint_name(
        _product(x, weight, inputs), PRODUCT
    )  # a policy that keeps products sees none in a custom rule


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _product(x, weight, inputs):
    contracted = tuple(range(x.ndim - inputs, x.ndim)), tuple(range(inputs))
    return jax.lax.dot_general(x, weight, (contracted, ((), ())))


def _forward(x, weight, inputs):
    # what is frozen (the base model beside adapters) gets no gradient, and what only its gradient needs is not kept; empty
    # in place of None, for jax remembers the structure of what a call kept first
    kept = x.value if weight.perturbed else EMPTY, weight.value if x.perturbed else EMPTY
    return _product(x.value, weight.value, inputs), kept


def _backward(inputs, kept, dy):
    x, weight = kept
    if isinstance(dy, SymbolicZero):
        return None, None
    dx = dweight = None
    if weight.shape != EMPTY.shape:
        outputs = tuple(range(inputs, weight.ndim))
        dx = jax.lax.dot_general(dy, weight, ((tuple(range(dy.ndim - len(outputs), dy.ndim)), outputs), ((), ())))
    if x.shape != EMPTY.shape:
        rows = tuple(range(x.ndim - inputs))
        dweight = jax.lax.dot_general(x, dy, ((rows, rows), ((), ())))
    return dx, dweight


_product.defvjp(_forward, _backward, symbolic_zeros=True)
