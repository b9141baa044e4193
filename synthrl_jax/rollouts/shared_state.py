"""The state of the grouped sampler on the device: its arrays, an empty one, and where all of it lies on a mesh.

Shape letters: G group, R row of a group, L prefix slot of a group, P tokens of a prefix slot, S slots of a row's ring,
E spill ring of a group, Q task of a slot, K kv heads, d head, X ints of a task.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from synthrl_jax.policy import decoder, sharding
from synthrl_jax.rollouts.schedule import Shape

TASK = 5  # integers of a task:
ID, POSITION, BUDGET, LAST, TEXT = range(TASK)


class Layer(NamedTuple):
    """One layer's keys and values, rotated at absolute positions."""

    prefix_k: jax.Array  # [G, K, L P, d]
    prefix_v: jax.Array
    suffix_k: jax.Array  # [G, K, R, S, d] without axes of size one
    suffix_v: jax.Array
    spill_k: jax.Array | None = None  # [G, K, E, S, d] likewise; None where no row spills
    spill_v: jax.Array | None = None
    # What the ring holds at the cursor, [G, K, R, d]: read a step before it is overwritten. Read in the same step, XLA keeps a
    # copy of all suffixes for it.
    next_k: jax.Array | None = None
    next_v: jax.Array | None = None


class Rows(NamedTuple):
    """What each row is doing; a row is free once its task is done."""

    task_GxRxX: jax.Array
    slot_GxR: jax.Array
    warp_GxRx3: jax.Array  # temperature, top-k, top-p
    key_GxRx2: jax.Array
    token_GxR: jax.Array  # to be fed next
    generated_GxR: jax.Array
    text_GxR: jax.Array  # state of the stop strings' automaton
    active_GxR: jax.Array


class Queue(NamedTuple):
    """The tasks of each prefix slot and a counter of those drawn; the older root of a group goes first."""

    task_GxLxQxX: jax.Array
    warp_GxLxQx3: jax.Array
    key_GxLxQx2: jax.Array
    count_GxL: jax.Array
    drawn_GxL: jax.Array
    stamp_GxL: jax.Array


class State(NamedTuple):
    """Everything that lives on the device between dispatches."""

    layers: tuple[Layer, ...]
    rows: Rows
    queue: Queue
    cursor: jax.Array
    spill_GxE: jax.Array  # the row that holds a spill ring, or -1


def suffix_axes(shape: Shape, K: int) -> tuple[int, ...]:
    """The leading sizes of a suffix: G, K, R without ones, for which XLA would copy the whole cache at each write."""
    return tuple(n for n in (shape.groups, K, shape.rows) if n > 1)


def spill_axes(shape: Shape, K: int) -> tuple[int, ...]:
    """The same of the spill rings: G, K, E."""
    return tuple(n for n in (shape.groups, K, shape.spills) if n > 1)


def empty_state(config: decoder.DecoderConfig, shape: Shape) -> State:
    """A state with nothing loaded."""
    G, R, L, Q = shape.groups, shape.rows, shape.slots, shape.tasks
    K, d = config.kv_heads, config.head_dim

    def ints(*sizes):
        return jnp.zeros(sizes, jnp.int32)

    def layer():
        prefix, suffix = (G, K, L * shape.prefix, d), (*suffix_axes(shape, K), shape.ring, d)
        spill, slot = (*spill_axes(shape, K), shape.ring, d), (G, K, R, d)
        sizes = (prefix, prefix, suffix, suffix, *((spill, spill, slot, slot) if shape.spills else ()))
        return Layer(*(jnp.zeros(size, config.dtype) for size in sizes))

    return State(
        layers=tuple(layer() for _ in range(config.layers)),
        rows=Rows(
            task_GxRxX=ints(G, R, TASK),
            slot_GxR=ints(G, R),
            warp_GxRx3=jnp.ones((G, R, 3), jnp.float32),
            key_GxRx2=jnp.zeros((G, R, 2), jnp.uint32),
            token_GxR=ints(G, R),
            generated_GxR=ints(G, R),
            text_GxR=ints(G, R),
            active_GxR=jnp.zeros((G, R), bool),
        ),
        queue=Queue(
            task_GxLxQxX=ints(G, L, Q, TASK),
            warp_GxLxQx3=jnp.ones((G, L, Q, 3), jnp.float32),
            key_GxLxQx2=jnp.zeros((G, L, Q, 2), jnp.uint32),
            count_GxL=ints(G, L),
            drawn_GxL=ints(G, L),
            stamp_GxL=ints(G, L),
        ),
        cursor=jnp.int32(0),
        spill_GxE=jnp.full((G, shape.spills), -1, jnp.int32),
    )


def layer_specs(config: decoder.DecoderConfig, shape: Shape) -> Layer:
    """PartitionSpec of each array of a layer: groups over data and fsdp, kv heads over tensor, no axis of size one."""
    tensor = "tensor" if config.kv_heads % shape.mesh.shape["tensor"] == 0 else None
    axes = {"G": ("data", "fsdp"), "K": tensor, "R": None, "E": None}
    sizes = {"G": shape.groups, "K": config.kv_heads, "R": shape.rows, "E": shape.spills}
    suffix, spill = (PartitionSpec(*(axes[name] for name in names if sizes[name] > 1)) for names in ("GKR", "GKE"))
    prefix = PartitionSpec(axes["G"], tensor)
    return Layer(prefix, prefix, suffix, suffix, *((spill, spill, prefix, prefix) if shape.spills else ()))


def state_specs(config: decoder.DecoderConfig, shape: Shape) -> State:
    """PartitionSpec of each array of a state."""
    group = PartitionSpec(("data", "fsdp"))
    small = [jax.tree.map(lambda _: group, kind(*kind._fields)) for kind in (Rows, Queue)]
    return State((layer_specs(config, shape),) * config.layers, *small, PartitionSpec(), group)


def weight_specs(config: decoder.DecoderConfig, mesh: Mesh) -> decoder.Params:
    """PartitionSpec of each decoding weight (`decoder.unstack`): over tensor alone, so that no step gathers any."""

    def keep(size, axis):
        return axis if axis == "tensor" and size % mesh.shape["tensor"] == 0 else None

    def spec(leaf, spec):
        return PartitionSpec(*(keep(size, axis) for size, axis in zip(leaf.shape, spec)))

    def is_spec(leaf):
        return isinstance(leaf, PartitionSpec)

    specs = jax.tree.map(lambda s, leaf: spec(leaf, s), sharding.specs(config), decoder.shapes(config), is_leaf=is_spec)
    layer = jax.tree.map(lambda s: PartitionSpec(*s[1:]), specs["layers"], is_leaf=is_spec)
    return {name: value for name, value in specs.items() if name != "layers"} | {"layers": (layer,) * config.layers}


def placed(specs, mesh: Mesh):
    """NamedShardings of a tree of PartitionSpecs."""
    return jax.tree.map(lambda s: NamedSharding(mesh, s), specs, is_leaf=lambda x: isinstance(x, PartitionSpec))


def constrained(config: decoder.DecoderConfig, shape: Shape, part):
    """A state (of any number of its layers) or a layer kept where it lies, on a mesh."""
    if shape.mesh is None:
        return part
    if isinstance(part, Layer):
        specs = layer_specs(config, shape)
    else:
        specs = state_specs(config, shape)
        specs = specs._replace(layers=specs.layers[: len(part.layers)])
    return jax.lax.with_sharding_constraint(part, placed(specs, shape.mesh))
