"""Attention of decoding rows over shared prefixes, their own rings and spill rings, merged by (max, sum).

Shape letters: G group, R row of a group, L prefix slot of a group, P tokens of a prefix slot, S slots of a row's ring,
E spill ring of a group, K kv heads, g query heads per kv head, d head.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from synthrl_jax.rollouts import sampling
from synthrl_jax.rollouts.schedule import Shape
from synthrl_jax.rollouts.shared_state import POSITION, Layer, Rows, spill_axes, suffix_axes


class Spill(NamedTuple):
    """Where the oldest tokens of long continuations are: rows that outgrew their ring hold a spill ring of their group."""

    owner_GxE: jax.Array  # row, or -1
    of_row_GxR: jax.Array  # spill ring of a row, 0 if none
    held_GxR: jax.Array  # whether it has one
    waiting_GxR: jax.Array  # its ring is full and no spill ring is free

    @property
    def row_GxE(self) -> jax.Array:
        """The owner as an index, 0 if none."""
        return jnp.maximum(self.owner_GxE, 0)


def give_spills(rows: Rows, owner_GxE: jax.Array, ring: int) -> Spill:
    """Rows whose ring is full take the free spill rings; one is free again once its row's task is done."""
    R = rows.active_GxR.shape[1]
    full_GxR = rows.active_GxR & (rows.generated_GxR >= ring)
    keeps_GxE = (owner_GxE >= 0) & jnp.take_along_axis(full_GxR, jnp.maximum(owner_GxE, 0), axis=1)
    owns_GxExR = keeps_GxE[..., None] & (owner_GxE[..., None] == jnp.arange(R))
    wants_GxR = full_GxR & ~owns_GxExR.any(axis=1)
    rank_GxR, rank_GxE = jnp.cumsum(wants_GxR, axis=1), jnp.cumsum(~keeps_GxE, axis=1)
    gets_GxExR = ~keeps_GxE[..., None] & wants_GxR[:, None] & (rank_GxE[..., None] == rank_GxR[:, None])
    owns_GxExR |= gets_GxExR
    held_GxR = owns_GxExR.any(axis=1)
    return Spill(
        owner_GxE=jnp.where(owns_GxExR.any(axis=2), jnp.argmax(owns_GxExR, axis=2), -1).astype(jnp.int32),
        of_row_GxR=jnp.argmax(owns_GxExR, axis=1).astype(jnp.int32),
        held_GxR=held_GxR,
        waiting_GxR=full_GxR & ~held_GxR,
    )


product = functools.partial(jnp.matmul, preferred_element_type=jnp.float32)


def scores(q_xNxd: jax.Array, k_xPxd: jax.Array) -> jax.Array:
    """q k^T [..., N, P] in float32."""
    if not 1 < q_xNxd.shape[-2] <= 4:
        return product(q_xNxd, k_xPxd.swapaxes(-1, -2))
    # a few queries: with the keys on the left a third of the time on CPU; the barrier keeps XLA from turning it round
    return jax.lax.optimization_barrier(product(k_xPxd, q_xNxd.swapaxes(-1, -2))).swapaxes(-1, -2)


def slot_of(shape: Shape, suffix: jax.Array, at) -> jax.Array:
    """One slot of every row's ring, [G, K, R, d]."""
    d = suffix.shape[-1]
    return jax.lax.dynamic_slice_in_dim(suffix, at, 1, axis=-2).reshape(shape.groups, -1, shape.rows, d)


