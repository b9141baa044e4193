"""Meshes, and the one table from a parameter's path to its logical axes and from those to mesh axes."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from synthrl_jax.policy import decoder

MESH_AXES = ("data", "fsdp", "tensor")

# parameter (last key of its path, layers' leading axis aside) -> one logical axis per dimension
LOGICAL = {
    "embed": ("vocab", "width"),
    "unembed": ("width", "vocab"),
    "q": ("width", "heads", "head"),
    "k": ("width", "kv_heads", "head"),
    "v": ("width", "kv_heads", "head"),
    "q_bias": ("heads", "head"),
    "k_bias": ("kv_heads", "head"),
    "v_bias": ("kv_heads", "head"),
    "o": ("heads", "head", "width"),
    "gate": ("width", "mlp"),
    "up": ("width", "mlp"),
    "down": ("mlp", "width"),
    "scale": ("norm",),
}

RULES = {
    "batch": ("data", "fsdp"),
    "vocab": "tensor",
    "width": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "mlp": "tensor",
    "head": None,
    "norm": None,
    "layers": None,
}


def make_mesh(data: int = -1, fsdp: int = 1, tensor: int = 1, devices=None) -> Mesh:
    """Mesh of axes data, fsdp, tensor over the devices; one size may be -1 and takes what the others leave."""
    devices = jax.devices() if devices is None else list(devices)
    sizes = {"data": data, "fsdp": fsdp, "tensor": tensor}
    free = [name for name, size in sizes.items() if size == -1]
    if len(free) > 1 or any(size < 1 and size != -1 for size in sizes.values()):
        raise ValueError(f"mesh sizes must be positive, at most one of them -1: {sizes}")
    taken = int(np.prod([size for size in sizes.values() if size != -1]))
    if len(devices) % taken or (not free and taken != len(devices)):
        raise ValueError(f"mesh {sizes} does not fit {len(devices)} devices")
    if free:
        sizes[free[0]] = len(devices) // taken
    # Auto: with the default, explicit axes, sharded contractions and gathers raise
    axis_types = (AxisType.Auto,) * len(MESH_AXES)
    return jax.make_mesh(tuple(sizes.values()), MESH_AXES, axis_types=axis_types, devices=devices)


def specs(config: decoder.DecoderConfig) -> decoder.Params:
    """PartitionSpec of each parameter, same tree as `decoder.init` gives."""

    def spec(path, leaf):
        keys = [entry.key for entry in path]
        logical = (("layers",) if keys[0] == "layers" else ()) + LOGICAL[keys[-1]]
        return PartitionSpec(*(RULES[axis] for axis in logical))

    return jax.tree_util.tree_map_with_path(spec, decoder.shapes(config))


def shardings(config: decoder.DecoderConfig, mesh: Mesh) -> decoder.Params:
    """NamedSharding of each parameter; ValueError names a parameter whose axis does not divide over the mesh."""

    def sharding(path, leaf, spec):
        for size, axis in zip(leaf.shape, spec):
            if axis is not None and size % mesh.shape[axis]:
                name = "/".join(entry.key for entry in path)
                raise ValueError(
                    f"{name} {leaf.shape}: {size} does not divide over mesh axis {axis} = {mesh.shape[axis]}"
                )
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(sharding, decoder.shapes(config), specs(config))


def batch_sharding(mesh: Mesh, micro: bool = False) -> NamedSharding:
    """Sharding of [batch, ...] arrays, or of [micro-batch, batch, ...] ones: rows over data and fsdp."""
    return NamedSharding(mesh, PartitionSpec(*([None] if micro else []), RULES["batch"]))
