"""Train a policy on rows with one of the losses, looking at validation now and then and keeping the best parameters."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from synthrl_jax.learning import optimizer as optimizers
from synthrl_jax.learning.batches import Batches
from synthrl_jax.learning.checkpoints import Checkpoints
from synthrl_jax.learning.losses import LOSSES
from synthrl_jax.learning.metrics import MetricWriter
from synthrl_jax.learning.optimizer import OptimizerSettings
from synthrl_jax.named import resolve
from synthrl_jax.policy import decoder, sharding
from synthrl_jax.progress import Progress


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """loss: a built-in word or "module:function"; loss_args: its hyperparameters; updates: optimiser steps; looks: how often
    validation is asked, evenly spread, the last time after the last update; patience: looks without a new best after which
    training ends (0: never)."""

    loss: str
    optimizer: OptimizerSettings
    updates: int
    loss_args: dict[str, Any] = dataclasses.field(default_factory=dict)
    looks: int = 1
    patience: int = 0
    log_every: int = 20

    def __post_init__(self):
        if self.updates < 1 or self.looks < 1:
            raise ValueError(f"updates={self.updates} and looks={self.looks} must be at least 1")


@dataclasses.dataclass
class TrainResult:
    """params: those of the best look (the last ones without validation); looks: (update, score) pairs."""

    params: decoder.Params
    best_update: int
    looks: list[tuple[int, float]]


def find_loss(settings: TrainSettings) -> Callable:
    """The loss with its hyperparameters bound; ValueError names a hyperparameter that it does not take."""
    loss = resolve(settings.loss, LOSSES, kind="loss")
    known = set(inspect.signature(loss).parameters) - {"logprobs", "batch", "entropy"}
    if unknown := set(settings.loss_args) - known:
        raise ValueError(f"loss {settings.loss} takes {sorted(known)}, not {sorted(unknown)}")
    return functools.partial(loss, **settings.loss_args)


def loss_of_params(config: decoder.DecoderConfig, loss: Callable) -> Callable:
    """A function (params, batch) -> Loss: the policy's log-probabilities, and entropies where the loss names them."""
    with_entropy = "entropy" in inspect.signature(loss).parameters

    def compute(params, batch):
        if with_entropy:
            logprobs, entropy = decoder.token_logprobs(config, params, batch["tokens"], entropy=True)
            return loss(logprobs, batch, entropy=entropy)
        return loss(decoder.token_logprobs(config, params, batch["tokens"]), batch)

    return compute


def make_step(config: decoder.DecoderConfig, loss: Callable, transform: optax.GradientTransformation) -> Callable:
    """The jitted update (params, opt_state, batch [M, rows, ...]) -> (params, opt_state, metrics), state donated.

    M micro-batches are accumulated as sums: the result equals that of one batch of all rows, however their weights differ.
    """
    compute = loss_of_params(config, loss)

    def total(params, batch):
        out = compute(params, batch)
        return out.total, (out.weight, out.metrics)

    grad = jax.value_and_grad(total, has_aux=True)

    def step(params, opt_state, batch):
        sums = grad(params, jax.tree.map(lambda x: x[0], batch))
        rest = jax.tree.map(lambda x: x[1:], batch)
        add = lambda sums, micro: (jax.tree.map(jnp.add, sums, grad(params, micro)), None)  # noqa: E731
        if len(batch["tokens"]) > 1:
            sums, _ = jax.lax.scan(add, sums, rest)
        (value, (weight, metrics)), grads = sums
        weight = jnp.maximum(weight, 1e-9)
        grads = jax.tree.map(lambda g: g / weight, grads)
        updates, opt_state = transform.update(grads, opt_state, params)
        out = {name: s / jnp.maximum(w, 1e-9) for name, (s, w) in metrics.items()}
        out |= {"loss": value / weight, "gradient_norm": optax.tree.norm(grads)}
        return optax.apply_updates(params, updates), opt_state, out

    return jax.jit(step, donate_argnums=(0, 1))


def train(
    config: decoder.DecoderConfig,
    params: decoder.Params,
    batches: Batches,
    settings: TrainSettings,
    *,
    validate: Callable[[decoder.Params], float] | None = None,
    workdir=None,
    mesh: jax.sharding.Mesh | None = None,
    label: str = "train",
) -> TrainResult:
    """Minimise a loss over `batches` from `params` (left untouched), and return the parameters of the best validation look.

    validate: params -> score, larger is better; without it the last parameters are returned. workdir: where metrics and
    checkpoints go; a run started again there continues after its last look and ends with the same result. Raises ValueError
    for a batch that does not divide over the mesh, FloatingPointError when the loss is no longer finite.
    """
    loss = find_loss(settings)
    batches.check_mesh(mesh)
    transform = optimizers.make(settings.optimizer, settings.updates)
    step_fn = make_step(config, loss, transform)
    place = (
        jnp.array
        if mesh is None
        else functools.partial(jax.device_put, device=sharding.batch_sharding(mesh, micro=True))
    )
    params = jax.tree.map(jnp.array, params)  # a copy: the step donates
    if mesh is not None:
        params = jax.tree.map(jax.device_put, params, sharding.shardings(config, mesh))
    opt_state = jax.jit(transform.init)(params)
    best, best_update, best_score, looks, start = params, 0, -np.inf, [], 0

    checkpoints = Checkpoints(Path(workdir) / "checkpoints") if workdir is not None else None
    if checkpoints is not None and (
        found := checkpoints.restore({"params": params, "opt_state": opt_state, "best": params})
    ):
        arrays, extra = found
        params, opt_state, best = arrays["params"], arrays["opt_state"], arrays["best"]
        start, best_update, best_score = extra["update"], extra["best_update"], extra["best_score"]
        looks = [tuple(look) for look in extra["looks"]]
    else:
        best = jax.tree.map(jnp.copy, params)

    writer = MetricWriter(workdir, resume_after=start) if workdir is not None else None
    look_at = {round(settings.updates * (i + 1) / settings.looks) for i in range(settings.looks)}
    progress = Progress(label, settings.updates, unit="updates", start=start)
    try:
        for update in range(start + 1, settings.updates + 1):
            if _out_of_patience(settings, looks, best_update):
                break
            batch = batches.at(update - 1)
            params, opt_state, metrics = step_fn(params, opt_state, {k: place(v) for k, v in batch.items()})
            progress.to(update)
            if update % settings.log_every == 0 or update in look_at:
                row = {name: float(value) for name, value in jax.device_get(metrics).items()}
                if not np.isfinite(row["loss"]):
                    raise FloatingPointError(
                        f"{label}: the loss is {row['loss']} at update {update}; lower the learning rate"
                    )
                if update in look_at:
                    score = float(validate(params)) if validate else float(update)
                    looks.append((update, score))
                    row |= {"validation": score} if validate else {}
                    if score > best_score:
                        best, best_update, best_score = jax.tree.map(jnp.copy, params), update, score
                if writer is not None:
                    writer.write(update, row)
                progress.note(**{k: row[k] for k in ("loss", "validation") if k in row})
            if checkpoints is not None and update in look_at and update < settings.updates:
                extra = {"update": update, "best_update": best_update, "best_score": best_score, "looks": looks}
                checkpoints.save(update, {"params": params, "opt_state": opt_state, "best": best}, extra)
    finally:
        progress.close()
        if writer is not None:
            writer.close()
        if checkpoints is not None:
            checkpoints.close()
    return TrainResult(best, best_update, looks)


def _out_of_patience(settings: TrainSettings, looks: list, best_update: int) -> bool:
    return bool(settings.patience) and sum(update > best_update for update, _ in looks) >= settings.patience
