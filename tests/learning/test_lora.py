"""Low-rank adapters: applied equals merged, and only they are trained."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from synthrl_jax.credit.example import Example
from synthrl_jax.learning import lora
from synthrl_jax.learning.batches import Batches
from synthrl_jax.learning.lora import LoraSettings
from synthrl_jax.learning.optimizer import OptimizerSettings
from synthrl_jax.learning.trainer import TrainSettings, train
from synthrl_jax.policy import decoder
from synthrl_jax.policy.sharding import make_mesh

CONFIG = decoder.DecoderConfig(vocab_size=16, width=16, layers=2, heads=2, qkv_bias=True)
PARAMS = decoder.init(CONFIG, jax.random.key(0))
TOKENS = np.random.default_rng(0).integers(0, 16, (3, 8))


def adapters_that_do_something(settings):
    fresh = lora.init(PARAMS, settings, jax.random.key(1))
    return jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(2), x.shape), fresh)


@pytest.mark.parametrize("targets", [("q", "v"), ("q", "k", "v", "o", "gate", "up", "down")])
def test_merged_weights_equal_the_adapters_applied_in_values_and_gradients(targets):
    settings = LoraSettings(rank=3, alpha=6.0, targets=targets)
    config, adapters = settings.config(CONFIG), adapters_that_do_something(settings)
    assert config.lora_scale == 2.0

    def applied(adapters):
        return decoder.token_logprobs(config, lora.join(PARAMS, adapters), TOKENS).sum()

    def merged(adapters):
        return decoder.token_logprobs(CONFIG, lora.merge(config, lora.join(PARAMS, adapters)), TOKENS).sum()

    want, got = (jax.jit(jax.value_and_grad(f))(adapters) for f in (merged, applied))
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-4, rtol=1e-4), want, got)
    assert all(jnp.abs(g).max() > 0 for g in jax.tree.leaves(got[1]))
    plain = decoder.token_logprobs(CONFIG, PARAMS, TOKENS).sum()
    assert abs(float(plain) - float(got[0])) > 1e-2
    assert float(applied(lora.init(PARAMS, settings, jax.random.key(1)))) == pytest.approx(float(plain), abs=1e-4)


def test_training_moves_the_targets_alone_and_saves_only_adapters(tmp_path):
    rows = [Example(row, np.arange(8) > 2) for row in TOKENS]
    settings = TrainSettings(
        loss="sft",
        optimizer=OptimizerSettings(learning_rate=0.05),
        updates=4,
        looks=2,
        lora=LoraSettings(rank=2, targets=("q", "down")),
    )
    batches = Batches(rows, batch=2, seed=0, pad_id=0)
    result = train(CONFIG, PARAMS, batches, settings, workdir=tmp_path)
    moved = jax.tree_util.tree_map_with_path(lambda path, a, b: not np.array_equal(a, b), PARAMS, result.params)
    assert moved["layers"]["q"] and moved["layers"]["down"]
    assert sum(jax.tree.leaves(moved)) == 2
    size = sum(f.stat().st_size for f in (tmp_path / "checkpoints").rglob("*") if f.is_file())
    # an AdamW state of everything would hold three times the parameters
    assert size < 3 * sum(x.nbytes for x in jax.tree.leaves(PARAMS))
    again = train(CONFIG, PARAMS, batches, settings, workdir=tmp_path)
    jax.tree.map(np.testing.assert_array_equal, again.params, result.params)


@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
def test_a_run_in_bfloat16_merges_in_float32_into_the_weights_that_it_was_given(stored):
    params = jax.tree.map(lambda x: x.astype(stored), PARAMS)
    settings = TrainSettings(
        loss="sft",
        optimizer=OptimizerSettings(learning_rate=1e-3),
        updates=3,
        lora=LoraSettings(rank=2, targets=("gate",)),
    )
    batches = Batches([Example(row, np.arange(8) > 2) for row in TOKENS], batch=3, seed=0, pad_id=0)
    result = train(dataclasses.replace(CONFIG, dtype="bfloat16"), params, batches, settings)
    moved = jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b, np.float32), result.params, params)
    gates = moved["layers"].pop("gate")
    assert all((x == 0).all() for x in jax.tree.leaves(moved))
    # rounded to bfloat16 anywhere, what moved would not have the adapters' rank
    values = np.linalg.svd(gates, compute_uv=False)
    assert (values[:, 0] > 1e-3).all() and (values[:, 2:] < 1e-6).all()


@pytest.mark.long
def test_adapters_on_a_mesh_train_alike():
    rows = [Example(row, np.arange(8) > 2) for row in np.tile(TOKENS, (2, 1))[:4]]
    settings = TrainSettings(
        loss="sft", optimizer=OptimizerSettings(learning_rate=0.01), updates=2, lora=LoraSettings(rank=2)
    )
    batches = Batches(rows, batch=4, seed=0, pad_id=0)
    alone = train(CONFIG, PARAMS, batches, settings)
    spread = train(CONFIG, PARAMS, batches, settings, mesh=make_mesh(data=2, fsdp=2, tensor=2))
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=2e-4), alone.params, spread.params)


def test_settings_that_train_nothing_are_refused():
    for wrong in (
        {"rank": -1},
        {"rank": 2, "targets": ()},
        {"rank": 2, "targets": ("query",)},
        {"rank": 1, "alpha": 0},
    ):
        with pytest.raises(ValueError, match="lora"):
            dataclasses.replace(LoraSettings(), **wrong)
