"""Credit functions compute in the kind of array that they were given: numpy on the host, jax.numpy else."""

import jax
import jax.numpy as jnp
import numpy as np


def numeric(*arrays):
    """`jax.numpy` if any of the arrays is a jax array (traced ones too), else `numpy`."""
    return jnp if any(isinstance(array, jax.Array) for array in arrays) else np


def traced(*arrays) -> bool:
    """Whether any value is known only when the compiled program runs, so that it cannot be checked here."""
    return any(isinstance(array, jax.core.Tracer) for array in arrays)


def as_float(xp, array):
    """The array as floating point: its own type if it has one, else the widest default of its kind."""
    array = xp.asarray(array)
    return array if xp.issubdtype(array.dtype, xp.floating) else array.astype(xp.result_type(float))


def check_above_zero(name: str, value) -> None:
    """ValueError unless value > 0, where it is known."""
    # By way of numpy: under jit even an operation on known jax arrays gives a traced one.
    if not traced(value) and not np.all(np.asarray(value) > 0):
        raise ValueError(f"{name} must be above 0, not {value}")
