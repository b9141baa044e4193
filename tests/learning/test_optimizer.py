"""The optimisers, and what is done about updates that would harm."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from synthrl_jax.credit.example import Example
from synthrl_jax.learning import optimizer
from synthrl_jax.learning.batches import Batches
from synthrl_jax.learning.losses import Loss
from synthrl_jax.learning.metrics import MEANINGS, TIMING_MEANINGS, model_flops, read_metrics
from synthrl_jax.learning.optimizer import OptimizerSettings
from synthrl_jax.learning.step import make_entropy
from synthrl_jax.learning.trainer import TrainSettings, train
from synthrl_jax.policy import decoder

CONFIG = decoder.DecoderConfig(vocab_size=16, width=16, layers=1, heads=2)
PARAMS = decoder.init(CONFIG, jax.random.key(0))
TOKENS = np.random.default_rng(0).integers(0, 16, (8, 9))


def rows(scales=None):
    scales = np.ones(8) if scales is None else scales
    return [Example(t, np.arange(9) > 1, arrays={"scale": np.array([s], np.float32)}) for t, s in zip(TOKENS, scales)]


def scaled(logprobs, batch):
    """SFT with each row's loss times its own number, so that a test can make one bad."""
    total = -(batch["mask"] * batch["scale"] * logprobs).sum()
    return Loss(total, batch["mask"].sum(), {})


def settings(updates=24, **fields):
    options = {"learning_rate": 1e-3, "schedule": "constant", "warmup": 0.0, **fields}
    return TrainSettings(
        loss="test_optimizer:scaled", optimizer=OptimizerSettings(**options), updates=updates, log_every=1
    )