def attend_with(layer: Layer, shape: Shape, rows: Rows, spill: Spill | None, cursor):
    """The decode step's `attend`: every row against its root's prefix (read once per group) and its own suffix.

    All parts share one maximum and one sum, so the result is the softmax over them together. A suffix slot is seen iff it
    was written since the row's refill; the prefix ends before the token that the row fed first. A row with a spill ring
    moves the token that its own ring has no more room for there; the order of tokens in a ring means nothing, so a row
    that waits for one only writes back what is there.
    """
    G, R, E, S = shape.groups, shape.rows, shape.spills, shape.ring
    start_GxR = rows.slot_GxR * shape.prefix
    at_LP = jnp.arange(shape.slots * shape.prefix)
    end_GxR = start_GxR + rows.task_GxRxX[..., POSITION] - 1
    prefix_GxRxLP = (at_LP >= start_GxR[..., None]) & (at_LP < end_GxR[..., None])
    age_S = (cursor - jnp.arange(S)) % S  # steps since a slot was written, this step's being 0
    suffix_GxRxS = age_S <= rows.generated_GxR[..., None]
    if spill is not None:
        spilt_GxE = jnp.take_along_axis(rows.generated_GxR, spill.row_GxE, axis=1) - S  # before this step
        spill_GxExS = (age_S <= spilt_GxE[..., None]) & (spill.owner_GxE >= 0)[..., None]
        row_GxEx1, of_row_GxR = spill.row_GxE[:, None, :, None], spill.of_row_GxR[:, None, :, None]
        held_GxR = spill.held_GxR[:, None, :, None]

    def attend(q_Bx1xHxd, k_Bx1xKxd, v_Bx1xKxd):
        K, d = k_Bx1xKxd.shape[2:]
        g = q_Bx1xHxd.shape[2] // K
        lead = suffix_axes(shape, K)

        def put(ring, new, lead):
            new = new.reshape(*lead, 1, d).astype(ring.dtype)
            return jax.lax.dynamic_update_slice(ring, new, (*(0 for _ in lead), cursor, 0))

        def write(suffix, new_Bx1xKxd, spilt, old_GxKxRxd):
            new_GxKxRxd = new_Bx1xKxd.reshape(G, R, K, d).swapaxes(1, 2)
            if spilt is None:
                return put(suffix, new_GxKxRxd, lead), None, None
            new_GxKxRxd = jnp.where(spill.waiting_GxR[:, None, :, None], old_GxKxRxd, new_GxKxRxd)
            old_GxKxExd = jnp.take_along_axis(old_GxKxRxd, row_GxEx1, axis=2)
            suffix = put(suffix, new_GxKxRxd, lead)
            return suffix, put(spilt, old_GxKxExd, spill_axes(shape, K)), slot_of(shape, suffix, (cursor + 1) % S)

        suffix_k, spill_k, next_k = write(layer.suffix_k, k_Bx1xKxd, layer.spill_k, layer.next_k)
        suffix_v, spill_v, next_v = write(layer.suffix_v, v_Bx1xKxd, layer.spill_v, layer.next_v)
        q_GxKxRxgxd = (q_Bx1xHxd * d**-0.5).reshape(G, R, K, g, d).transpose(0, 2, 1, 3, 4)
        # rows and query heads of a kv head are one matrix dimension: the prefix is read once for all of them
        prefix_GxKxNxLP = scores(q_GxKxRxgxd.reshape(G, K, R * g, d), layer.prefix_k)
        prefix_GxKxRxgxLP = prefix_GxKxNxLP.reshape(G, K, R, g, -1)
        prefix_GxKxRxgxLP = jnp.where(prefix_GxRxLP[:, None, :, None], prefix_GxKxRxgxLP, sampling.MASKED)
        suffix_GxKxRxgxS = scores(q_GxKxRxgxd.reshape(*lead, g, d), suffix_k).reshape(G, K, R, g, S)
        suffix_GxKxRxgxS = jnp.where(suffix_GxRxS[:, None, :, None], suffix_GxKxRxgxS, sampling.MASKED)
        top = jnp.maximum(prefix_GxKxRxgxLP.max(-1, keepdims=True), suffix_GxKxRxgxS.max(-1, keepdims=True))
        if spill is not None:
            spill_lead = spill_axes(shape, K)
            q_GxKxExgxd = jnp.take_along_axis(q_GxKxRxgxd, row_GxEx1[..., None], axis=2)
            spill_GxKxExgxS = scores(q_GxKxExgxd.reshape(*spill_lead, g, d), spill_k).reshape(G, K, E, g, S)
            spill_GxKxExgxS = jnp.where(spill_GxExS[:, None, :, None], spill_GxKxExgxS, sampling.MASKED)

            def to_rows(x_GxKxExgxN, none):
                x_GxKxRxgxN = jnp.take_along_axis(x_GxKxExgxN, of_row_GxR[..., None], axis=2)
                return jnp.where(held_GxR[..., None], x_GxKxRxgxN, none)

            top = jnp.maximum(top, to_rows(spill_GxKxExgxS.max(-1, keepdims=True), sampling.MASKED))
            spill_top = jnp.take_along_axis(top, row_GxEx1[..., None], axis=2)
            spill_GxKxExgxS = jnp.exp(spill_GxKxExgxS - spill_top)
        prefix_GxKxRxgxLP, suffix_GxKxRxgxS = jnp.exp(prefix_GxKxRxgxLP - top), jnp.exp(suffix_GxKxRxgxS - top)
        sums = prefix_GxKxRxgxLP.sum(-1, keepdims=True) + suffix_GxKxRxgxS.sum(-1, keepdims=True)
        prefix_GxKxNxLP = prefix_GxKxRxgxLP.reshape(G, K, R * g, -1).astype(layer.prefix_v.dtype)
        o_GxKxRxgxd = product(prefix_GxKxNxLP, layer.prefix_v).reshape(G, K, R, g, d)
        suffix_exps = suffix_GxKxRxgxS.reshape(*lead, g, S).astype(suffix_v.dtype)
        o_GxKxRxgxd += product(suffix_exps, suffix_v).reshape(G, K, R, g, d)
        if spill is not None:
            sums += to_rows(spill_GxKxExgxS.sum(-1, keepdims=True), 0.0)
            spill_exps = spill_GxKxExgxS.reshape(*spill_lead, g, S).astype(spill_v.dtype)
            o_GxKxRxgxd += to_rows(product(spill_exps, spill_v).reshape(G, K, E, g, d), 0.0)
        o_GxKxRxgxd = (o_GxKxRxgxd / sums).astype(q_Bx1xHxd.dtype)
        o_Bx1xHxd = o_GxKxRxgxd.transpose(0, 2, 1, 3, 4).reshape(G * R, 1, K * g, d)
        return o_Bx1xHxd, Layer(layer.prefix_k, layer.prefix_v, suffix_k, suffix_v, spill_k, spill_v, next_k, next_v)

    return attend
