"""Losses on per-token log-probabilities: totals, weights and metrics that add over micro-batches and hosts.

`logprobs [N, T]` are the policy's own log p(token t | tokens before t), 0 at t = 0; `batch` is a dict of arrays, of which
a loss reads `mask [N, T]`, `weight [N, T]`, `ref_logprobs [N, T]` and what it names. Rows are examples, never packed.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from synthrl_jax.credit.advantages import token_weights
from synthrl_jax.credit.backend import check_above_zero
from synthrl_jax.named import resolve

LogProbs = Float[Array, "N T"]
Metrics = dict[str, tuple[Array, Array]]


class Loss(NamedTuple):
    """total / weight is the loss; each metric is (sum, weight). All of it adds over micro-batches and hosts."""

    total: Float[Array, ""]
    weight: Float[Array, ""]
    metrics: Metrics


def sft(logprobs: LogProbs, batch: Mapping[str, Array]) -> Loss:
    """Weighted negative log-likelihood: -sum(mask * weight * logprobs) over sum(mask).

    `weight` (1 where the batch has none) has mean 1 over a data set. RFT is this loss on positives. With `ref_logprobs` the
    metrics say how far the policy is from the reference.
    """
    mask, logprobs = _masked(logprobs, batch)
    count = mask.sum()
    total = -(_token_weight(batch, mask) * logprobs).sum()
    return Loss(total, count, {"nll": (-logprobs.sum(), count)} | _kl(logprobs, batch, mask))


def advantage_weighted(logprobs: LogProbs, batch: Mapping[str, Array], *, beta: float, max_weight: float) -> Loss:
    """Advantage-weighted RL (paper Eq. 4): `sft` with each step's tokens weighed by min(exp(A / beta), max_weight).

    The batch carries `advantage [N, S]` and `step_ids [N, T]`, -1 on tokens that are to have no part, such as the steps
    after a wrong response's pit.
    """
    mask, logprobs = _masked(logprobs, batch)
    step_weights = token_weights(batch["advantage"], batch["step_ids"], beta, max_weight)
    step_weights = jnp.where(mask, step_weights, 0)
    count = mask.sum()
    total = -(_token_weight(batch, mask) * step_weights * logprobs).sum()
    at_cap = (step_weights >= max_weight).sum().astype(logprobs.dtype)
    metrics = {
        "nll": (-logprobs.sum(), count),
        "step_weight": (step_weights.sum(), count),
        "step_weight_at_cap": (at_cap, count),
    }
    return Loss(total, count, metrics | _kl(logprobs, batch, mask))


def dpo(logprobs: LogProbs, batch: Mapping[str, Array], *, beta: float, nll: float = 0.0) -> Loss:
    """DPO (Rafailov et al. 2023, Eq. 7): -log sigmoid(beta * margin) a pair, sums over masked tokens.

    Rows 2i are chosen, 2i + 1 rejected; margin = log pi/ref of the chosen - log pi/ref of the rejected. `pair_weight
    [N/2]` weighs pairs; weight = their number or the sum of their weights. `nll` adds that many times the mean NLL over
    the masked tokens of the pair's chosen row. Per-step DPO is this loss on pairs whose mask starts at the fork.
    """
    pairs = _pairs(logprobs, batch, beta)
    return pairs.loss(-jax.nn.log_sigmoid(beta * pairs.margin) + nll * pairs.chosen_nll, beta)


def ipo(logprobs: LogProbs, batch: Mapping[str, Array], *, beta: float, nll: float = 0.0) -> Loss:
    """IPO (Azar et al. 2023, Eq. 17): (margin - 1 / (2 beta))^2 a pair; rows and `nll` as in `dpo`.

    The margin is of sums over tokens, as in the paper; TRL divides each row's by its number of tokens.
    """
    pairs = _pairs(logprobs, batch, beta)
    return pairs.loss((pairs.margin - 1 / (2 * beta)) ** 2 + nll * pairs.chosen_nll, beta)


def dpo_positive(
    logprobs: LogProbs, batch: Mapping[str, Array], *, beta: float, penalty: float = 50.0, nll: float = 0.0
) -> Loss:
    """DPO-Positive (Pal et al. 2024, Eq. 3): `dpo` with `penalty` * max(0, log ref/pi of the chosen) off the margin."""
    pairs = _pairs(logprobs, batch, beta)
    margin = pairs.margin - penalty * jax.nn.relu(-pairs.chosen_ratio)
    return pairs.loss(-jax.nn.log_sigmoid(beta * margin) + nll * pairs.chosen_nll, beta)


LOSSES: dict[str, Callable[..., Loss]] = {
    "sft": sft,
    "advantage_weighted": advantage_weighted,
    "dpo": dpo,
    "ipo": ipo,
    "dpo_positive": dpo_positive,
}
PREFERENCE_LOSSES = ("dpo", "ipo", "dpo_positive")


def named_loss(word: str | Callable) -> Callable[..., Loss]:
    """The loss that a config names: a word of LOSSES, "module:function", or a function itself."""
    return resolve(word, LOSSES, kind="loss")


def needs_entropy(loss: Callable) -> bool:
    """Whether the loss names a parameter `entropy`: it is then given the entropy per token [N, T], differentiable."""
    return "entropy" in inspect.signature(loss).parameters


def add(first: Loss, second: Loss) -> Loss:
    """The loss of two micro-batches together."""
    return jax.tree.map(jnp.add, first, second)


class _Pairs(NamedTuple):
    """Sums over the masked tokens of each pair's rows, all [N/2]."""

    chosen: Array
    rejected: Array
    chosen_ratio: Array
    rejected_ratio: Array
    chosen_nll: Array
    weight: Array
    kl: tuple[Array, Array]

    @property
    def margin(self) -> Array:
        return self.chosen_ratio - self.rejected_ratio

    def loss(self, per_pair: Array, beta: float) -> Loss:
        count = self.weight.sum()
        means = {
            "preference_accuracy": (jnp.sign(self.margin) + 1) / 2,  # a tie, as before the first update, counts half
            "reward_margin": beta * self.margin,
            "chosen_reward": beta * self.chosen_ratio,
            "rejected_reward": beta * self.rejected_ratio,
            "chosen_logprob": self.chosen,
            "rejected_logprob": self.rejected,
            "chosen_nll": self.chosen_nll,
        }
        metrics = {name: ((self.weight * value).sum(), count) for name, value in means.items()}
        # On rows that the reference sampled this is the Monte Carlo estimate of KL(reference || policy) per token.
        metrics["reference_kl"] = self.kl
        return Loss((self.weight * per_pair).sum(), count, metrics)