def at_step(bad, value):
    """Batches of one row, of which the one at step `bad` is scaled by `value`."""
    batches = Batches(rows(), batch=1, seed=0, pad_id=0)
    real = batches.at

    def at(step):
        out = real(step)
        return out | {"scale": out["scale"] * value} if step == bad else out

    batches.at = at
    return batches


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_update_that_is_not_finite_is_skipped_and_said(value, capsys, tmp_path):
    result = train(CONFIG, PARAMS, at_step(3, value), settings(6, bad="skip"), workdir=tmp_path)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(result.params))
    assert "update 4 was skipped" in capsys.readouterr().out
    assert [row["skipped"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [0, 0, 0, 1, 1, 1]
    with pytest.raises(FloatingPointError, match=r"loss is .* at update 4"):
        train(CONFIG, PARAMS, at_step(3, value), settings(6))


def test_a_skip_between_two_rows_of_the_log_is_said(capsys):
    sparse = dataclasses.replace(settings(6, bad="skip"), log_every=6)
    train(CONFIG, PARAMS, at_step(2, np.nan), sparse)
    assert "update 3 was skipped" in capsys.readouterr().out


def root(logprobs, batch):
    """Finite everywhere, its gradient is not where `scale` is 0: the slope of a square root there."""
    bent = jnp.sqrt(batch["scale"].sum() * jnp.abs(logprobs).sum())
    return Loss(bent - (batch["mask"] * logprobs).sum(), batch["mask"].sum(), {})


@pytest.mark.parametrize(("value", "what"), [(np.nan, "loss"), (0.0, "gradient's norm")])
def test_no_checkpoint_holds_what_a_bad_update_left_and_a_clean_run_goes_on_from_there(tmp_path, value, what):
    options = dataclasses.replace(settings(8), loss="test_optimizer:root", log_every=20, save_every=2)
    with pytest.raises(FloatingPointError, match=f"{what} is nan at update 5"):
        train(CONFIG, PARAMS, at_step(4, value), options, workdir=tmp_path)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["2", "4"]
    clean = Batches(rows(), batch=1, seed=0, pad_id=0)
    again = train(CONFIG, PARAMS, clean, options, workdir=tmp_path)
    whole = train(CONFIG, PARAMS, clean, options)
    jax.tree.map(np.testing.assert_array_equal, again.params, whole.params)


def test_a_spike_is_left_out_as_if_its_update_had_not_been():
    transform = optimizer.guarded(optax.sgd(1.0), spike=6.0)
    params = {"w": jnp.zeros(())}
    state = transform.init(params)
    for loss in [*np.linspace(2.0, 2.2, optimizer.GUARD_WARMUP), 50.0, 2.1]:
        updates, state = transform.update({"w": jnp.ones(())}, state, params, value=jnp.float32(loss))
        params = optax.apply_updates(params, updates)
    assert int(state.bad) == 1 and float(params["w"]) == -(optimizer.GUARD_WARMUP + 1)
    assert 2.0 < float(state.mean) < 2.2


def test_rounding_above_a_constant_loss_is_no_spike():
    transform = optimizer.guarded(optax.sgd(1.0), spike=6.0)
    params = {"w": jnp.zeros(())}
    for level in (0.0, 1.0):
        state = transform.init(params)
        for loss in [level] * optimizer.GUARD_WARMUP + [level + 3e-7]:
            _, state = transform.update(params, state, params, value=jnp.float32(loss))
        assert int(state.bad) == 0
        _, state = transform.update(params, state, params, value=jnp.float32(level + 0.1))
        assert int(state.bad) == 1


def test_a_spike_stops_the_run_where_the_rule_says_so():
    with pytest.raises(FloatingPointError, match="standard deviations"):
        train(CONFIG, PARAMS, at_step(22, 100.0), settings(24, spike=8.0))


def test_adafactor_learns_and_its_state_is_small():
    big = decoder.DecoderConfig(vocab_size=64, width=64, layers=2, heads=2)
    params = decoder.init(big, jax.random.key(0))
    sizes = {}
    for name in optimizer.OPTIMIZERS:
        transform = optimizer.make(OptimizerSettings(learning_rate=1e-3, name=name), 10)
        sizes[name] = sum(x.size for x in jax.tree.leaves(jax.eval_shape(transform.init, params)))
    assert sizes["adafactor"] < 0.1 * sizes["adamw"]
    batches = Batches(rows(), batch=8, seed=0, pad_id=0)
    result = train(CONFIG, PARAMS, batches, settings(30, name="adafactor", learning_rate=0.02))
    before, after = (-float(decoder.token_logprobs(CONFIG, p, TOKENS).mean()) for p in (PARAMS, result.params))
    assert after < 0.7 * before


def test_adafactor_takes_each_layer_by_itself():
    params = {"layers": {"q": jnp.ones((50, 33, 2, 34))}}
    gradients = [jax.tree.map(lambda x, n=n: jax.random.normal(jax.random.key(n), x.shape), params) for n in range(2)]
    gradients[1]["layers"]["q"] *= 10.0 ** jnp.linspace(-2, 2, 50)[:, None, None, None]

    def last(transform):
        @jax.jit
        def run(params, gradients):
            state = transform.init(params)
            for gradient in gradients:
                updates, state = transform.update(gradient, state, params)
            return updates

        return run

    found = last(optimizer.factored_by_layer())(params, gradients)
    alone = last(optax.chain(optax.scale_by_factored_rms(min_dim_size_to_factor=32), optax.clip_by_block_rms(1.0)))
    for layer in (0, 49):
        want = alone(*jax.tree.map(lambda x, layer=layer: x[layer], (params, gradients)))
        jax.tree.map(lambda a, b, at=layer: np.testing.assert_allclose(a[at], b, rtol=1e-5), found, want)


@pytest.mark.parametrize("wrong", [{"name": "sgd"}, {"bad": "ignore"}, {"spike": -1.0}, {"schedule": "step"}])
def test_unknown_words_are_refused(wrong):
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        OptimizerSettings(learning_rate=1.0, **wrong)


def test_every_metric_of_a_run_has_its_meaning(tmp_path):
    pairs = [
        Example(t, np.arange(9) > 2, pair=(str(i // 2), ("chosen", "rejected")[i % 2]), ref_logprobs=-np.ones(9))
        for i, t in enumerate(TOKENS)
    ]
    options = TrainSettings(
        loss="dpo",
        loss_args={"beta": 0.1},
        optimizer=OptimizerSettings(learning_rate=1e-3, bad="skip"),
        updates=6,
        log_every=2,
        profile=1,
    )
    train(CONFIG, PARAMS, Batches(pairs, batch=2, seed=0, pad_id=0), options, workdir=tmp_path)
    written = {name for row in read_metrics(tmp_path / "metrics.jsonl") for name in row}
    assert {"loss", "entropy", "reference_kl", "chosen_logprob", "gradient_norm", "skipped"} <= written <= set(MEANINGS)
    timing = {name for row in read_metrics(tmp_path / "timing.jsonl") for name in row}
    assert {"trained_tokens_per_second", "real_share", "peak_bytes"} <= timing <= {"step", *TIMING_MEANINGS}
    assert list((tmp_path / "tensorboard").rglob("*.xplane.pb"))
    beside = json.loads((tmp_path / "metrics_meanings.json").read_text())
    assert beside == {"metrics.jsonl": MEANINGS, "timing.jsonl": TIMING_MEANINGS}


def told(logprobs, batch):
    """A user's loss with a metric of its own."""
    total, count = -(batch["mask"] * logprobs).sum(), batch["mask"].sum()
    return Loss(total, count, {"surprise": (total, count)})


def test_metrics_of_a_loss_from_outside_name_it_in_the_file_and_in_tensorboard(tmp_path):
    options = dataclasses.replace(settings(2), loss="test_optimizer:told")
    train(CONFIG, PARAMS, Batches(rows(), batch=2, seed=0, pad_id=0), options, workdir=tmp_path)
    beside = json.loads((tmp_path / "metrics_meanings.json").read_text())
    added = beside["metrics.jsonl"].keys() - MEANINGS.keys()
    assert added == {"surprise"} and "test_optimizer:told" in beside["metrics.jsonl"]["surprise"]
    events = b"".join(path.read_bytes() for path in (tmp_path / "tensorboard").glob("events*"))
    assert MEANINGS["gradient_norm"].encode() in events


def test_entropy_is_the_mean_over_all_micro_batches():
    batch = {k: jnp.asarray(v) for k, v in Batches(rows(), batch=8, micro=2, seed=0, pad_id=0).at(0).items()}
    whole = {k: jnp.asarray(v) for k, v in Batches(rows(), batch=8, seed=0, pad_id=0).at(0).items()}
    entropy = make_entropy(CONFIG)
    assert float(entropy(PARAMS, batch)) == pytest.approx(float(entropy(PARAMS, whole)), rel=1e-5)
    assert len(batch["tokens"]) == 4


def test_schedules_are_those_by_hand():
    def rates(schedule, warmup):
        rate = optimizer.learning_rate(
            OptimizerSettings(learning_rate=2.0, schedule=schedule, warmup=warmup, final=0.1), 10
        )
        return [float(rate(update)) for update in range(11)]

    ramp = [1.0, 2.0]
    down = np.arange(9) / 8
    np.testing.assert_allclose(rates("linear", 0.2), ramp + list(2 - 1.8 * down), rtol=1e-6)
    np.testing.assert_allclose(rates("constant", 0.2), ramp + [2.0] * 9, rtol=1e-6)
    np.testing.assert_allclose(rates("cosine", 0.2), ramp + list(0.2 + 0.9 * (1 + np.cos(np.pi * down))), rtol=1e-6)
    np.testing.assert_allclose(rates("linear", 0.0), 2 - 1.8 * np.arange(11) / 10, rtol=1e-6)


@pytest.mark.parametrize("norm", [0.5, 40.0])
def test_gradients_are_cut_to_the_clips_global_norm(norm):
    random = np.random.default_rng(0)
    params = {"layers": {"gate": jnp.ones((2, 3, 3))}, "embed": jnp.ones((4, 3))}
    drawn = jax.tree.map(lambda x: random.standard_normal(x.shape), params)
    whole = np.sqrt(sum((x**2).sum() for x in jax.tree.leaves(drawn)))
    gradients = jax.tree.map(lambda x: jnp.asarray(x * norm / whole, jnp.float32), drawn)
    transform = optimizer.make(OptimizerSettings(learning_rate=0.1, clip=2.0, b1=0.9), 10)
    _, state = transform.update(gradients, transform.init(params), params)
    cut = 0.1 * min(1.0, 2.0 / norm)  # Adam's first moment is (1 - b1) of what it was given
    jax.tree.map(lambda m, g: np.testing.assert_allclose(m, cut * g, rtol=1e-5), optax.tree.get(state, "mu"), gradients)


def test_a_trace_longer_than_the_run_is_cut_and_one_that_a_failure_ends_is_closed(tmp_path):
    options = dataclasses.replace(settings(3), profile=5)
    traces = lambda name: list((tmp_path / name / "tensorboard").rglob("*.xplane.pb"))  # noqa: E731
    with pytest.raises(FloatingPointError):
        train(CONFIG, PARAMS, at_step(1, np.nan), options, workdir=tmp_path / "fails")
    train(CONFIG, PARAMS, at_step(1, 1.0), options, workdir=tmp_path / "short")
    assert traces("fails") and traces("short")


def test_model_flops_are_six_a_token_and_parameter_and_attention():
    config = decoder.DecoderConfig(vocab_size=10, width=8, layers=3, heads=2, mlp_width=16)
    matrices = 3 * (4 * 8 * 8 + 3 * 8 * 16)
    attention = 3 * 12 * 8 * 5.5  # 12 L H d a token and token seen
    assert model_flops(config, 10, 4, 5.5) == pytest.approx(10 * (6 * matrices + attention) + 6 * 4 * 8 * 10)
    frozen = 10 * (4 * matrices + attention) + 4 * 4 * 8 * 10  # no gradient of a frozen matrix
    assert model_flops(config, 10, 4, 5.5, adapters=7) == pytest.approx(frozen + 6 * 10 * 7)
