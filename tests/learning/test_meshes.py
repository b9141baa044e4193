"""One step is the same step on one device, on eight, and on two processes of four."""

import contextlib
import functools
import json

import jax
import jax.numpy as jnp
import jobs
import numpy as np
import optax
import pytest

from synthrl_jax.credit.example import Example
from synthrl_jax.learning.batches import Batches
from synthrl_jax.learning.optimizer import OptimizerSettings
from synthrl_jax.learning.step import find_loss, make_step
from synthrl_jax.learning.trainer import TrainSettings, train
from synthrl_jax.policy import decoder, sharding
from synthrl_jax.policy.sharding import make_mesh

CONFIG = decoder.DecoderConfig(
    vocab_size=32, width=32, layers=2, heads=8, kv_heads=8, scan=True, remat="full", vocab_chunk=16, mlp_width=64
)
PARAMS = decoder.init(CONFIG, jax.random.key(0))
MESHES = {
    "data": {"data": 8},
    "fsdp": {"data": 1, "fsdp": 8},
    "tensor": {"data": 1, "tensor": 8},
    "mixed": {"data": 2, "fsdp": 2, "tensor": 2},
}


def rows(loss):
    random = np.random.default_rng(0)
    out = []
    for i in range(32 if loss == "dpo" else 16):
        tokens = random.integers(0, 32, random.integers(6, 16))
        pair = (f"p{i // 2}", ("chosen", "rejected")[i % 2]) if loss == "dpo" else None
        ref = -random.random(len(tokens)).astype(np.float32)
        weight = np.full(len(tokens), 0.5 + random.random()) if loss == "sft" else None
        out.append(Example(tokens, np.arange(len(tokens)) > 2, weight=weight, pair=pair, ref_logprobs=ref))
    return out


@functools.cache
def one_update(loss, name="adamw", pack="none", mesh=None):
    # weight decay and a large rate, so that a parameter that is not updated alike shows
    settings = TrainSettings(
        loss=loss,
        loss_args={"beta": 0.5} if loss == "dpo" else {},
        optimizer=OptimizerSettings(learning_rate=0.03, name=name, weight_decay=0.1, warmup=0.0),
        updates=1,
    )
    batches = Batches(rows(loss), batch=16, micro=8, seed=0, pad_id=0, pack=pack, pack_length=32)
    mesh = make_mesh(**MESHES[mesh]) if mesh else None
    return train(CONFIG, PARAMS, batches, settings, mesh=mesh).params


def assert_same_update(got, want):
    # Adam's first step divides a gradient by itself: where that is near zero its sign is chance, so moves are compared by mass
    for a, b, start in zip(jax.tree.leaves(got), jax.tree.leaves(want), jax.tree.leaves(PARAMS), strict=True):
        off, moved = np.abs(np.asarray(a) - b), np.abs(np.asarray(b) - start)
        assert off.sum() < 1e-3 * moved.sum() and (off > 1e-4).mean() < 2e-3


@functools.cache
def gradients(loss, mesh=None, micro=8):
    """What a step without Adam's division and clip takes away, and its metrics: of rows of unequal lengths and pair weights."""
    mesh = make_mesh(**MESHES[mesh]) if mesh else None
    batches = Batches(rows(loss), batch=16, micro=micro, seed=0, pad_id=0)
    place = functools.partial(sharding.put_batch, mesh) if mesh else jnp.asarray
    batch = {name: place(array) for name, array in batches.at(0).items()}
    step = make_step(CONFIG, find_loss(loss, {"beta": 0.5} if loss == "dpo" else {}), optax.sgd(1.0), mesh=mesh)
    start = jax.tree.map(jnp.array, PARAMS)
    if mesh:
        start = jax.device_put(start, sharding.shardings(CONFIG, mesh))
    with jax.set_mesh(mesh) if mesh else contextlib.nullcontext():
        after, _, metrics = step(start, optax.sgd(1.0).init(start), batch)
    gradients = jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), PARAMS, after)
    return gradients, {name: float(value) for name, value in metrics.items()}


