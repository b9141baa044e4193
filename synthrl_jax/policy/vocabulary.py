"""Log-probabilities of chosen tokens over a large vocabulary, in chunks: [N, V] logits never exist as a whole.

Forward: a running (max, sum) over chunks of the vocabulary. Backward: each chunk's logits are computed again, so the cost is
four products with the unembedding instead of three. Shape letters: N token, D width, V vocabulary, S shards of the
vocabulary over the mesh axis `tensor`, C tokens of the vocabulary in a chunk of one shard.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from synthrl_jax.policy import axes

LOW = -1e30  # finite: a chunk's columns that were counted before take no part


def chunked_logprobs(x_NxD, matrix_DxV, targets_N, chunk: int):
    """(log p(target) [N], entropy [N] in nats), float32, of softmax(x @ matrix); both differentiable in x and matrix.

    `chunk` columns at a time, over all shards. The leading axes of x may be several. Equal to the whole softmax but for the
    order of sums.
    """
    shards = axes.ambient_size(axes.RULES["vocab"])
    shards = shards if matrix_DxV.shape[1] % shards == 0 else 1
    return _chunked(x_NxD, matrix_DxV, targets_N, max(1, min(chunk, matrix_DxV.shape[1]) // shards), shards)


def _columns(matrix_DxSxV, start, C):
    """Columns start..start + C of every shard, in the compute type."""
    return jax.lax.dynamic_slice_in_dim(matrix_DxSxV, start, C, axis=2)


def _chunks(V: int, C: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each chunk starts (the last one is moved back to end with the matrix), and how many of its columns were counted."""
    wanted = np.arange(0, V, C)
    starts = np.minimum(wanted, V - C)
    return starts.astype(np.int32), (wanted - starts).astype(np.int32)


def _logits(x, columns_DxSxC, counted, C):
    logits = jnp.einsum("...D,DSC->...SC", x, columns_DxSxC.astype(x.dtype), preferred_element_type=jnp.float32)
    logits = axes.constrain(logits, "batch", *[None] * (logits.ndim - 3), "vocab", None)
    return jnp.where(jnp.arange(C) >= counted, logits, LOW)


def _onehot(targets, start, C, S, V):
    """Whether a column is the target's: bool [..., S, C], V columns a shard."""
    ids_SxC = jnp.arange(S)[:, None] * V + start + jnp.arange(C)
    return targets[..., None, None] == ids_SxC


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _chunked(x, matrix_DxV, targets, C, S):
    return _forward(x, matrix_DxV, targets, C, S)[0]


def _forward(x, matrix_DxV, targets, C, S):
    D, V = matrix_DxV.shape[0], matrix_DxV.shape[1] // S
    matrix_DxSxV = matrix_DxV.reshape(D, S, V)
    starts, counted = _chunks(V, C)

    def step(carry, place):
        top, total, weighted, picked = carry
        start, skip = place
        logits = _logits(x, _columns(matrix_DxSxV, start, C), skip, C)
        new_top = jnp.maximum(top, logits.max((-2, -1)))
        exps = jnp.exp(logits - new_top[..., None, None])
        shrink = jnp.exp(top - new_top)
        hit = _onehot(targets, start, C, S, V) & (jnp.arange(C) >= skip)
        picked = picked + jnp.where(hit, logits, 0).sum((-2, -1))
        total = total * shrink + exps.sum((-2, -1))
        weighted = weighted * shrink + jnp.where(exps > 0, exps * logits, 0).sum((-2, -1))
        return (new_top, total, weighted, picked), None

    zeros = jnp.zeros(targets.shape, jnp.float32)
    (top, total, weighted, picked), _ = jax.lax.scan(step, (zeros + LOW, zeros, zeros, zeros), (starts, counted))
    log_z, mean_logit = top + jnp.log(total), weighted / total
    return (picked - log_z, log_z - mean_logit), (x, matrix_DxV, targets, log_z, mean_logit)


def _backward(C, S, kept, gradients):
    x, matrix_DxV, targets, log_z, mean_logit = kept
    of_logprob, of_entropy = gradients
    D, V = matrix_DxV.shape[0], matrix_DxV.shape[1] // S
    matrix_DxSxV = matrix_DxV.reshape(D, S, V)
    starts, counted = _chunks(V, C)

    def step(carry, place):
        dx, dmatrix_DxSxV = carry
        start, skip = place
        columns_DxSxC = _columns(matrix_DxSxV, start, C)
        logits = _logits(x, columns_DxSxC, skip, C)
        probabilities = jnp.exp(logits - log_z[..., None, None])
        # d log p(target) = onehot - p; d entropy = -p (logit - E[logit])
        slope = of_logprob[..., None, None] + of_entropy[..., None, None] * (logits - mean_logit[..., None, None])
        hit = _onehot(targets, start, C, S, V) & (jnp.arange(C) >= skip)
        dlogits = jnp.where(hit, of_logprob[..., None, None], 0) - probabilities * slope
        dlogits = jnp.where(jnp.arange(C) >= skip, dlogits, 0).astype(x.dtype)
        dx = dx + jnp.einsum(
            "...SC,DSC->...D", dlogits, columns_DxSxC.astype(x.dtype), preferred_element_type=jnp.float32
        )
        part_DxSxC = jnp.einsum("...D,...SC->DSC", x, dlogits, preferred_element_type=jnp.float32)
        part_DxSxC += _columns(dmatrix_DxSxV, start, C)
        return (dx, jax.lax.dynamic_update_slice_in_dim(dmatrix_DxSxV, part_DxSxC, start, axis=2)), None

    begin = jnp.zeros(x.shape, jnp.float32), jnp.zeros(matrix_DxSxV.shape, jnp.float32)
    (dx, dmatrix_DxSxV), _ = jax.lax.scan(step, begin, (starts, counted))
    dmatrix_DxV = dmatrix_DxSxV.reshape(matrix_DxV.shape).astype(matrix_DxV.dtype)
    return dx.astype(x.dtype), dmatrix_DxV, np.zeros(targets.shape, jax.dtypes.float0)


_chunked.defvjp(_forward, _backward)
