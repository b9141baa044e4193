"""Attention of whole sequences: what a token sees, behind one switch, and sequences that share prefixes.

An `attend(q [B,T,H,d], k [B,T,K,d], v [B,T,K,d]) -> (o [B,T,H,d], extra)` is what a decoder block calls. Shape letters:
B batch, T time, H query heads, K key/value heads, G = H / K, d head, P trunk, R branch slot, S slot of a branch.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from synthrl_jax.policy import axes

Attend = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, Any]]
MASKED = -1e30  # finite: a row with nothing to attend to stays finite


class Tree(NamedTuple):
    """What is seen in rows of sequences that share prefixes: P trunk tokens, then R slots of S branch tokens.

    The trunk holds tokens with more than one continuation, each subtree in one piece (depth first); a branch is what one
    sequence has for itself. ends [B, P]: where the subtree of a trunk token ends; forks [B, T]: the last trunk token
    that a token sees (a trunk token itself; -1: none); branches [B, R, S]: id of the branch in its slot.
    """

    ends: jax.Array
    forks: jax.Array
    branches: jax.Array


def masked_attention(q_BxTxHxd: jax.Array, k_BxKxSxd: jax.Array, v_BxKxSxd: jax.Array, mask) -> jax.Array:
    """Softmax attention in float32 of grouped queries; `mask` broadcasts against [B, K, G, T, S], True is seen."""
    B, T, H, d = q_BxTxHxd.shape
    q_BxKxGxTxd = _grouped(q_BxTxHxd, k_BxKxSxd.shape[1])
    o_BxKxGxTxd, _, sums = _parts(q_BxKxGxTxd, k_BxKxSxd, v_BxKxSxd, mask)
    # normalised after the product with v: 2.5 times faster forward and backward on CPU than a softmax before it
    o_BxKxGxTxd = (o_BxKxGxTxd / sums).astype(v_BxKxSxd.dtype)
    return o_BxKxGxTxd.transpose(0, 3, 1, 2, 4).reshape(B, T, H, d)


def _grouped(q_BxTxHxd, K):
    B, T, H, d = q_BxTxHxd.shape
    return (q_BxTxHxd * d**-0.5).reshape(B, T, K, H // K, d).transpose(0, 2, 3, 1, 4)


def _parts(q_BxKxGxTxd, k_BxKxSxd, v_BxKxSxd, mask):
    """Attention before its division: (weighted values, largest score, sum of exponentials), a merge of parts away."""
    scores = jnp.einsum("BKGTd,BKSd->BKGTS", q_BxKxGxTxd, k_BxKxSxd, preferred_element_type=jnp.float32)
    scores = jnp.where(mask, scores, MASKED)
    top = jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True))
    exps = jnp.exp(scores - top)
    o_BxKxGxTxd = jnp.einsum("BKGTS,BKSd->BKGTd", exps.astype(v_BxKxSxd.dtype), v_BxKxSxd)
    return o_BxKxGxTxd, top, exps.sum(axis=-1, keepdims=True)


def seen_in_segments(T: int, segment_ids_BxT: jax.Array | None) -> jax.Array:
    """Which token (last axis) each token sees: earlier ones of its segment; bool [1 or B, T, T]."""
    seen = jnp.tril(jnp.ones((T, T), bool))[None]
    if segment_ids_BxT is not None:
        seen = seen & (segment_ids_BxT[:, :, None] == segment_ids_BxT[:, None, :])
    return seen


def xla(T: int, segment_ids_BxT: jax.Array | None) -> Attend:
    """Plain products and a mask, on any device."""
    mask = seen_in_segments(T, segment_ids_BxT)[:, None, None]

    def attend(q_BxTxHxd, k_BxTxKxd, v_BxTxKxd):
        k_BxKxTxd, v_BxKxTxd = k_BxTxKxd.transpose(0, 2, 1, 3), v_BxTxKxd.transpose(0, 2, 1, 3)
        return masked_attention(q_BxTxHxd, k_BxKxTxd, v_BxKxTxd, mask), None

    return attend


def cudnn(T: int, segment_ids_BxT: jax.Array | None, implementation: str = "cudnn") -> Attend:
    """cuDNN's fused attention by jax.nn, on NVIDIA GPUs in bfloat16."""
    causal = segment_ids_BxT is None  # without segments cuDNN needs no mask in memory
    mask = None if causal else seen_in_segments(T, segment_ids_BxT)[:, None]

    def attend(q_BxTxHxd, k_BxTxKxd, v_BxTxKxd):
        out = jax.nn.dot_product_attention(
            q_BxTxHxd, k_BxTxKxd, v_BxTxKxd, mask=mask, is_causal=causal, implementation=implementation
        )
        return out, None

    return attend


