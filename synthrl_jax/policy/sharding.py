"""Meshes, and the table from a parameter's path to its logical axes (those to mesh axes: axes.py)."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from synthrl_jax.policy import decoder
from synthrl_jax.policy.axes import MESH_AXES, RULES

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

# dimensions that a matrix contracts: its low-rank adapter splits the rest from them
CONTRACTED = {"q": 1, "k": 1, "v": 1, "o": 2, "gate": 1, "up": 1, "down": 1}
LOGICAL |= {f"{name}_lora_a": (*LOGICAL[name][:inputs], "rank") for name, inputs in CONTRACTED.items()}
LOGICAL |= {f"{name}_lora_b": ("rank", *LOGICAL[name][inputs:]) for name, inputs in CONTRACTED.items()}


def make_mesh(data: int = -1, fsdp: int = 1, tensor: int = 1, devices=None) -> Mesh:
    """Mesh of axes data, fsdp, tensor over the devices; one size may be -1 and takes what the others leave.

    On several TPU slices `data` spans them: only its sums cross the data-centre network.
    """
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
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices > 1:
        if sizes["data"] % slices:
            raise ValueError(f"mesh {sizes}: data must be a multiple of the {slices} slices")
        from jax.experimental import mesh_utils

        inside = (sizes["data"] // slices, sizes["fsdp"], sizes["tensor"])
        grid = mesh_utils.create_hybrid_device_mesh(inside, (slices, 1, 1), devices=devices)
        return Mesh(grid, MESH_AXES, axis_types=axis_types)
    return jax.make_mesh(tuple(sizes.values()), MESH_AXES, axis_types=axis_types, devices=devices)


def specs(config: decoder.DecoderConfig, shapes: decoder.Params | None = None) -> decoder.Params:
    """PartitionSpec of each parameter, same tree as `decoder.init` gives, or as `shapes` (some of them, or adapters too)."""

    def spec(path, leaf):
        keys = [entry.key for entry in path]
        logical = (("layers",) if keys[0] == "layers" else ()) + LOGICAL[keys[-1]]
        return PartitionSpec(*(RULES[axis] for axis in logical))

    return jax.tree_util.tree_map_with_path(spec, decoder.shapes(config) if shapes is None else shapes)


def shardings(config: decoder.DecoderConfig, mesh: Mesh, shapes: decoder.Params | None = None) -> decoder.Params:
    """NamedSharding of each parameter; ValueError names a parameter whose axis does not divide over the mesh."""
    shapes = decoder.shapes(config) if shapes is None else shapes

    def sharding(path, leaf, spec):
        for size, axis in zip(leaf.shape, spec):
            if axis is not None and size % mesh.shape[axis]:
                name = "/".join(entry.key for entry in path)
                raise ValueError(
                    f"{name} {leaf.shape}: {size} does not divide over mesh axis {axis} = {mesh.shape[axis]}"
                )
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(sharding, shapes, specs(config, shapes))


def state_shardings(transform, params: decoder.Params, shardings: decoder.Params, mesh: Mesh):
    """NamedShardings of an optax state: moments lie as their parameters, factored ones as the dimensions that they keep, and
    counters on every device."""
    import optax

    everywhere = NamedSharding(mesh, PartitionSpec())

    def like(leaf, param, sharding):
        kept = list(sharding.spec) + [None] * (param.ndim - len(sharding.spec))
        if leaf.shape == param.shape:
            return sharding
        for dropped in range(param.ndim):
            if leaf.shape == param.shape[:dropped] + param.shape[dropped + 1 :]:
                return NamedSharding(mesh, PartitionSpec(*kept[:dropped], *kept[dropped + 1 :]))
        return everywhere

    state = jax.eval_shape(transform.init, params)
    return optax.tree_utils.tree_map_params(
        transform, like, state, params, shardings, transform_non_params=lambda _: everywhere
    )


def batch_sharding(mesh: Mesh, micro: bool = False) -> NamedSharding:
    """Sharding of [batch, ...] arrays, or of [micro-batch, batch, ...] ones: rows over data and fsdp."""
    return NamedSharding(mesh, PartitionSpec(*([None] if micro else []), RULES["batch"]))


def put_batch(mesh: Mesh, array) -> jax.Array:
    """A host array [micro-batch, rows, ...], the same on every process, on the mesh: rows split where they divide."""
    ways = int(np.prod([mesh.shape[axis] for axis in RULES["batch"]]))
    where = batch_sharding(mesh, micro=True)
    if array.ndim < 2 or array.shape[1] % ways:
        where = NamedSharding(mesh, PartitionSpec())
    return jax.make_array_from_callback(array.shape, where, lambda index: array[index])
