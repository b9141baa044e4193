"""FLOPs of a traced program, loop bodies multiplied out; XLA's own cost analysis counts a body once."""

import math

import jax
from jax.extend import core


def flops(function, *arguments, trips: int = 1, **named) -> float:
    """FLOPs of all matrix products of `function` at these (abstract) arguments, over all devices.

    2 for each multiplication and addition; scans count their length, while loops `trips` (their number of rounds is data),
    conditionals their dearer branch. A Pallas kernel counts once for each point of its grid.
    """
    traced = function.trace(*arguments, **named) if hasattr(function, "trace") else jax.jit(function).trace(*arguments)
    return of_jaxpr(traced.jaxpr.jaxpr, trips)


def of_jaxpr(jaxpr: core.Jaxpr, trips: int) -> float:
    """FLOPs of a jaxpr's matrix products."""
    return sum(of_equation(eqn, trips) for eqn in jaxpr.eqns)


def of_equation(eqn, trips: int) -> float:
    name, params = eqn.primitive.name, eqn.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        depth = math.prod(eqn.invars[0].aval.shape[axis] for axis in contracted)
        return 2.0 * depth * math.prod(eqn.outvars[0].aval.shape)
    if name == "ragged_dot" or name.startswith("conv_general"):
        raise NotImplementedError(f"{name} is not counted")
    if name == "cond":
        return max(of_jaxpr(branch.jaxpr, trips) for branch in params["branches"])
    inside = sum(of_jaxpr(jaxpr, trips) for jaxpr in subjaxprs(params))
    if name == "scan":
        return inside * params["length"]
    if name == "while":
        return inside * trips
    if name == "pallas_call":
        return inside * math.prod(params["grid_mapping"].grid)
    if name == "shard_map":
        mesh = params["mesh"]
        manual = params.get("manual_axes") or mesh.axis_names
        return inside * math.prod(mesh.shape[axis] for axis in manual)
    return inside


def subjaxprs(params):
    """Every jaxpr among an equation's parameters."""
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, core.ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, core.Jaxpr) or hasattr(item, "eqns"):
                yield item