def assert_same_gradients(found, wanted):
    for a, b in zip(jax.tree.leaves(found[0]), jax.tree.leaves(wanted[0]), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-5 * np.abs(b).max())
    assert found[1] == pytest.approx(wanted[1], rel=1e-4, abs=1e-6)
    assert wanted[1]["gradient_norm"] > 0.01


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("loss", ["sft", "dpo"])
def test_gradients_and_metrics_on_eight_devices_are_those_of_one(loss, mesh):
    assert_same_gradients(gradients(loss, mesh), gradients(loss))


@pytest.mark.parametrize("micro", [2, 4, 16])
@pytest.mark.parametrize("loss", ["sft", "dpo"])
def test_gradients_and_metrics_of_micro_batches_are_those_of_the_whole(loss, micro):
    assert_same_gradients(gradients(loss, micro=micro), gradients(loss))


@pytest.mark.parametrize("mesh", MESHES)
def test_a_step_of_adamw_on_eight_devices_equals_one_device(mesh):
    assert_same_update(one_update("dpo", mesh=mesh), one_update("dpo"))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "pack"), [("adafactor", "none"), ("adamw", "tree"), ("adamw", "segments")])
def test_factored_state_and_packed_rows_on_a_mixed_mesh_too(name, pack):
    assert_same_update(one_update("dpo", name, pack, mesh="mixed"), one_update("dpo", name))


def test_parameters_and_optimiser_state_lie_split_over_the_mesh():
    from synthrl_jax.learning import optimizer

    mesh = make_mesh(**MESHES["mixed"])
    shapes, where = decoder.shapes(CONFIG), sharding.shardings(CONFIG, mesh)
    transform = optimizer.make(OptimizerSettings(learning_rate=1e-3), 10)
    state = sharding.state_shardings(transform, shapes, where, mesh)
    moments = optax.tree.get(state, "mu")
    assert moments["layers"]["q"].spec == where["layers"]["q"].spec
    assert {"fsdp", "tensor"} <= set(where["layers"]["q"].spec)
    factored = optimizer.make(OptimizerSettings(learning_rate=1e-3, name="adafactor"), 10)
    rows = optax.tree.get(sharding.state_shardings(factored, shapes, where, mesh), "v_row")
    assert any("tensor" in tuple(leaf.spec) or "fsdp" in tuple(leaf.spec) for leaf in jax.tree.leaves(rows))


def test_a_mesh_over_slices_puts_data_across_them():
    class Device:
        def __init__(self, i):
            self.id, self.slice_index, self.process_index, self.platform = i, i // 4, i // 4, "cpu"
            self.device_kind, self.client = "cpu", None

        def __repr__(self):
            return str(self.id)

    mesh = make_mesh(data=2, fsdp=2, tensor=2, devices=[Device(i) for i in range(8)])
    slices = np.vectorize(lambda device: device.slice_index)(mesh.devices)
    assert (slices[0] == 0).all() and (slices[1] == 1).all()
    with pytest.raises(ValueError, match="slices"):
        make_mesh(data=1, fsdp=8, devices=[Device(i) for i in range(8)])


@pytest.mark.slow
@pytest.mark.parametrize(
    "mesh", [pytest.param({"data": 4, "fsdp": 2}, marks=pytest.mark.long), {"data": 2, "fsdp": 2, "tensor": 2}]
)
def test_two_processes_of_four_devices_equal_one_device(tmp_path, mesh):
    job = {"loss": "dpo", "updates": 3, "looks": 1}
    jobs.run(tmp_path / "one", **job)
    jobs.run_on_two(tmp_path / "two", mesh=mesh, **job)
    jobs.assert_close(tmp_path / "one", tmp_path / "two")
    for a, b in zip(*([json.loads(row) for row in (tmp_path / d / "metrics.jsonl").open()] for d in ("one", "two"))):
        assert a == pytest.approx(b, abs=1e-3)
