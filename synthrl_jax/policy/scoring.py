"""Log-probabilities of given sequences under a policy: many at a time, packed, and with shared prefixes run once.

Shape letters: N sequence, B row, T time.
"""

import contextlib
import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from synthrl_jax.policy import decoder, sharding

PREFIX = 1  # segment id of what every other segment of its row sees; 0 is padding
ROW_STEP = 64  # rows are padded to a multiple of it
ROOM = 2 << 30  # bytes of a device for what a batch of rows needs beside the parameters


@functools.partial(jax.jit, static_argnums=(0, 1))
def _score(config, mesh, params, tokens_BxT):
    return _everywhere(mesh, decoder.token_logprobs(config, params, tokens_BxT))


def _everywhere(mesh, found):
    """A result that every process reads, on a mesh."""
    return found if mesh is None else jax.lax.with_sharding_constraint(found, NamedSharding(mesh, PartitionSpec()))


def _on(mesh):
    """The context in which programs see the mesh."""
    return contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh)


def _rows(mesh, *arrays):
    """Host arrays [rows, ...], the same on every process, with their rows over the mesh's data axes where they divide."""
    if mesh is None:
        return arrays
    return tuple(sharding.put_batch(mesh, array, micro=False) for array in arrays)


def rows_within(config: decoder.DecoderConfig, T: int, rows: int, devices: int = 1) -> int:
    """`rows` halved until the attention scores of a layer and the logits of so many sequences fit into memory."""
    logits = min(config.vocab_chunk or config.vocab_size, config.vocab_size)
    while rows > 1 and 4 * rows * T * (T * config.heads + logits) / devices > ROOM:
        rows //= 2
    return rows


def row_within(config: decoder.DecoderConfig, devices: int = 1) -> int:
    """The tokens of the longest single row that `rows_within` takes to fit."""
    logits = min(config.vocab_chunk or config.vocab_size, config.vocab_size)
    return int((math.sqrt(logits**2 + config.heads * ROOM * devices) - logits) / (2 * config.heads))


def score(config: decoder.DecoderConfig, params: decoder.Params, tokens_NxT: np.ndarray, rows: int = 64) -> np.ndarray:
    """log p(token t | tokens before t) [N, T] float32, 0 at t = 0; at most `rows` sequences at a time.

    Parameters may lie on a mesh; where it spans processes, all of them call this with the same arguments.
    """
    mesh, (N, T) = sharding.mesh_of(params), tokens_NxT.shape
    rows = rows_within(config, T, rows, 1 if mesh is None else mesh.size)
    out = np.zeros(tokens_NxT.shape, np.float32)
    with _on(mesh):
        for start in range(0, N, rows):
            picked = np.minimum(np.arange(start, start + rows), N - 1)  # one shape: the last batch repeats the last row
            found = _score(config, mesh, params, *_rows(mesh, tokens_NxT[picked]))
            out[start : start + rows] = np.asarray(found)[: N - start]
    return out


@functools.partial(jax.jit, static_argnums=(0, 1))
def score_packed(config, mesh, weights, tokens_BxT, positions_BxT, segments_BxT, before_BxT):
    """Log-probs [B, T] of tokens that attend to their segment and to their row's prefix; `before`: what predicts each."""
    causal_TxT = jnp.tril(jnp.ones((tokens_BxT.shape[1],) * 2, bool))
    same_BxTxT = segments_BxT[:, :, None] == segments_BxT[:, None, :]
    seen_BxTxT = causal_TxT & (same_BxTxT | (segments_BxT[:, None, :] == PREFIX))

    def attend(q_BxTxHxd, k_BxTxKxd, v_BxTxKxd):
        k_BxKxTxd, v_BxKxTxd = k_BxTxKxd.swapaxes(1, 2), v_BxTxKxd.swapaxes(1, 2)
        return decoder.masked_attention(q_BxTxHxd, k_BxKxTxd, v_BxKxTxd, seen_BxTxT[:, None, None]), None

    hidden_BxTxD, _ = decoder.run_layers(config, weights, tokens_BxT, positions_BxT, [attend] * config.layers)
    hidden_BxTxD = jnp.take_along_axis(hidden_BxTxD, before_BxT[:, :, None], axis=1)
    return _everywhere(mesh, decoder.next_logprobs(config, weights, hidden_BxTxD, tokens_BxT))


