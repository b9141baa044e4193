"""The training loop: accumulation, resume, the best look, and a loss from outside of the package."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from synthrl_jax.credit.example import Example
from synthrl_jax.learning import optimizer
from synthrl_jax.learning.batches import Batches
from synthrl_jax.learning.losses import Loss
from synthrl_jax.learning.metrics import MetricWriter, read_metrics
from synthrl_jax.learning.optimizer import OptimizerSettings
from synthrl_jax.learning.trainer import TrainSettings, train
from synthrl_jax.policy import decoder
from synthrl_jax.policy.sharding import make_mesh

CONFIG = decoder.DecoderConfig(vocab_size=16, width=16, layers=2, heads=2, tied=True)
PARAMS = decoder.init(CONFIG, jax.random.key(0))


def rows(count=12, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(4, 14, count)
    return [Example(rng.integers(0, 16, n), np.arange(n) >= n // 2) for n in lengths]


def settings(updates=6, **fields):
    return TrainSettings(
        **({"loss": "sft", "optimizer": OptimizerSettings(learning_rate=1e-2), "updates": updates} | fields)
    )


def equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def close(a, b, atol=1e-5):
    return all(np.allclose(x, y, atol=atol) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def unigram_entropy_loss(logprobs, batch, *, entropy, scale):
    """A loss that a user might write: likelihood with a bonus for entropy."""
    total = -(batch["mask"] * (logprobs + scale * entropy)).sum()
    return Loss(total, batch["mask"].sum(), {"entropy": ((batch["mask"] * entropy).sum(), batch["mask"].sum())})


@pytest.mark.parametrize("micro", [1, 2, 6])
def test_accumulated_micro_batches_equal_the_large_batch(micro):
    one = train(CONFIG, PARAMS, Batches(rows(), batch=6, seed=0, pad_id=0), settings(2))
    many = train(CONFIG, PARAMS, Batches(rows(), batch=6, micro=micro, seed=0, pad_id=0), settings(2))
    assert close(one.params, many.params)
    assert not close(one.params, PARAMS)


@pytest.mark.long  # tests/learning/test_meshes.py holds it for each mesh
def test_one_step_on_eight_devices_equals_one_device():
    alone = train(CONFIG, PARAMS, Batches(rows(16), batch=8, seed=0, pad_id=0), settings(1))
    for sizes in ({"data": 8}, {"data": 2, "fsdp": 4}, {"data": 2, "fsdp": 2, "tensor": 2}):
        spread = train(
            CONFIG, PARAMS, Batches(rows(16), batch=8, seed=0, pad_id=0), settings(1), mesh=make_mesh(**sizes)
        )
        assert close(alone.params, spread.params), sizes


class Stop(Exception):
    pass


def test_an_interrupted_run_ends_like_an_uninterrupted_one(tmp_path):
    def validate(params):
        return -float(jnp.abs(params["embed"]).sum())

    batches = Batches(rows(), batch=4, seed=0, pad_id=0)
    whole = train(CONFIG, PARAMS, batches, settings(9, looks=3, log_every=1), validate=validate, workdir=tmp_path / "a")

    looks = []

    def interrupting(params):
        looks.append(validate(params))
        if len(looks) == 2:
            raise Stop
        return looks[-1]

    with pytest.raises(Stop):
        train(CONFIG, PARAMS, batches, settings(9, looks=3, log_every=1), validate=interrupting, workdir=tmp_path / "b")
    again = train(CONFIG, PARAMS, batches, settings(9, looks=3, log_every=1), validate=validate, workdir=tmp_path / "b")
    assert equal(whole.params, again.params)
    assert (whole.best_update, whole.looks) == (again.best_update, again.looks)
    assert read_metrics(tmp_path / "a" / "metrics.jsonl") == read_metrics(tmp_path / "b" / "metrics.jsonl")


def test_the_parameters_of_the_best_look_are_returned():
    scores = iter([0.1, 0.9, 0.3])
    seen = []

    def validate(params):
        seen.append(jax.tree.map(np.asarray, params))
        return next(scores)

    result = train(CONFIG, PARAMS, Batches(rows(), batch=4, seed=0, pad_id=0), settings(6, looks=3), validate=validate)
    assert result.best_update == 4 and equal(result.params, seen[1]) and not equal(result.params, seen[2])
    assert result.looks == [(2, 0.1), (4, 0.9), (6, 0.3)]


def test_patience_ends_training_after_looks_without_a_new_best():
    scores = iter([0.5, 0.4, 0.3, 0.9, 0.9, 0.9])
    batches = Batches(rows(), batch=4, seed=0, pad_id=0)
    result = train(CONFIG, PARAMS, batches, settings(6, looks=6, patience=2), validate=lambda p: next(scores))
    assert [update for update, _ in result.looks] == [1, 2, 3] and result.best_update == 1


def test_a_look_without_a_score_is_never_the_best_and_a_run_without_any_fails():
    batches = Batches(rows(), batch=4, seed=0, pad_id=0)
    scores = iter([np.nan, -np.inf, np.nan])
    assert train(CONFIG, PARAMS, batches, settings(6, looks=3), validate=lambda p: next(scores)).best_update == 4
    with pytest.raises(FloatingPointError, match="all are NaN"):
        train(CONFIG, PARAMS, batches, settings(6, looks=3), validate=lambda p: np.nan)


def test_trains_with_a_loss_defined_here():
    batches = Batches(rows(), batch=6, seed=0, pad_id=0)
    own = settings(20, loss="test_trainer:unigram_entropy_loss", loss_args={"scale": 5.0})
    spread, plain = train(CONFIG, PARAMS, batches, own), train(CONFIG, PARAMS, batches, settings(20))

    def entropy(params):
        _, entropy_NxT = decoder.token_logprobs(CONFIG, params, batches.arrays["tokens"], entropy=True)
        return float((entropy_NxT * batches.arrays["mask"]).sum())

    assert entropy(spread.params) > entropy(plain.params)


def test_wrong_settings_and_a_diverged_loss_stop_the_run():
    batches = Batches(rows(), batch=4, seed=0, pad_id=0)
    with pytest.raises(ValueError, match="betta"):
        train(CONFIG, PARAMS, batches, settings(loss="dpo", loss_args={"betta": 1.0}))
    with pytest.raises(ValueError, match="unknown loss"):
        train(CONFIG, PARAMS, batches, settings(loss="sfd"))
    broken = jax.tree.map(lambda x: x * jnp.nan, PARAMS)
    with pytest.raises(FloatingPointError, match="loss is nan"):
        train(CONFIG, broken, batches, settings())


def test_the_schedule_warms_up_to_the_peak_and_decays():
    rates = optimizer.learning_rate(OptimizerSettings(learning_rate=1.0, warmup=0.2, final=0.1), 50)
    values = [float(rates(i)) for i in range(51)]
    assert values[0] > 0 and max(values) == pytest.approx(1.0) and np.argmax(values) in (9, 10)
    assert values[50] == pytest.approx(0.1, abs=0.01) and values[10:] == sorted(values[10:], reverse=True)


def test_weight_decay_pulls_on_matrices_only():
    marks = optimizer.decays(
        decoder.init(decoder.DecoderConfig(vocab_size=8, width=8, layers=1, heads=1, qkv_bias=True), jax.random.key(0))
    )
    flat = {"/".join(k.key for k in path): mark for path, mark in jax.tree_util.tree_leaves_with_path(marks)}
    assert flat["embed"] and flat["layers/q"] and flat["layers/down"]
    assert not any(flat[name] for name in flat if "norm" in name or "bias" in name)


def test_bfloat16_computes_over_float32_masters():
    import dataclasses

    half = dataclasses.replace(CONFIG, dtype="bfloat16")
    loaded = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
    batches = Batches(rows(), batch=12, seed=0, pad_id=0)
    # updates of 1e-4 of a weight are below bfloat16's steps of 1/256: without masters nothing would move
    slow = settings(
        30, optimizer=OptimizerSettings(learning_rate=1e-5, schedule="constant", warmup=0.0, weight_decay=0.0)
    )
    result = train(half, loaded, batches, slow)
    assert {x.dtype for x in jax.tree.leaves(result.params)} == {jnp.dtype("float32")}
    moved = [
        np.abs(np.asarray(a) - np.asarray(b, np.float32))
        for a, b in zip(*map(jax.tree.leaves, (result.params, loaded)))
    ]
    assert all(1e-4 < m.mean() < 4e-4 for m in moved)  # 30 steps of Adam at 1e-5
    same = train(CONFIG, jax.tree.map(lambda x: x.astype(jnp.float32), loaded), batches, slow)
    for got, want, start in zip(*map(jax.tree.leaves, (result.params, same.params, loaded))):
        a, b = np.asarray(got) - np.asarray(start, np.float32), np.asarray(want) - np.asarray(start, np.float32)
        assert (np.sign(a) == np.sign(b)).mean() > 0.8


def test_rows_before_a_checkpoint_survive_a_kill_at_any_moment_of_the_next_run(tmp_path):
    first = MetricWriter(tmp_path, tensorboard=False)
    for step in range(4):
        first.write(step, {"loss": 1.0})
    first.close()
    resumed = MetricWriter(tmp_path, resume_after=2, tensorboard=False)  # never closed: what is on disk now counts
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [0, 1, 2]
    resumed.write(3, {"loss": 2.0})
    assert [row["loss"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1, 1, 1, 2]
    third = float(np.float32(1e-4) / np.float32(3))
    resumed.write(4, {"loss": third})
    resumed.close()
    assert read_metrics(tmp_path / "metrics.jsonl")[-1]["loss"] == third  # to the last bit
