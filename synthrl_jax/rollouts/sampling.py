"""From logits to tokens: per-task keys, temperature, top-k and top-p, shared by every sampler.

A token's randomness is a function of (seed, root id, fork, index, position) alone, so no result depends on the batch.
Shape letters: R row, V vocabulary, N blocks of the vocabulary, W tokens of a block.
"""

import hashlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

MASKED = -1e30
NEAR_TIE = (
    1e-4  # scores closer than this may change places between batch shapes: float32 logits differ in their last bits
)


class Drawn(NamedTuple):
    """Tokens drawn for R rows; `gap` is how near a tie each draw was: below a temperature of 1 in units of the logits, whose
    last bits are what differs between batches, above in units of the scores (logits / temperature)."""

    token: jax.Array  # [R] int32
    logprob: jax.Array  # [R] on the distribution that the token was drawn from
    model_logprob: jax.Array  # [R] untempered and unfiltered
    gap: (
        jax.Array
    )  # [R] best perturbed score less the second best, x min(1, T); 0 where a tie at a filter's edge decides


class Filtered(NamedTuple):
    """Scores [R, V] after top-k and top-p, what is left out at -1e30, and both ways that a tie at the edge can end."""

    kept: jax.Array
    fewer: jax.Array  # without the tokens that a change of the scores by half a near-tie can drive out
    more: jax.Array  # with the tokens that it can let in


def root_words(root_id: str) -> tuple[int, int]:
    """Two 32-bit words of a root's id, the same in every process and version."""
    digest = hashlib.blake2b(str(root_id).encode(), digest_size=8).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")


def seed_key(seed: int) -> jax.Array:
    """The key of a seed; the generator is named so that a changed default of jax changes no sample.

    ValueError: a seed outside of 0..2^32 - 1, beyond which jax would take another's key.
    """
    if not 0 <= seed < 1 << 32:
        raise ValueError(f"a seed must be in 0..2^32 - 1, not {seed}")
    return jax.random.key(seed, impl="threefry2x32")


def row_keys(key: jax.Array, roots_Rx2: jax.Array, forks_R: jax.Array, indices_R: jax.Array) -> jax.Array:
    """One key per row from the seed's key and the row's task: `root_words` uint32 [R, 2], fork, index."""

    def one(root_2, fork, index):
        folded = key
        for word in (root_2[0], root_2[1], fork, index):
            folded = jax.random.fold_in(folded, word)
        return folded

    return jax.vmap(one)(roots_Rx2, forks_R, indices_R)


def token_keys(row_keys_R: jax.Array, positions_R: jax.Array) -> jax.Array:
    """The keys of the tokens at these absolute positions (prefix length + tokens generated before it)."""
    return jax.vmap(jax.random.fold_in)(row_keys_R, positions_R)