def score_shared(
    config: decoder.DecoderConfig,
    params: decoder.Params,
    groups: Sequence[tuple[Sequence[int], Sequence[Sequence[int]]]],
    most: int = 8,
) -> list[tuple[np.ndarray, list[np.ndarray]]]:
    """Log-probs of (prefix, its continuations): the prefix's own (0 at its first token) and each continuation's.

    A row of the forward pass holds a prefix once and all its continuations, which do not see one another; a prefix without
    continuations is a plain sequence. most: rows of a pass, fewer where memory wants it. ValueError: an empty prefix.
    """
    packed = []
    for prefix, continuations in groups:
        if not len(prefix):
            raise ValueError("a prefix must hold at least one token")
        tokens, positions = [*prefix], list(range(len(prefix)))
        segments, before = [PREFIX] * len(prefix), [0, *range(len(prefix) - 1)]
        for segment, continuation in enumerate(continuations, PREFIX + 1):
            n, start = len(continuation), len(tokens)
            before += [len(prefix) - 1, *range(start, start + n - 1)][:n]
            tokens += [*continuation]  # a list plus an array would be their sum
            positions += range(len(prefix), len(prefix) + n)
            segments += [segment] * n
        packed.append((tokens, positions, segments, before))
    mesh, weights = sharding.mesh_of(params), decoder.unstack(config, params)
    scores: list[np.ndarray] = [np.zeros(0)] * len(packed)
    order = sorted(range(len(packed)), key=lambda i: len(packed[i][0]))  # rows of like length pad least
    while order:
        # the longest first: of their batches the fewest rows fit
        T = row_length(len(packed[order[-1]][0]))
        rows = rows_within(config, T, most, 1 if mesh is None else mesh.size)
        chosen, order = order[-rows:], order[:-rows]
        columns_4xBxT = np.zeros((4, rows, T), np.int32)
        for row, i in enumerate(chosen):
            columns_4xBxT[:, row, : len(packed[i][0])] = packed[i]
        with _on(mesh):
            found_BxT = np.asarray(score_packed(config, mesh, weights, *_rows(mesh, *columns_4xBxT)))
        for row, i in enumerate(chosen):
            scores[i] = found_BxT[row, : len(packed[i][0])]
    out = []
    for (prefix, continuations), score_T in zip(groups, scores):
        cuts = np.cumsum([len(prefix), *map(len, continuations)])
        first, *rest = np.split(score_T, cuts[:-1])
        out.append((np.concatenate([[0.0], first[1:]]).astype(np.float32), rest))
    return out


def row_length(tokens: int) -> int:
    """What a row of so many tokens is padded to: of 64 x (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, ...), so that batches
    of unlike lengths meet in few programs and at most a fifth of the longest row is empty beyond 256 tokens."""
    step = ROW_STEP
    while tokens > 8 * step:
        step *= 2
    return -(-tokens // step) * step


def score_sequences(
    config: decoder.DecoderConfig, params: decoder.Params, sequences: Sequence[Sequence[int]], most: int = 8
) -> list[np.ndarray]:
    """log p(token t | tokens before t) of each sequence [T], 0 at t = 0; what several begin with is run once for them.

    Equal to `score` of each alone. ValueError: an empty sequence.
    """
    mesh = sharding.mesh_of(params)
    groups = shared_beginnings(sequences, most_tokens=row_within(config, 1 if mesh is None else mesh.size))
    pairs = [(sequences[at[0]][:cut], [sequences[i][cut:] for i in at]) for at, cut in groups]
    scores: list = [None] * len(sequences)
    for (at, _), (first, rest) in zip(groups, score_shared(config, params, pairs, most)):
        for i, own in zip(at, rest):
            scores[i] = np.concatenate([first, own]).astype(np.float32)
    return scores


def shared_beginnings(
    sequences: Sequence[Sequence[int]], longest: int = 4, most_tokens: int = 1 << 30
) -> list[tuple[list[int], int]]:
    """Groups (indices, tokens that all of them begin with), every sequence in one of them.

    Neighbours in lexicographic order join while they share at least half of what the group does, the packed row stays below
    `longest` times its longest sequence (rows of very unlike lengths would pad one another), and below most_tokens.
    """
    rows = [tuple(np.asarray(tokens).tolist()) for tokens in sequences]
    if not all(rows):
        raise ValueError("a sequence must hold at least one token")
    groups: list[tuple[list[int], int]] = []
    for i in sorted(range(len(rows)), key=rows.__getitem__):
        if groups:
            at, cut = groups[-1]
            common = next((n for n, (a, b) in enumerate(zip(rows[at[-1]], rows[i])) if a != b), None)
            common = min(cut, len(rows[i]), common if common is not None else len(rows[at[-1]]))
            lengths = [len(rows[j]) for j in (*at, i)]
            packed = common + sum(n - common for n in lengths)
            if 2 * common >= cut and common and packed <= min(longest * max(lengths), most_tokens):
                groups[-1] = ([*at, i], common)
                continue
        groups.append(([i], len(rows[i])))
    return groups
