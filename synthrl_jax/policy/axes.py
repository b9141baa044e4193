"""Mesh axes, and the one table from logical axes to them; what both the decoder and its shardings read."""

import jax
from jax.sharding import PartitionSpec

MESH_AXES = ("data", "fsdp", "tensor")

RULES = {
    "batch": ("data", "fsdp"),
    "vocab": "tensor",
    "width": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "mlp": "tensor",
    "head": None,
    "norm": None,
    "rank": None,
    "layers": None,
}


def spec(*logical: str | None) -> PartitionSpec:
    """The mesh axes of logical ones; None and names without a mesh axis are not split."""
    return PartitionSpec(*(RULES[axis] if axis else None for axis in logical))


def ambient_size(axis: str) -> int:
    """How many ways the mesh of `jax.set_mesh` splits a mesh axis; 1 without a mesh."""
    return jax.sharding.get_abstract_mesh().shape.get(axis, 1)


def constrain(x: jax.Array, *logical: str | None) -> jax.Array:
    """`x` laid out by its logical axes on the mesh of `jax.set_mesh`; as it is without one, or where an axis does not divide."""
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.shape:
        return x
    parts = []
    for size, part in zip(x.shape, spec(*logical)):
        names = part if isinstance(part, tuple) else (part,) if part else ()
        ways = 1
        for name in names:
            ways *= mesh.shape.get(name, 1)
        parts.append(part if ways > 1 and size % ways == 0 else None)
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*parts))