def _pairs(logprobs: LogProbs, batch: Mapping[str, Array], beta: float) -> _Pairs:
    rows = logprobs.shape[0]
    if rows % 2:
        raise ValueError(f"a preference loss needs chosen and rejected rows in turn, got an odd number of rows: {rows}")
    if batch.get("ref_logprobs") is None:
        raise ValueError("a preference loss needs ref_logprobs: compute the reference's log-probabilities first")
    check_above_zero("beta", beta)
    mask, logprobs = _masked(logprobs, batch)
    ref = jnp.where(mask > 0, batch["ref_logprobs"], 0).astype(logprobs.dtype)
    sums, ratios, counts = logprobs.sum(-1), (logprobs - ref).sum(-1), mask.sum(-1)
    weight = batch.get("pair_weight")
    weight = jnp.ones(rows // 2, logprobs.dtype) if weight is None else jnp.asarray(weight, logprobs.dtype)
    if weight.shape != (rows // 2,):
        raise ValueError(f"pair_weight has shape {weight.shape} for {rows // 2} pairs")
    counted = jnp.repeat(weight > 0, 2)
    return _Pairs(
        chosen=sums[::2],
        rejected=sums[1::2],
        chosen_ratio=ratios[::2],
        rejected_ratio=ratios[1::2],
        chosen_nll=-sums[::2] / jnp.maximum(counts[::2], 1),
        weight=weight,
        kl=(-(counted * ratios).sum(), (counted * counts).sum()),
    )


def _kl(logprobs: LogProbs, batch: Mapping[str, Array], mask: Array) -> Metrics:
    """`reference_kl` of the masked tokens where the batch has the reference's log-probabilities."""
    if batch.get("ref_logprobs") is None:
        return {}
    ref = jnp.where(mask > 0, batch["ref_logprobs"], 0).astype(logprobs.dtype)
    return {"reference_kl": ((ref - logprobs).sum(), mask.sum())}


def _masked(logprobs: LogProbs, batch: Mapping[str, Array]) -> tuple[Array, Array]:
    """The mask as numbers, and the log-probabilities with 0 where it is off, whatever stood there."""
    logprobs, mask = jnp.asarray(logprobs), jnp.asarray(batch["mask"], bool)
    if mask.shape != logprobs.shape:
        raise ValueError(f"mask has shape {mask.shape}, logprobs {logprobs.shape}")
    # float32 sums even if the policy's numbers are bfloat16.
    logprobs = logprobs.astype(jnp.promote_types(logprobs.dtype, jnp.float32))
    return mask.astype(logprobs.dtype), jnp.where(mask, logprobs, 0)


def _token_weight(batch: Mapping[str, Array], mask: Array) -> Array:
    """`weight` where the mask is on, 1 for all where the batch has none."""
    weight = batch.get("weight")
    return mask if weight is None else jnp.where(mask > 0, jnp.asarray(weight, mask.dtype), 0)