def splash(T: int, segment_ids_BxT: jax.Array | None) -> Attend:
    """The Pallas kernel of TPUs; off TPU it is interpreted, for tests. T must be a multiple of 128 there.

    Under a mesh each device runs the kernel on its own rows and heads.
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    if T % 128:
        raise ValueError(f"splash attention needs rows of a multiple of 128 tokens, not {T}")
    block = next(size for size in (512, 256, 128) if T % size == 0)
    blocks = kernels.BlockSizes(
        **dict.fromkeys(("block_q", "block_kv", "block_kv_compute", "block_q_dkv", "block_kv_dkv"), block),
        **dict.fromkeys(("block_kv_dkv_compute", "block_q_dq", "block_kv_dq"), block),
    )
    interpret = _platform() != "tpu"

    def on_device(q_BxTxHxd, k_BxTxKxd, v_BxTxKxd, segment_ids_BxT):
        q_BxHxTxd, k_BxKxTxd, v_BxKxTxd = (x.transpose(0, 2, 1, 3) for x in (q_BxTxHxd, k_BxTxKxd, v_BxTxKxd))
        heads = masks.MultiHeadMask([masks.CausalMask((T, T))] * q_BxHxTxd.shape[1])
        kernel = kernels.make_splash_mha(heads, head_shards=1, q_seq_shards=1, block_sizes=blocks, interpret=interpret)
        scaled = q_BxHxTxd * q_BxHxTxd.shape[-1] ** -0.5
        ids = kernels.SegmentIds(segment_ids_BxT, segment_ids_BxT)
        return jax.vmap(kernel)(scaled, k_BxKxTxd, v_BxKxTxd, ids).transpose(0, 2, 1, 3)

    def attend(q_BxTxHxd, k_BxTxKxd, v_BxTxKxd):
        B = q_BxTxHxd.shape[0]
        ids = jnp.zeros((B, T), jnp.int32) if segment_ids_BxT is None else segment_ids_BxT
        run = on_device
        if jax.sharding.get_abstract_mesh().shape:
            of_heads = axes.spec("batch", None, "heads", None), axes.spec("batch", None, "kv_heads", None)
            inputs = (of_heads[0], of_heads[1], of_heads[1], axes.spec("batch", None))
            run = jax.shard_map(on_device, in_specs=inputs, out_specs=of_heads[0], check_vma=False)
        return run(q_BxTxHxd, k_BxTxKxd, v_BxTxKxd, ids).astype(v_BxTxKxd.dtype), None

    return attend


ATTENTIONS: dict[str, Callable[[int, jax.Array | None], Attend]] = {"xla": xla, "cudnn": cudnn, "splash": splash}


def _platform() -> str:
    """Where the program will run: the devices of the ambient mesh (those of a described TPU too), else the default ones."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return device.platform if device is not None else jax.default_backend()


def tree(tree: Tree) -> Attend:
    """Attention of rows that are trees: to the trunk and inside of the own branch, merged by (max, sum)."""
    P = tree.ends.shape[1]
    B, R, S = tree.branches.shape
    trunk_P = jnp.arange(P)
    seen_BxTxP = (trunk_P <= tree.forks[:, :, None]) & (tree.forks[:, :, None] < tree.ends[:, None, :])
    same_BxRxSxS = tree.branches[..., :, None] == tree.branches[..., None, :]
    own_BxRxSxS = same_BxRxSxS & jnp.tril(jnp.ones((S, S), bool))

    def attend(q_BxTxHxd, k_BxTxKxd, v_BxTxKxd):
        _, T, H, d = q_BxTxHxd.shape
        K = k_BxTxKxd.shape[2]
        q_BxKxGxTxd = _grouped(q_BxTxHxd, K)
        k_BxKxTxd, v_BxKxTxd = k_BxTxKxd.transpose(0, 2, 1, 3), v_BxTxKxd.transpose(0, 2, 1, 3)
        o_BxKxGxTxd, top, sums = _parts(
            q_BxKxGxTxd, k_BxKxTxd[:, :, :P], v_BxKxTxd[:, :, :P], seen_BxTxP[:, None, None]
        )

        def slots(x):  # [B, K, ..., T, d] -> [B R, K, ..., S, d]
            x = x[..., P:, :].reshape(B, K, *x.shape[2:-2], R, S, d)
            return jnp.moveaxis(x, -3, 1).reshape(B * R, K, *x.shape[2:-3], S, d)

        mine = own_BxRxSxS.reshape(B * R, 1, 1, S, S)
        own = _parts(slots(q_BxKxGxTxd), slots(k_BxKxTxd), slots(v_BxKxTxd), mine)
        own_o, own_top, own_sums = (
            jnp.moveaxis(x.reshape(B, R, K, H // K, S, -1), 1, 3).reshape(B, K, H // K, R * S, -1) for x in own
        )
        both_top = jnp.maximum(top[..., P:, :], own_top)
        here, there = jnp.exp(top[..., P:, :] - both_top), jnp.exp(own_top - both_top)
        merged = (o_BxKxGxTxd[..., P:, :] * here + own_o * there) / (sums[..., P:, :] * here + own_sums * there)
        whole = jnp.concatenate([o_BxKxGxTxd[..., :P, :] / sums[..., :P, :], merged], axis=-2).astype(v_BxTxKxd.dtype)
        return whole.transpose(0, 3, 1, 2, 4).reshape(B, T, H, d), None

    return attend
