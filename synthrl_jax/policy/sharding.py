"""Meshes, and the table from a parameter's path to its logical axes (those to mesh axes: axes.py)."""

import functools
import math
from collections.abc import Sequence

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


def mesh_of(params: decoder.Params) -> Mesh | None:
    """The mesh that parameters lie on, None for one device."""
    where = getattr(jax.tree.leaves(params)[0], "sharding", None)
    mesh = getattr(where, "mesh", None)
    return mesh if isinstance(mesh, Mesh) and mesh.size > 1 else None


def decoding_sizes(config: decoder.DecoderConfig, ways: int, devices: int) -> dict[str, int]:
    """Mesh sizes on which a policy samples: its weights `ways` ways over `tensor`, so that no step gathers any.

    Where the decoder's dimensions do not divide so far, fsdp takes the rest of the ways, and `data` what is left of the devices.
    """
    common = math.gcd(ways, devices)
    split = (config.vocab_size, config.heads, config.kv_heads, config.mlp_width)
    tensor = max(n for n in range(1, common + 1) if common % n == 0 and all(size % n == 0 for size in split))
    fsdp = math.gcd(common // tensor, config.width)
    return {"data": devices // tensor // fsdp, "fsdp": fsdp, "tensor": tensor}


def fits(config: decoder.DecoderConfig, tensor: int, devices) -> bool:
    """Whether decoding weights split `tensor` ways take at most half of each device's memory, as far as it tells its size."""
    size = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(decoder.shapes(config)))
    room = [(device.memory_stats() or {}).get("bytes_limit") for device in devices[:1]]
    return not room[0] or size * np.dtype(config.dtype).itemsize / tensor <= room[0] / 2


def sampling_mesh(config: decoder.DecoderConfig, sizes: dict[str, int] | None = None) -> Mesh | None:
    """The mesh on which this process samples and scores with a policy; None: one device.

    sizes: the mesh of training; weights are split as many ways as its fsdp and tensor say, over this process's own devices, or
    with all the others where these are too small. None, or one device: every chip of the host (on CPU one device).
    """
    own = jax.local_devices()
    asked = {"data": 1, "fsdp": 1, "tensor": 1} | dict(sizes or {})
    if -1 in asked.values():
        known = math.prod(size for size in asked.values() if size != -1)
        asked = {axis: max(1, jax.device_count() // known) if size == -1 else size for axis, size in asked.items()}
    ways = asked["fsdp"] * asked["tensor"]
    if math.prod(asked.values()) == 1:
        if jax.default_backend() == "cpu":
            return None
        ways = len(own)
    wanted = decoding_sizes(config, ways, len(own))
    if jax.process_count() > 1 and not fits(config, wanted["tensor"], own):
        return make_mesh(**decoding_sizes(config, ways, jax.device_count()))
    return None if len(own) == 1 else make_mesh(**wanted, devices=own)


def for_sampling(config: decoder.DecoderConfig, params: decoder.Params) -> decoder.Params:
    """Parameters of training in the compute type, laid out over their own devices as `decoding_sizes` says.

    Of a run of several processes all take part, each tensor group inside of one host where it fits there.
    """
    mesh = mesh_of(params)
    if mesh is None:
        return params
    ways, own = mesh.shape["fsdp"] * mesh.shape["tensor"], jax.local_device_count()
    inside = decoding_sizes(config, math.gcd(ways, own), mesh.size)
    if jax.process_count() > 1 and not fits(config, inside["tensor"], jax.local_devices()):
        inside = decoding_sizes(config, ways, mesh.size)
    # the same devices in the same order: one program moves them
    grid = mesh.devices.reshape(tuple(inside.values()))
    return _moved(config, Mesh(grid, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES)))(params)


@functools.lru_cache(maxsize=8)
def _moved(config: decoder.DecoderConfig, mesh: Mesh):
    cast = functools.partial(jax.tree.map, lambda x: x.astype(config.dtype))
    return jax.jit(cast, out_shardings=shardings(config, mesh))


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


def put_batch(mesh: Mesh, array, micro: bool = True) -> jax.Array:
    """A host array [micro-batch, rows, ...] (or [rows, ...]), the same on every process, on the mesh: rows split where they
    divide."""
    return jax.make_array_from_callback(
        array.shape, rows_sharding(mesh, array.shape, micro), lambda index: array[index]
    )


def rows_sharding(mesh: Mesh, shape: Sequence[int], micro: bool = True) -> NamedSharding:
    """Where `put_batch` puts an array of this shape."""
    ways = int(np.prod([mesh.shape[axis] for axis in RULES["batch"]]))
    if len(shape) <= micro or shape[micro] % ways:
        return NamedSharding(mesh, PartitionSpec())
    return batch_sharding(mesh, micro)
