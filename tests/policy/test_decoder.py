"""The decoder against what it must not see, against its own cache, and against separate segments."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from synthrl_jax.policy import decoder

SMALL = {"vocab_size": 37, "width": 32, "layers": 2, "heads": 4}
SHAPES = {
    "mha": {},
    "gqa": {"kv_heads": 2},
    "tied, QKV bias": {"tied": True, "qkv_bias": True, "kv_heads": 1},
    "q/k norm, wide heads": {"qk_norm": True, "head_dim": 12},
}


@functools.cache
def model(name):
    config = decoder.DecoderConfig(**SMALL, **SHAPES[name])
    params = jax.tree.map(np.asarray, decoder.init(config, jax.random.key(1)))
    # biases and scales start at 0 and 1: move them, or a missing one would not show
    random = np.random.default_rng(2)
    return config, jax.tree.map(lambda x: (x + 0.1 * random.standard_normal(x.shape)).astype(np.float32), params)


def tokens(rows, length, seed=0):
    return np.random.default_rng(seed).integers(0, SMALL["vocab_size"], (rows, length), dtype=np.int64)


@pytest.mark.parametrize("name", ["mha", "gqa"])
def test_no_logit_depends_on_a_later_token(name):
    config, params = model(name)
    T = 5
    rows = tokens(1, T)[0]
    weights = decoder.unstack(config, params)

    @jax.jit
    def slopes(embedded_TxD):
        def logits(embedded_TxD):
            rope, x = decoder.rope_table(config, jnp.arange(T)[None]), embedded_TxD[None]
            for layer in weights["layers"]:
                x, _ = decoder.Block(config).apply({"params": layer}, x, rope, decoder.causal_attend(config, T, None))
            return decoder.unembed(config, params, decoder.final_norm(config, params, x))[0]

        return logits(embedded_TxD), jax.jacrev(logits)(embedded_TxD)

    logits, slopes_TxVxTxD = slopes(jnp.asarray(params["embed"])[rows])
    slopes_TxT = np.abs(slopes_TxVxTxD).sum(axis=(1, 3))
    assert (slopes_TxT[np.triu_indices(T, 1)] == 0).all()
    assert (slopes_TxT[np.tril_indices(T)] > 0).all()
    np.testing.assert_allclose(logits, decoder.logits(config, params, rows[None])[0], atol=1e-5)


@pytest.mark.parametrize("name", SHAPES)
def test_cached_decoding_equals_the_full_forward(name):
    config, params = model(name)
    lengths, T, steps = np.array([3, 6]), 6, 4
    full = tokens(2, T + steps)
    prompt = np.zeros((2, T), int)
    for row, length in enumerate(lengths):
        prompt[row, T - length :] = full[row, :length]
    first = T - lengths
    extend = jax.jit(decoder.extend, static_argnums=0)
    weights = decoder.unstack(config, params)
    cache = decoder.empty_cache(config, 2, T + steps)
    positions = np.maximum(np.arange(T) - first[:, None], 0)
    hidden, cache = extend(config, weights, prompt, positions, cache, 0, first)
    got = [decoder.unembed(config, weights, hidden[:, -1])]
    for step in range(steps - 1):
        fed = full[np.arange(2), lengths + step][:, None]
        at = (lengths + step)[:, None]
        hidden, cache = extend(config, weights, fed, at, cache, T + step, first)
        got.append(decoder.unembed(config, weights, hidden[:, -1]))
    want = decoder.logits(config, params, full)
    for row, length in enumerate(lengths):
        for step in range(steps):
            np.testing.assert_allclose(got[step][row], want[row, length - 1 + step], atol=2e-5)


def test_packed_segments_equal_separate_rows():
    config, params = model("gqa")
    a, b = tokens(1, 5, 1), tokens(1, 4, 2)
    packed = np.concatenate([a, b, np.zeros((1, 3), int)], axis=1)
    segments = np.array([[1] * 5 + [2] * 4 + [0] * 3])
    positions = np.array([[0, 1, 2, 3, 4, 0, 1, 2, 3, 0, 0, 0]])
    got = decoder.logits(config, params, packed, positions, segments)
    np.testing.assert_allclose(got[:, :5], decoder.logits(config, params, a), atol=1e-5)
    np.testing.assert_allclose(got[:, 5:9], decoder.logits(config, params, b), atol=1e-5)
    logprobs, entropy = decoder.token_logprobs(config, params, packed, positions, segments, entropy=True)
    alone = decoder.token_logprobs(config, params, b)
    np.testing.assert_allclose(logprobs[:, 5:9], alone, atol=1e-5)
    assert logprobs[0, 0] == logprobs[0, 5] == entropy[0, 5] == 0


def test_token_logprobs_and_entropy_are_those_of_the_softmax():
    config, params = model("mha")
    t = tokens(2, 9)
    logprobs, entropy = decoder.token_logprobs(config, params, t, entropy=True)
    log_p = np.asarray(jax.nn.log_softmax(decoder.logits(config, params, t)), np.float64)
    for row in range(2):
        for at in range(1, 9):
            np.testing.assert_allclose(logprobs[row, at], log_p[row, at - 1, t[row, at]], atol=1e-5)
            np.testing.assert_allclose(entropy[row, at], -(np.exp(log_p) * log_p)[row, at - 1].sum(), atol=1e-5)
    assert (np.asarray(logprobs)[:, 0] == 0).all()


@pytest.mark.parametrize("change", [{"scan": True}, {"remat": "full"}, {"remat": "dots", "scan": True}])
def test_scan_and_remat_change_no_gradient(change):
    config, params = model("gqa")
    t = tokens(2, 8)

    def grads(config):
        return jax.jit(jax.grad(lambda p: decoder.token_logprobs(config, p, t).sum()))(params)

    other = dataclasses.replace(config, **change)
    assert other != config
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=2e-5, rtol=1e-4), grads(config), grads(other))


def test_remat_keeps_what_it_says_for_the_backward_pass():
    config, params = model("gqa")
    t = tokens(2, 8)

    def kept(remat):
        """Elements that wait for the backward pass."""
        changed = dataclasses.replace(config, remat=remat, scan=True)
        back = jax.eval_shape(lambda p: jax.vjp(lambda p: decoder.token_logprobs(changed, p, t).sum(), p)[1], params)
        return sum(x.size for x in jax.tree.leaves(back))

    # q, k, v, o, gate and up of each token and layer; no gradient needs the result of `down`
    a_token = config.heads * config.head_dim + 2 * config.kv_heads * config.head_dim + 2 * config.mlp_width
    a_token += config.width
    assert kept("dots") - kept("full") == t.size * config.layers * a_token
    assert kept("none") > kept("dots")


def test_any_integer_type_is_taken_and_others_are_refused():
    config, params = model("mha")
    want = decoder.logits(config, params, tokens(1, 4))
    for dtype in (np.uint8, np.int16, np.uint32, np.int64):
        np.testing.assert_array_equal(decoder.logits(config, params, tokens(1, 4).astype(dtype)), want)
    assert want.dtype == jnp.float32
    with pytest.raises(TypeError, match="tokens must be integers, not float32"):
        decoder.logits(config, params, jnp.ones((1, 4)))


def test_a_token_outside_of_the_vocabulary_is_not_taken_for_another():
    config, params = model("mha")
    assert np.isnan(decoder.logits(config, params, np.array([[1, SMALL["vocab_size"]]]))[0, 1]).all()


def test_bfloat16_follows_float32_and_gives_float32_logits():
    config, params = model("gqa")
    t = tokens(2, 8)
    want = decoder.logits(config, params, t)
    got = decoder.logits(dataclasses.replace(config, dtype="bfloat16"), params, t)
    assert got.dtype == jnp.float32
    assert 1e-5 < np.abs(got - want).max() < 0.15 * np.abs(want).max()


@pytest.mark.parametrize(
    ("field", "value"),
    [("heads", 5), ("kv_heads", 3), ("head_dim", 7), ("attention", "flash"), ("remat", "some"), ("dtype", "float16")],
)
def test_a_config_that_cannot_be_computed_is_refused(field, value):
    with pytest.raises(ValueError, match=str(value)):
        decoder.DecoderConfig(**(SMALL | {field: value}))


def test_init_gives_logits_of_unit_scale_in_float32():
    for tied in (False, True):
        config = decoder.DecoderConfig(**SMALL, tied=tied)
        params = decoder.init(config, jax.random.key(0))
        assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float32")}
        assert 0.5 < decoder.logits(config, params, tokens(4, 16)).std() < 2.0
