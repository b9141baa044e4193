"""Log-probabilities in chunks of the vocabulary against the whole softmax: values, gradients, memory."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from synthrl_jax.policy import decoder
from synthrl_jax.policy.sharding import make_mesh
from synthrl_jax.policy.vocabulary import chunked_logprobs

N, D, V = 6, 5, 23
RANDOM = np.random.default_rng(0)
X, W = RANDOM.normal(size=(2, N // 2, D)).astype(np.float32), RANDOM.normal(size=(D, V)).astype(np.float32)
TARGETS = RANDOM.integers(0, V, (2, N // 2))
WEIGHTS = RANDOM.normal(size=(2, 2, N // 2)).astype(np.float32)


def whole(x, w):
    log_p = jax.nn.log_softmax(x @ w)
    return jnp.take_along_axis(log_p, TARGETS[..., None], -1)[..., 0], -(jnp.exp(log_p) * log_p).sum(-1)


@pytest.mark.parametrize("chunk", [1, 5, 22, 23, 100])
def test_chunked_equals_whole_in_values_and_gradients(chunk):
    def weighed(found):
        return (WEIGHTS[0] * found[0]).sum() + (WEIGHTS[1] * found[1]).sum()

    got = chunked_logprobs(jnp.array(X), jnp.array(W), TARGETS, chunk)
    for g, w in zip(got, whole(X, W)):
        np.testing.assert_allclose(g, w, atol=2e-5)
    gradients = jax.grad(lambda x, w: weighed(chunked_logprobs(x, w, TARGETS, chunk)), (0, 1))(X, W)
    for g, w in zip(gradients, jax.grad(lambda x, w: weighed(whole(x, w)), (0, 1))(X, W)):
        np.testing.assert_allclose(g, w, atol=5e-5)


def test_large_logits_stay_finite():
    logprob, entropy = chunked_logprobs(100 * jnp.array(X), jnp.array(W), TARGETS, 4)
    want = whole(100 * X, W)
    np.testing.assert_allclose(logprob, want[0], rtol=1e-4, atol=1e-3)
    assert np.isfinite(entropy).all()


@pytest.mark.parametrize("tied", [False, True])
def test_a_decoder_in_chunks_is_the_decoder(tied):
    config = decoder.DecoderConfig(vocab_size=37, width=16, layers=1, heads=2, tied=tied)
    params = decoder.init(config, jax.random.key(0))
    tokens = np.random.default_rng(1).integers(0, 37, (2, 9))
    segments = np.array([[1] * 4 + [2] * 5, [1] * 6 + [0] * 3])

    def total(config):
        def run(params):
            logprobs, entropy = decoder.token_logprobs(config, params, tokens, None, segments, entropy=True)
            return (logprobs * np.arange(9)).sum() + entropy.sum(), (logprobs, entropy)

        return jax.jit(jax.value_and_grad(run, has_aux=True))(params)

    want, got = total(config), total(dataclasses.replace(config, vocab_chunk=10))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=3e-5), want, got)


def test_over_a_mesh_that_splits_the_vocabulary_it_is_the_same():
    w = RANDOM.normal(size=(D, 24)).astype(np.float32)

    def run(x, w):
        return chunked_logprobs(x, w, TARGETS, 8)[0].sum()

    want = jax.value_and_grad(run, (0, 1))(X, w)
    with jax.set_mesh(make_mesh(data=2, tensor=4)):
        got = jax.jit(jax.value_and_grad(run, (0, 1)))(X, w)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=3e-5), want, got)


def test_no_array_holds_all_logits():
    tokens, width, vocab = 64, 8, 4096
    x, w = jnp.ones((1, tokens, width)), jnp.ones((width, vocab))
    targets = jnp.zeros((1, tokens), int)

    def peak(function):
        compiled = jax.jit(jax.grad(lambda x, w: function(x, w).sum(), (0, 1))).lower(x, w).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    chunked = peak(lambda x, w: chunked_logprobs(x, w, targets, 256)[0])
    assert chunked < tokens * vocab * 4 / 3
    assert peak(lambda x, w: jax.nn.log_softmax(x @ w)[..., 0]) >= tokens * vocab * 4
