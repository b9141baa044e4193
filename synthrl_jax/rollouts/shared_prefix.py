"""The device side of the grouped sampler: a prefill that loads roots, the refill of rows, and the decode loop.

Shape letters: G group, R row of a group, L prefix slot of a group, P tokens of a prefix slot, S slots of a row's ring,
E spill ring of a group, Q task of a slot, F job of a load, T prefilled token, C step of a chunk, K kv heads, d head,
D width, V vocabulary, X ints of a task.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from synthrl_jax.policy import decoder
from synthrl_jax.rollouts import sampling, stop_strings
from synthrl_jax.rollouts.schedule import Shape
from synthrl_jax.rollouts.shared_attention import attend_with, give_spills, slot_of
from synthrl_jax.rollouts.shared_state import (
    BUDGET,
    ID,
    LAST,
    POSITION,
    TEXT,
    Layer,
    Queue,
    Rows,
    State,
    constrained,
    spill_axes,
    suffix_axes,
)


class Chunk(NamedTuple):
    """What a dispatch of `steps` <= C steps gives back."""

    steps: jax.Array
    token_CxGxR: jax.Array
    logprob_CxGxR: jax.Array
    model_logprob_CxGxR: jax.Array
    gap_CxGxR: jax.Array  # how near a tie each draw was
    active_CxGxR: jax.Array  # drew this token: at work, and not waiting for a spill ring
    ended_CxGxR: jax.Array  # id of the task that ended with this token, or -1
    count_CxGxR: jax.Array  # tokens of the task so far
    stopped_CxGxR: jax.Array
    live_GxR: jax.Array  # rows whose task is not done after the last step


def prefill(config: decoder.DecoderConfig, weights, tokens_FxT):
    """K and V of every layer [F, K, T, d]; rows are padded on the right, where causal attention never looks."""
    T = tokens_FxT.shape[1]
    causal = decoder.causal_attend(config, T, None)

    def attend(q_FxTxHxd, k_FxTxKxd, v_FxTxKxd):
        o_FxTxHxd, _ = causal(q_FxTxHxd, k_FxTxKxd, v_FxTxKxd)
        return o_FxTxHxd, (k_FxTxKxd.transpose(0, 2, 1, 3), v_FxTxKxd.transpose(0, 2, 1, 3))

    positions_FxT = jnp.broadcast_to(jnp.arange(T), tokens_FxT.shape)
    return decoder.run_layers(config, weights, tokens_FxT, positions_FxT, [attend] * config.layers)[1]


class Load(NamedTuple):
    """Up to F jobs to load, each into one prefix slot of one group; what fills the shape is for group G: none."""

    tokens_FxT: Any
    group_F: Any
    slot_F: Any
    stamp_F: Any
    task_FxQxX: Any
    warp_FxQx3: Any
    word_FxQx4: Any
    count_F: Any
    jobs: Any  # how many are real


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=3)
def load(config: decoder.DecoderConfig, shape: Shape, weights, state: State, key, jobs: Load) -> State:
    """The state with F more roots: one prefill, and their tasks in the queues."""
    with jax.named_scope("prefill"):
        caches = prefill(config, weights, jobs.tokens_FxT)
    words_NxX = jobs.word_FxQx4.reshape(-1, 4)
    keys_N = sampling.row_keys(key, words_NxX[:, :2], words_NxX[:, 2], words_NxX[:, 3])
    key_FxQx2 = jax.random.key_data(keys_N).reshape(*jobs.word_FxQx4.shape[:2], 2)
    q = state.queue
    at = (jobs.group_F, jobs.slot_F)
    queue = Queue(
        task_GxLxQxX=q.task_GxLxQxX.at[at].set(jobs.task_FxQxX),
        warp_GxLxQx3=q.warp_GxLxQx3.at[at].set(jobs.warp_FxQx3),
        key_GxLxQx2=q.key_GxLxQx2.at[at].set(key_FxQx2),
        count_GxL=q.count_GxL.at[at].set(jobs.count_F),
        drawn_GxL=q.drawn_GxL.at[at].set(0),
        stamp_GxL=q.stamp_GxL.at[at].set(jobs.stamp_F),
    )

    def place(prefix_GxKxLPxd, new_FxKxTxd):
        def one(f, prefix):
            start = (jobs.group_F[f], 0, jobs.slot_F[f] * shape.prefix, 0)
            new_1xKxTxd = jax.lax.dynamic_slice_in_dim(new_FxKxTxd, f, 1)
            return jax.lax.dynamic_update_slice(prefix, new_1xKxTxd.astype(prefix.dtype), start)

        return jax.lax.fori_loop(0, jobs.jobs, one, prefix_GxKxLPxd)

    layers = tuple(
        layer._replace(prefix_k=place(layer.prefix_k, k), prefix_v=place(layer.prefix_v, v))
        for layer, (k, v) in zip(state.layers, caches)
    )
    return constrained(config, shape, state._replace(layers=layers, queue=queue))


def refill(rows: Rows, queue: Queue) -> tuple[Rows, Queue]:
    """Free rows take the next tasks of their group, those of the older root first."""
    G, L, Q, X = queue.task_GxLxQxX.shape
    free_GxR = ~rows.active_GxR
    rank_GxR = jnp.cumsum(free_GxR, axis=1) - 1
    left_GxL = queue.count_GxL - queue.drawn_GxL
    slot_GxR = jnp.zeros_like(rank_GxR)
    place_GxR = rank_GxR
    if L == 2:
        older_G = (queue.stamp_GxL[:, 1] < queue.stamp_GxL[:, 0]).astype(jnp.int32)
        left_older_G = jnp.take_along_axis(left_GxL, older_G[:, None], axis=1)
        from_newer_GxR = rank_GxR >= left_older_G
        slot_GxR = jnp.where(from_newer_GxR, 1 - older_G[:, None], older_G[:, None])
        place_GxR = jnp.where(from_newer_GxR, rank_GxR - left_older_G, rank_GxR)
    takes_GxR = free_GxR & (place_GxR < jnp.take_along_axis(left_GxL, slot_GxR, axis=1))
    place_GxR = place_GxR + jnp.take_along_axis(queue.drawn_GxL, slot_GxR, axis=1)
    flat_GxR = slot_GxR * Q + jnp.minimum(place_GxR, Q - 1)

    def taken(values_GxLxQ, old_GxR):
        flat = values_GxLxQ.reshape(G, L * Q, *values_GxLxQ.shape[3:])
        more = (1,) * (flat.ndim - 2)
        new = jnp.take_along_axis(flat, flat_GxR.reshape(*flat_GxR.shape, *more), axis=1)
        return jnp.where(takes_GxR.reshape(*takes_GxR.shape, *more), new, old_GxR)

    task_GxRxX = taken(queue.task_GxLxQxX, rows.task_GxRxX)
    new_rows = Rows(
        task_GxRxX=task_GxRxX,
        slot_GxR=jnp.where(takes_GxR, slot_GxR, rows.slot_GxR),
        warp_GxRx3=taken(queue.warp_GxLxQx3, rows.warp_GxRx3),
        key_GxRx2=taken(queue.key_GxLxQx2, rows.key_GxRx2),
        token_GxR=jnp.where(takes_GxR, task_GxRxX[..., LAST], rows.token_GxR),
        generated_GxR=jnp.where(takes_GxR, 0, rows.generated_GxR),
        text_GxR=jnp.where(takes_GxR, task_GxRxX[..., TEXT], rows.text_GxR),
        active_GxR=rows.active_GxR | takes_GxR,
    )
    drawn_by_slot = [(takes_GxR & (slot_GxR == slot)).sum(axis=1, dtype=jnp.int32) for slot in range(L)]
    return new_rows, queue._replace(drawn_GxL=queue.drawn_GxL + jnp.stack(drawn_by_slot, axis=1))


def free_slots(rows: Rows, queue: Queue) -> jax.Array:
    """Number of prefix slots that nothing needs any more."""
    held = [(rows.active_GxR & (rows.slot_GxR == slot)).any(axis=1) for slot in range(queue.count_GxL.shape[1])]
    return ((queue.drawn_GxL >= queue.count_GxL) & ~jnp.stack(held, axis=1)).sum()


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def resize_layer(
    config: decoder.DecoderConfig, before: Shape, after: Shape, layer: Layer, cursor, group_G, row_GxR
) -> Layer:
    """One layer of a state with fewer groups, rows a group or tokens a prefix slot: see `resize_rows`."""
    K, d = layer.prefix_k.shape[1], layer.prefix_k.shape[-1]

    def prefix(old_GxKxLPxd):
        slots = old_GxKxLPxd[group_G].reshape(after.groups, K, before.slots, before.prefix, d)
        return slots[:, :, :, : after.prefix].reshape(after.groups, K, -1, d)

    def suffix(old):
        old_GxKxRxSxd = old.reshape(before.groups, K, before.rows, before.ring, d)
        new_GxKxRxSxd = jnp.take_along_axis(old_GxKxRxSxd[group_G], row_GxR[:, None, :, None, None], axis=2)
        return new_GxKxRxSxd.reshape(*suffix_axes(after, K), after.ring, d)

    def spill(old):
        """All spill rings of a group go with each part of it, to be held only where their row went."""
        if old is None:
            return None
        new = old.reshape(before.groups, K, before.spills, before.ring, d)[group_G]
        return new.reshape(*spill_axes(after, K), after.ring, d)

    prefixes, suffixes = map(prefix, layer[:2]), [suffix(layer.suffix_k), suffix(layer.suffix_v)]
    nexts = [slot_of(after, new, cursor) if after.spills else None for new in suffixes]
    after_layer = Layer(*prefixes, *suffixes, spill(layer.spill_k), spill(layer.spill_v), *nexts)
    return constrained(config, after, after_layer)


@functools.partial(jax.jit, static_argnums=(0, 1))
def resize_rows(config: decoder.DecoderConfig, after: Shape, state: State, group_G, row_GxR, keep_GxR) -> State:
    """The state, but for its layers, with fewer groups, rows a group or tokens a prefix slot.

    Group g takes the prefixes and the queue of group_G[g] and the rows row_GxR[g] of it, at work only where keep_GxR.
    """

    def rows(old):
        old = old[group_G]
        return jnp.take_along_axis(old, row_GxR.reshape(*row_GxR.shape, *(1,) * (old.ndim - 2)), axis=1)

    queue = jax.tree.map(lambda old: old[group_G], state.queue)
    new_rows = jax.tree.map(rows, state.rows)
    new_rows = new_rows._replace(active_GxR=new_rows.active_GxR & keep_GxR)
    went_GxExR = (state.spill_GxE[group_G][..., None] == row_GxR[:, None]) & new_rows.active_GxR[:, None]
    spill_GxE = jnp.where(went_GxExR.any(axis=2), jnp.argmax(went_GxExR, axis=2), -1).astype(jnp.int32)
    return constrained(config, after, state._replace(rows=new_rows, queue=queue, spill_GxE=spill_GxE))


@functools.partial(jax.jit, static_argnums=(0, 1, 5), donate_argnums=3)
def decode(config: decoder.DecoderConfig, shape: Shape, weights, state: State, stops, filters: bool, enough):
    """At most a chunk of decode steps: (state, Chunk). Ends early once `enough` prefix slots are free.

    filters: whether any row's top-k or top-p leaves something out.
    """
    G, R, C = shape.groups, shape.rows, shape.chunk
    B = G * R
    stop_ids_N, automaton_MxV = stops

    def step(carry):
        i, state, out = carry
        rows, queue = refill(state.rows, state.queue)
        position_GxR = rows.task_GxRxX[..., POSITION] + rows.generated_GxR  # of the token to draw
        working_GxR, spill, spill_GxE = rows.active_GxR, None, state.spill_GxE
        if shape.spills:
            spill = give_spills(rows, spill_GxE, shape.ring)
            working_GxR, spill_GxE = working_GxR & ~spill.waiting_GxR, spill.owner_GxE
        attends = [attend_with(layer, shape, rows, spill, state.cursor) for layer in state.layers]
        hidden_Bx1xD, layers = decoder.run_layers(
            config, weights, rows.token_GxR.reshape(B, 1), position_GxR.reshape(B, 1) - 1, attends
        )
        with jax.named_scope("draw"):
            logits_BxV = decoder.unembed(config, weights, hidden_Bx1xD[:, 0])
            row_keys_B = jax.random.wrap_key_data(rows.key_GxRx2.reshape(B, 2), impl="threefry2x32")
            keys_B = sampling.token_keys(row_keys_B, position_GxR.reshape(B))
            drawn = sampling.draw_warped(logits_BxV, keys_B, rows.warp_GxRx3.reshape(B, 3), filters)
        token_GxR = jnp.where(working_GxR, drawn.token.reshape(G, R), rows.token_GxR)
        generated_GxR = rows.generated_GxR + working_GxR
        stopped_GxR, text_GxR = (token_GxR[..., None] == stop_ids_N).any(axis=-1), rows.text_GxR
        if automaton_MxV is not None:
            text_GxR, completes_GxR = stop_strings.step(automaton_MxV, text_GxR, token_GxR)
            text_GxR = jnp.where(working_GxR, text_GxR, rows.text_GxR)
            stopped_GxR |= completes_GxR
        stopped_GxR &= working_GxR
        ended_GxR = stopped_GxR | (working_GxR & (generated_GxR >= rows.task_GxRxX[..., BUDGET]))
        record = {
            "token_CxGxR": token_GxR,
            "logprob_CxGxR": drawn.logprob.reshape(G, R),
            "model_logprob_CxGxR": drawn.model_logprob.reshape(G, R),
            "gap_CxGxR": drawn.gap.reshape(G, R),
            "active_CxGxR": working_GxR,
            "ended_CxGxR": jnp.where(ended_GxR, rows.task_GxRxX[..., ID], -1),
            "count_CxGxR": generated_GxR,
            "stopped_CxGxR": stopped_GxR,
        }
        put = {name: jax.lax.dynamic_update_index_in_dim(getattr(out, name), new, i, 0) for name, new in record.items()}
        rows = rows._replace(
            token_GxR=token_GxR,
            generated_GxR=generated_GxR,
            text_GxR=text_GxR,
            active_GxR=rows.active_GxR & ~ended_GxR,
        )
        cursor = (state.cursor + 1) % shape.ring
        state = constrained(config, shape, State(layers, rows, queue, cursor, spill_GxE))
        return i + 1, state, out._replace(**put, steps=i + 1)

    def goes_on(carry):
        i, state, _ = carry
        return (i < C) & (free_slots(state.rows, state.queue) < enough)

    def per_step(dtype):
        return jnp.zeros((C, G, R), dtype)

    floats, ints, bools = per_step(jnp.float32), per_step(jnp.int32), per_step(bool)
    out = Chunk(jnp.int32(0), ints, floats, floats, floats, bools, ints, ints, bools, state.rows.active_GxR)
    _, state, out = jax.lax.while_loop(goes_on, step, (jnp.int32(0), state, out))
    out = out._replace(live_GxR=state.rows.active_GxR)
    if shape.mesh is not None:  # every process reads all of it
        out = jax.lax.with_sharding_constraint(out, NamedSharding(shape.mesh, PartitionSpec()))
    return state, out
