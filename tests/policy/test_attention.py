"""The attention kernels behind the switch are one function, and trees are separate sequences."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from synthrl_jax.policy import attention, decoder
from synthrl_jax.policy.attention import Tree
from synthrl_jax.policy.sharding import make_mesh

B, T, H, K, d = 2, 128, 4, 2, 8
SEGMENTS = np.array([[1] * 50 + [2] * 60 + [0] * 18, [1] * 128], np.int32)


def inputs():
    random = np.random.default_rng(0)
    return [jnp.array(random.normal(size=(B, T, heads, d)), jnp.float32) for heads in (H, K, K)]


def value_and_gradients(attend):
    def run(q, k, v):
        o, _ = attend(q, k, v)
        return (jnp.where((SEGMENTS > 0)[..., None, None], o, 0) * jnp.arange(d)).sum(), o

    return jax.jit(jax.value_and_grad(run, (0, 1, 2), has_aux=True))(*inputs())


def same(got, want):
    (_, o), gradients = got
    (_, o_want), gradients_want = want
    real = SEGMENTS > 0
    np.testing.assert_allclose(np.asarray(o)[real], np.asarray(o_want)[real], atol=2e-5)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=2e-4), gradients, gradients_want)


@pytest.mark.parametrize("segments", [None, SEGMENTS])
def test_splash_and_cudnns_call_equal_xla(segments):
    want = value_and_gradients(attention.xla(T, segments))
    same(value_and_gradients(attention.splash(T, None if segments is None else jnp.array(segments))), want)
    # cuDNN itself needs a GPU; the call, its mask and its grouping of heads are jax's own
    same(value_and_gradients(attention.cudnn(T, segments, implementation="xla")), want)


def test_splash_runs_on_each_devices_rows_and_heads():
    want = value_and_gradients(attention.xla(T, SEGMENTS))
    with jax.set_mesh(make_mesh(data=2, tensor=2, devices=jax.devices()[:4])):
        same(value_and_gradients(attention.splash(T, jnp.array(SEGMENTS))), want)


def test_splash_refuses_rows_that_its_blocks_do_not_fit():
    with pytest.raises(ValueError, match="128"):
        attention.splash(100, None)


def test_the_decoder_takes_the_switch():
    config = decoder.DecoderConfig(vocab_size=11, width=16, layers=1, heads=2)
    params = decoder.init(config, jax.random.key(0))
    tokens = np.random.default_rng(0).integers(0, 11, (B, T))
    want = decoder.logits(config, params, tokens, None, SEGMENTS)
    got = decoder.logits(dataclasses.replace(config, attention="splash"), params, tokens, None, SEGMENTS)
    np.testing.assert_allclose(np.asarray(got)[SEGMENTS > 0], np.asarray(want)[SEGMENTS > 0], atol=2e-4)


def test_a_tree_of_three_levels_equals_its_sequences():
    # a trunk 0-1-2 with a side arm 0-1-3, branches from each; one branch of another, trunkless sequence
    config = decoder.DecoderConfig(vocab_size=31, width=16, layers=2, heads=4, kv_heads=2)
    params = decoder.init(config, jax.random.key(1))
    a, b, c, e = [1, 2, 3, 4], [1, 2, 3, 5, 6], [1, 2, 7, 8], [20, 21]
    trunk = [1, 2, 3, 0]
    tokens = np.array([[*trunk, 4, 5, 6, 0, 7, 8, 20, 21]])
    positions = np.array([[0, 1, 2, 0, 3, 3, 4, 0, 2, 3, 0, 1]])
    tree = Tree(
        ends=jnp.array([[3, 3, 3, 0]]),
        forks=jnp.array([[0, 1, 2, -1, 2, 2, 2, -1, 1, 1, -1, -1]]),
        branches=jnp.array([[[1, 2, 2, 0], [3, 3, 4, 4]]]),
    )
    got = decoder.unembed(config, params, decoder.hidden(config, params, tokens, positions, tree=tree))[0]
    for sequence, places in ((a, [0, 1, 2, 4]), (b, [0, 1, 2, 5, 6]), (c, [0, 1, 8, 9]), (e, [10, 11])):
        want = decoder.logits(config, params, np.array([sequence]))[0]
        np.testing.assert_allclose(got[np.array(places)], want, atol=2e-5)
