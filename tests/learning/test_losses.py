"""Losses against hand-worked numbers, torch, their own sums over micro-batches, and finite masks."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from synthrl_jax.learning.losses import LOSSES, PREFERENCE_LOSSES, Loss, add, named_loss, needs_entropy, sft

HYPER = {
    "sft": {},
    "advantage_weighted": {"beta": 0.7, "max_weight": 3.0},
    "dpo": {"beta": 0.3, "nll": 0.2},
    "ipo": {"beta": 0.3, "nll": 0.2},
    "dpo_positive": {"beta": 0.3, "penalty": 5.0},
}


def loss_of(name):
    return functools.partial(LOSSES[name], **HYPER[name])


def some_batch(rows, tokens=7, steps=3, seed=0):
    rng = np.random.default_rng(seed)
    logprobs = -rng.exponential(size=(rows, tokens)).astype(np.float32)
    logprobs[:, 0] = 0
    mask = rng.random((rows, tokens)) < 0.6
    mask[:, 0], mask[:, 1] = False, True
    batch = {
        "mask": mask,
        "weight": rng.random((rows, tokens)).astype(np.float32),
        "ref_logprobs": -rng.exponential(size=(rows, tokens)).astype(np.float32),
        "advantage": rng.normal(size=(rows, steps)).astype(np.float32),
        "step_ids": rng.integers(-1, steps, (rows, tokens)),
        "pair_weight": rng.random(rows // 2).astype(np.float32) + 0.1,
    }
    return logprobs, batch


def part_of(logprobs, batch, rows):
    part = {key: value[rows] for key, value in batch.items() if key != "pair_weight"}
    return logprobs[rows], part | {"pair_weight": batch["pair_weight"][rows.start // 2 : rows.stop // 2]}


def test_dpo_by_hand():
    # chosen: log pi = -1 + -2, log ref = -1.5 + -2.5, so +1; rejected: -1 against -0.5, so -0.5. margin 1.5.
    logprobs = jnp.array([[0.0, -1, -2, -9], [0, -1, -9, -9]])
    batch = {
        "mask": jnp.array([[0, 1, 1, 0], [0, 1, 0, 0]], bool),
        "ref_logprobs": jnp.array([[0.0, -1.5, -2.5, -5], [0, -0.5, -5, -5]]),
    }
    plain = LOSSES["dpo"](logprobs, batch, beta=2.0)
    assert float(plain.total) == pytest.approx(math.log(1 + math.exp(-3)), rel=1e-6)
    assert float(plain.weight) == 1
    # d/d margin = -beta * sigmoid(-beta margin), + for chosen tokens, - for rejected ones.
    gradient = jax.grad(lambda x: LOSSES["dpo"](x, batch, beta=2.0).total)(logprobs)
    slope = 2 / (1 + math.exp(3))
    np.testing.assert_allclose(gradient, [[0, -slope, -slope, 0], [0, slope, 0, 0]], rtol=1e-6)
    # nll .5 adds half of the chosen row's mean over its two tokens, (1 + 2) / 2.
    with_nll = LOSSES["dpo"](logprobs, batch, beta=2.0, nll=0.5)
    assert float(with_nll.total - plain.total) == pytest.approx(0.75)
    weighted = LOSSES["dpo"](logprobs, batch | {"pair_weight": jnp.array([4.0])}, beta=2.0, nll=0.5)
    assert float(weighted.total / weighted.weight) == pytest.approx(float(with_nll.total), rel=1e-6)
    metrics = {name: float(total / weight) for name, (total, weight) in plain.metrics.items()}
    assert metrics == pytest.approx(
        {
            "preference_accuracy": 1,
            "reward_margin": 3,
            "chosen_reward": 2,
            "rejected_reward": -1,
            "chosen_logprob": -3,
            "rejected_logprob": -1,
            "chosen_nll": 1.5,
            "reference_kl": -0.5 / 3,
        }
    )


def test_sft_by_hand():
    batch = {"mask": jnp.array([[False, True, True]]), "weight": jnp.array([[9.0, 2.0, 0.5]])}
    loss = sft(jnp.array([[-7.0, -1.0, -4.0]]), batch)
    assert (float(loss.total), float(loss.weight)) == (4.0, 2.0)
    assert [float(x) for x in loss.metrics["nll"]] == [5.0, 2.0]
    unweighted = sft(jnp.array([[-7.0, -1.0, -4.0]]), {"mask": batch["mask"]})
    assert float(unweighted.total) == 5.0


def test_advantage_weighted_by_hand_and_its_limit():
    batch = {
        "mask": jnp.array([[False, True, True, True]]),
        "weight": jnp.ones((1, 4)),
        "advantage": jnp.array([[0.5, 3.0]]),
        "step_ids": jnp.array([[-1, 0, 1, -1]]),
    }
    logprobs = jnp.array([[0.0, -1.0, -2.0, -8.0]])
    loss = LOSSES["advantage_weighted"](logprobs, batch, beta=0.5, max_weight=10.0)
    assert float(loss.total) == pytest.approx(math.e * 1 + 10 * 2, rel=1e-6)
    assert float(loss.weight) == 3
    assert float(loss.metrics["step_weight_at_cap"][0]) == 1
    everywhere = batch | {"step_ids": jnp.array([[-1, 0, 1, 1]])}
    limit = LOSSES["advantage_weighted"](logprobs, everywhere, beta=1e6, max_weight=10.0)
    assert float(limit.total) == pytest.approx(float(sft(logprobs, batch).total), rel=1e-5)


@pytest.mark.parametrize("name", PREFERENCE_LOSSES)
def test_preference_losses_equal_their_formulas_in_torch(name):
    logprobs, batch = some_batch(8, seed=2)
    x = torch.tensor(logprobs, dtype=torch.float64, requires_grad=True)
    ref, mask = torch.tensor(batch["ref_logprobs"]), torch.tensor(batch["mask"])
    sums = (x * mask).sum(-1)
    ratios = sums - (ref.double() * mask).sum(-1)
    chosen, rejected = ratios[0::2], ratios[1::2]
    nll = -sums[0::2] / mask[0::2].sum(-1)
    hyper = HYPER[name]
    margin = chosen - rejected
    if name == "dpo":
        each = -torch.nn.functional.logsigmoid(hyper["beta"] * margin) + hyper["nll"] * nll
    elif name == "ipo":
        each = (margin - 1 / (2 * hyper["beta"])) ** 2 + hyper["nll"] * nll
    else:
        lost = hyper["penalty"] * torch.clamp(-chosen, min=0)
        each = -torch.nn.functional.logsigmoid(hyper["beta"] * (margin - lost))
    weight = torch.tensor(batch["pair_weight"])
    total = (weight * each).sum()
    total.backward()
    found, gradient = jax.value_and_grad(lambda lp: loss_of(name)(lp, batch).total)(logprobs)
    assert float(found) == pytest.approx(total.item(), rel=1e-5)
    np.testing.assert_allclose(gradient, x.grad.numpy(), rtol=1e-4, atol=1e-6)
    assert float(loss_of(name)(logprobs, batch).weight) == pytest.approx(weight.sum().item(), rel=1e-6)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_micro_batches_add_up(name):
    logprobs, batch = some_batch(12)
    loss, gradient = loss_of(name), jax.jit(jax.grad(lambda lp, batch: loss_of(name)(lp, batch).total))
    whole = loss(logprobs, batch)
    parts = [part_of(logprobs, batch, rows) for rows in (slice(0, 2), slice(2, 8), slice(8, 12))]
    together = functools.reduce(add, (loss(*part) for part in parts))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), together, whole)
    pieces = np.concatenate([gradient(*part) for part in parts])
    np.testing.assert_allclose(pieces, gradient(logprobs, batch), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_jit_equals_host_and_masked_entries_have_no_part(name):
    logprobs, batch = some_batch(6, seed=4)
    poisoned = dict(batch)
    for key in ("weight", "ref_logprobs"):
        poisoned[key] = np.where(batch["mask"], batch[key], np.nan)
    bad = np.where(batch["mask"], logprobs, -np.inf)
    host = loss_of(name)(logprobs, batch)
    compiled = jax.jit(loss_of(name))(bad, poisoned)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), host, compiled)
    gradient = np.asarray(jax.grad(lambda lp: loss_of(name)(lp, poisoned).total)(bad))
    assert np.isfinite(gradient).all() and (gradient[~batch["mask"]] == 0).all()


@pytest.mark.parametrize("name", PREFERENCE_LOSSES)
def test_extreme_margins_stay_finite(name):
    mask = jnp.array([[False, True], [False, True]])
    for sign in (1, -1):
        logprobs = jnp.array([[0.0, -2e3], [0.0, 0.0]])[::sign]
        batch = {"mask": mask, "ref_logprobs": jnp.zeros((2, 2))}
        value, gradient = jax.value_and_grad(lambda x, batch=batch: LOSSES[name](x, batch, beta=1.0).total)(logprobs)
        assert np.isfinite(value) and np.isfinite(gradient).all()


@given(st.integers(0, 50), st.floats(0.05, 2.0))
@settings(max_examples=25, deadline=None)
def test_swapping_chosen_and_rejected_mirrors_dpo(seed, beta):
    logprobs, batch = some_batch(4, seed=seed)
    order = np.array([1, 0, 3, 2])
    swapped = {key: value if key == "pair_weight" else value[order] for key, value in batch.items()}
    there, back = (LOSSES["dpo"](lp, b, beta=beta) for lp, b in ((logprobs, batch), (logprobs[order], swapped)))
    # log sigmoid(-x) - log sigmoid(x) = -x
    margin = there.metrics["reward_margin"][0]
    assert float(back.total - there.total) == pytest.approx(float(margin), rel=1e-3, abs=1e-4)
    accuracies = there.metrics["preference_accuracy"][0] + back.metrics["preference_accuracy"][0]
    assert float(accuracies) == pytest.approx(float(there.weight), rel=1e-5)


def test_pairs_without_weight_have_no_part_and_a_start_from_the_reference_is_log_2():
    logprobs, batch = some_batch(6, seed=5)
    batch["pair_weight"] = np.float32([1, 1, 0])
    short = part_of(logprobs, batch, slice(0, 4))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
        loss_of("dpo")(logprobs, batch),
        loss_of("dpo")(*short),
    )
    start = LOSSES["dpo"](logprobs, {"mask": batch["mask"], "ref_logprobs": logprobs}, beta=0.1)
    assert float(start.total / start.weight) == pytest.approx(math.log(2), rel=1e-6)
    assert float(start.metrics["preference_accuracy"][0]) == 1.5


def test_bfloat16_log_probabilities_are_summed_in_float32():
    batch = {"mask": jnp.ones((1, 1001), bool)}
    loss = sft(jnp.full((1, 1001), -1.0, jnp.bfloat16), batch)
    assert loss.total.dtype == jnp.float32 and float(loss.total) == 1001


@pytest.mark.parametrize("name", PREFERENCE_LOSSES)
def test_wrong_use_raises(name):
    logprobs, batch = some_batch(4)
    with pytest.raises(ValueError, match="odd"):
        LOSSES[name](logprobs[:3], {key: value[:3] for key, value in batch.items()}, beta=0.1)
    with pytest.raises(ValueError, match="ref_logprobs"):
        LOSSES[name](logprobs, {"mask": batch["mask"]}, beta=0.1)
    with pytest.raises(ValueError, match="pair_weight"):
        LOSSES[name](logprobs, batch | {"pair_weight": np.ones(4)}, beta=0.1)
    with pytest.raises(ValueError, match="beta"):
        LOSSES[name](logprobs, batch, beta=0.0)
    with pytest.raises(ValueError, match="mask has shape"):
        LOSSES[name](logprobs, batch | {"mask": batch["mask"][:, 1:]}, beta=0.1)


def with_entropy(logprobs, batch, *, entropy, scale=1.0):
    plain = sft(logprobs, batch)
    return Loss(plain.total - scale * (batch["mask"] * entropy).sum(), plain.weight, plain.metrics)


def test_losses_come_by_word_or_path_and_may_ask_for_entropy():
    assert named_loss("dpo") is LOSSES["dpo"]
    outside = named_loss("test_losses:with_entropy")
    assert needs_entropy(outside) and needs_entropy(functools.partial(outside, scale=0.1))
    assert not any(needs_entropy(loss) for loss in LOSSES.values())
    with pytest.raises(ValueError, match="dpo_positive"):
        named_loss("kto")
    with pytest.raises(ValueError, match="cannot be imported"):
        named_loss("test_losses:nothing_here")


@pytest.mark.parametrize("name", ["sft", "advantage_weighted"])
def test_fine_tuning_tells_how_far_it_is_from_a_reference_that_it_has(name):
    rng = np.random.default_rng(0)
    logprobs, ref = (jnp.asarray(-rng.random((2, 5)), jnp.float32) for _ in range(2))
    mask = jnp.asarray([[0, 1, 1, 1, 0], [0, 0, 1, 1, 1]], jnp.float32)
    batch = {"mask": mask, "weight": jnp.ones((2, 5)), "advantage": jnp.zeros((2, 1))}
    batch |= {"step_ids": jnp.zeros((2, 5), jnp.int32)}
    options = {"beta": 1.0, "max_weight": 5.0} if name == "advantage_weighted" else {}
    loss = LOSSES[name]
    assert "reference_kl" not in loss(logprobs, batch, **options).metrics
    total, count = loss(logprobs, batch | {"ref_logprobs": ref}, **options).metrics["reference_kl"]
    assert float(total / count) == pytest.approx(float(((ref - logprobs) * mask).sum() / 6), rel=1e-5)
