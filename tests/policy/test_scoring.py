"""Log-probabilities of many sequences equal those of each sequence alone."""

import jax
import numpy as np
import pytest

from synthrl_jax.policy import decoder, scoring

CONFIG = decoder.DecoderConfig(
    vocab_size=61, width=32, layers=2, heads=4, kv_heads=2, max_positions=256, dtype="float32"
)
PARAMS = jax.jit(decoder.init, static_argnums=0)(CONFIG, jax.random.key(0))


def alone(tokens) -> np.ndarray:
    """The log-probs of one sequence from the full logits."""
    logits = np.asarray(decoder.logits(CONFIG, PARAMS, np.array([tokens], np.int32)))[0].astype(np.float64)
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return np.array([0.0, *(log_probs[t - 1, tokens[t]] for t in range(1, len(tokens)))])


def test_a_shared_prefix_changes_no_logprob():
    rng = np.random.default_rng(0)
    groups = []
    for n in (0, 1, 3, 5):
        prefix = rng.integers(0, 61, int(rng.integers(1, 20))).tolist()
        groups.append((prefix, [rng.integers(0, 61, int(rng.integers(1, 9))).tolist() for _ in range(n)]))
    for (prefix, continuations), (first, rest) in zip(groups, scoring.score_shared(CONFIG, PARAMS, groups, most=3)):
        np.testing.assert_allclose(first, alone(prefix), atol=1e-4)
        assert len(rest) == len(continuations)
        for continuation, scores in zip(continuations, rest):
            np.testing.assert_allclose(scores, alone(prefix + continuation)[len(prefix) :], atol=1e-4)


def test_a_batch_changes_no_logprob():
    tokens = np.random.default_rng(1).integers(0, 61, (5, 12))
    scores = scoring.score(CONFIG, PARAMS, tokens, rows=4)
    for row, found in zip(tokens, scores):
        np.testing.assert_allclose(found, alone(row.tolist()), atol=1e-4)


def test_an_empty_prefix_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        scoring.score_shared(CONFIG, PARAMS, [([], [[1]])])


def test_sequences_that_begin_alike_are_scored_as_alone():
    rng = np.random.default_rng(2)
    prompts = [rng.integers(0, 61, n).tolist() for n in (7, 20, 3)]
    sequences = [prompts[i % 3] + rng.integers(0, 61, int(rng.integers(0, 12))).tolist() for i in range(20)]
    sequences += [sequences[4], sequences[5][:-1] or [1], [9]]
    found = scoring.score_sequences(CONFIG, PARAMS, [np.array(row) for row in sequences], most=4)
    for tokens, scores in zip(sequences, found, strict=True):
        np.testing.assert_allclose(scores, alone(tokens), atol=1e-4)
    groups = scoring.shared_beginnings(sequences)
    assert sorted(i for at, _ in groups for i in at) == list(range(len(sequences)))
    assert all(len({tuple(sequences[i][:cut]) for i in at}) == 1 for at, cut in groups)
    computed = sum(cut + sum(len(sequences[i]) - cut for i in at) for at, cut in groups)
    assert computed < 0.7 * sum(map(len, sequences))


def test_an_empty_sequence_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        scoring.score_sequences(CONFIG, PARAMS, [[1], []])