def block_width(vocab_size: int) -> int:
    """Tokens per block of the two-level draw: near the square root, a multiple of 16."""
    return max(16, -(-int(np.sqrt(vocab_size)) // 16) * 16)


def filter_scores(scores_RxV: jax.Array, top_k_R: jax.Array, top_p_R: jax.Array, near_Rx1=NEAR_TIE) -> Filtered:
    """The scores that top-k and then top-p keep; k = 0 and p = 1 keep all, equal scores at the edge stay.

    near_Rx1: what counts as a near-tie, in units of the scores."""
    near_R = jnp.broadcast_to(near_Rx1, (len(scores_RxV), 1))[:, 0]
    V = scores_RxV.shape[-1]
    k_R = jnp.where(top_k_R > 0, jnp.minimum(top_k_R, V), V)
    order_RxV = _ordered(scores_RxV)

    def enough_tokens(above_RxV):
        return above_RxV.sum(axis=-1) >= k_R

    in_k_RxV = order_RxV >= _highest_bound(order_RxV, enough_tokens)
    probs_RxV = jax.nn.softmax(jnp.where(in_k_RxV, scores_RxV, MASKED), axis=-1)

    def mass(kept_RxV):
        return jnp.where(kept_RxV, probs_RxV, 0.0).sum(axis=-1)

    def enough_mass(above_RxV):
        return (mass(above_RxV) >= top_p_R) & (top_p_R < 1.0)

    kept_RxV = in_k_RxV & (order_RxV >= _highest_bound(order_RxV, enough_mass))
    lowest_Rx1 = jnp.where(kept_RxV, scores_RxV, jnp.inf).min(axis=-1, keepdims=True)
    next_Rx1 = jnp.where(kept_RxV, -jnp.inf, scores_RxV).max(axis=-1, keepdims=True)
    above_RxV = kept_RxV & (scores_RxV > lowest_Rx1)
    without_one_R = mass(kept_RxV) - jnp.where(kept_RxV, probs_RxV, jnp.inf).min(axis=-1)
    dispensable_R = (kept_RxV.sum(axis=-1) > k_R) | ((top_p_R < 1.0) & (without_one_R >= top_p_R - near_R))
    lacking_R = (top_p_R < 1.0) & (mass(kept_RxV) < top_p_R + near_R)
    fewer_RxV = jnp.where(dispensable_R[:, None], above_RxV, kept_RxV) & (scores_RxV > next_Rx1 + near_Rx1)
    more_RxV = kept_RxV | (scores_RxV >= lowest_Rx1 - near_Rx1) | (lacking_R[:, None] & (scores_RxV == next_Rx1))
    return Filtered(*(jnp.where(set_RxV, scores_RxV, MASKED) for set_RxV in (kept_RxV, fewer_RxV, more_RxV)))


def _ordered(values: jax.Array) -> jax.Array:
    """Float32 as int32 in the same order."""
    bits = jax.lax.bitcast_convert_type(values.astype(jnp.float32), jnp.int32)
    return jnp.where(bits >= 0, bits, bits ^ jnp.int32(0x7FFFFFFF))


def _highest_bound(order_RxV: jax.Array, enough) -> jax.Array:
    """The highest bound [R, 1] with enough(order >= bound), by bisection; that of no bound is below all values.

    Thirty-two passes over the scores, exact, a tenth of a sort's time on CPU.
    """
    R = order_RxV.shape[0]
    low_R, high_R = jnp.full(R, -(2**31), jnp.int32), jnp.full(R, 2**31 - 1, jnp.int32)

    def halve(_, bounds):
        low_R, high_R = bounds
        middle_R = (low_R >> 1) + (high_R >> 1) + (low_R & high_R & 1)
        held_R = enough(order_RxV >= middle_R[:, None])
        return jnp.where(held_R, middle_R, low_R), jnp.where(held_R, high_R, middle_R)

    return jax.lax.fori_loop(0, 32, halve, (low_R, high_R))[0][:, None]


def draw_warped(logits_RxV, keys_R, warp_Rx3, filtered: bool) -> Drawn:
    """`draw` with each row's (temperature, top-k, top-p); `filtered` False: no row has a filter."""
    limits = (warp_Rx3[:, 1].astype(jnp.int32), warp_Rx3[:, 2]) if filtered else ()
    return draw(logits_RxV, keys_R, warp_Rx3[:, 0], *limits)


def draw(logits_RxV, keys_R, temperature_R, top_k_R=None, top_p_R=None) -> Drawn:
    """Draw one token per row from softmax(logits / temperature) after top-k and top-p; temperature 0 takes the best.

    Log-probs of temperature 0 are 0, its distribution being a point. top_k_R and top_p_R are both arrays or both None
    (no filter, and no search for its edge).
    """
    R, V = logits_RxV.shape
    logits_RxV = logits_RxV.astype(jnp.float32)
    greedy_R = temperature_R <= 0
    scores_RxV = logits_RxV / jnp.where(greedy_R, 1.0, temperature_R)[:, None]
    unit_R = jnp.where(greedy_R, 1.0, jnp.minimum(temperature_R, 1.0))  # of gaps, in scores
    W = block_width(V)
    noise_RxNW = jax.vmap(lambda key: jax.random.gumbel(key, (-(-V // W) + W,), jnp.float32))(keys_R)
    noise_RxNW = jnp.where(greedy_R[:, None], 0.0, noise_RxNW)
    if top_k_R is None:
        token_R, logprob_R, gap_R = _choose(scores_RxV, noise_RxNW, greedy_R)
    else:
        filtered = filter_scores(scores_RxV, top_k_R, top_p_R, NEAR_TIE / unit_R[:, None])
        token_R, logprob_R, gap_R = _choose(filtered.kept, noise_RxNW, greedy_R)
        for other_RxV in (filtered.fewer, filtered.more):
            other_R, other_logprob_R, other_gap_R = _choose(other_RxV, noise_RxNW, greedy_R)
            settled_R = (other_R == token_R) & (unit_R * jnp.abs(other_logprob_R - logprob_R) < NEAR_TIE)
            gap_R = jnp.where(settled_R, jnp.minimum(gap_R, other_gap_R), 0.0)
    picked_R = jnp.take_along_axis(logits_RxV, token_R[:, None], axis=1)[:, 0]
    return Drawn(token_R, logprob_R, picked_R - jax.nn.logsumexp(logits_RxV, axis=-1), gap_R * unit_R)


def _choose(scores_RxV, noise_RxNW, greedy_R) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(token, log-prob, gap) of each row: the maximum of scores + Gumbel noise, over blocks, then within one block.

    The same distribution as noise for each token gives, from about 2 sqrt(V) random numbers a token instead of V.
    """
    R, V = scores_RxV.shape
    W = block_width(V)
    N = -(-V // W)
    blocks_RxNxW = jnp.pad(scores_RxV, ((0, 0), (0, N * W - V)), constant_values=MASKED).reshape(R, N, W)
    top_RxN = blocks_RxNxW.max(axis=-1)
    sums_RxN = jnp.exp(blocks_RxNxW - top_RxN[:, :, None]).sum(axis=-1)
    block_RxN = jnp.where(greedy_R[:, None], top_RxN, top_RxN + jnp.log(sums_RxN))
    block_R, block_gap_R = _best(block_RxN + noise_RxNW[:, :N])
    inner_RxW = jnp.take_along_axis(blocks_RxNxW, block_R[:, None, None], axis=1)[:, 0]
    inner_R, inner_gap_R = _best(inner_RxW + noise_RxNW[:, N:])
    score_R = jnp.take_along_axis(inner_RxW, inner_R[:, None], axis=1)[:, 0]
    logprob_R = jnp.where(greedy_R, 0.0, score_R - jax.nn.logsumexp(block_RxN, axis=-1))
    return block_R * W + inner_R, logprob_R, jnp.minimum(block_gap_R, inner_gap_R)


def _best(scores_RxN: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Index of the best score and its lead over the second."""
    best_R = jnp.argmax(scores_RxN, axis=-1).astype(jnp.int32)
    others = jnp.where(jnp.arange(scores_RxN.shape[-1]) == best_R[:, None], -jnp.inf, scores_RxN)
    return best_R, scores_RxN.max(axis=-1) - others.max(axis=-1)
