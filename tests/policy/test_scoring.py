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
    for (prefix, continuations), (first, rest) in zip(groups, scoring.score_shared(CONFIG, PARAMS, groups, rows=3)):
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
