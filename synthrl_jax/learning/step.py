"""One optimiser update as a pure function: log-probabilities, loss, accumulated gradients, new parameters."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from synthrl_jax.learning import lora, packing
from synthrl_jax.learning.losses import LOSSES
from synthrl_jax.learning.optimizer import GuardState
from synthrl_jax.named import resolve
from synthrl_jax.policy import decoder, sharding

PACKED = "packed_"


def find_loss(word: str | Callable, loss_args: dict[str, Any]) -> Callable:
    """The loss with its hyperparameters bound; ValueError names one that it does not take, or that it needs and has not."""
    loss = resolve(word, LOSSES, kind="loss")
    _, _, *own = inspect.signature(loss).parameters.values()  # after logprobs and batch
    known = {p.name: p for p in own if p.name != "entropy" and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    if not any(p.kind == p.VAR_KEYWORD for p in own) and (unknown := set(loss_args) - set(known)):
        raise ValueError(f"loss {word} takes {sorted(known)}, not {sorted(unknown)}")
    if missing := [name for name, p in known.items() if p.default is p.empty and name not in loss_args]:
        raise ValueError(f"loss {word} needs loss_args for {', '.join(missing)}")
    return functools.partial(loss, **loss_args)


def batch_logprobs(config: decoder.DecoderConfig, params: decoder.Params, batch, entropy: bool = False):
    """log p of each example's tokens [N, T] (with `entropy` also the entropies), one row per example also where the policy
    runs on packed rows; there, tokens that no mask counts get 0."""
    if "gather" not in batch:
        return decoder.token_logprobs(config, params, batch["tokens"], entropy=entropy)
    arrays = {name.removeprefix(PACKED): array for name, array in batch.items() if name.startswith(PACKED)}
    found = decoder.picked_logprobs(
        config,
        params,
        arrays["tokens"],
        arrays["sources"],
        arrays["targets"],
        positions=arrays["positions"],
        segment_ids=arrays.get("segment_ids"),
        tree=packing.tree_of(arrays),
        entropy=entropy,
    )
    gather = batch["gather"]
    return jax.tree.map(lambda x: jnp.where(gather >= 0, x.reshape(-1)[gather], 0.0), found)


def loss_of_params(config: decoder.DecoderConfig, loss: Callable) -> Callable:
    """A function (params, batch) -> Loss: the policy's log-probabilities, and entropies where the loss names them."""
    with_entropy = "entropy" in inspect.signature(loss).parameters

    def compute(params, batch):
        if with_entropy:
            logprobs, entropy = batch_logprobs(config, params, batch, entropy=True)
            return loss(logprobs, batch, entropy=entropy)
        return loss(batch_logprobs(config, params, batch), batch)

    return compute


def make_step(
    config: decoder.DecoderConfig,
    loss: Callable,
    transform: optax.GradientTransformation,
    *,
    mesh: jax.sharding.Mesh | None = None,
    shapes: decoder.Params | None = None,
) -> Callable:
    """The jitted update (params, opt_state, batch [M, rows, ...], frozen=None) -> (params, opt_state, metrics), state donated.

    M micro-batches are accumulated as sums: the result equals that of one batch of all rows, however their weights differ.
    frozen: the parameters beside which `params` are adapters. With a mesh, parameters (of `shapes`, where they are not the
    config's own) and state keep their shardings, and the call must be inside of `jax.set_mesh(mesh)`.
    """
    compute = loss_of_params(config, loss)
    transform = optax.with_extra_args_support(transform)

    def total(params, batch, frozen):
        out = compute(params if frozen is None else lora.join(frozen, params), batch)
        return out.total, (out.weight, out.metrics)

    grad = jax.value_and_grad(total, has_aux=True)

    def step(params, opt_state, batch, frozen=None):
        sums = grad(params, jax.tree.map(lambda x: x[0], batch), frozen)
        rest = jax.tree.map(lambda x: x[1:], batch)
        add = lambda sums, micro: (jax.tree.map(jnp.add, sums, grad(params, micro, frozen)), None)  # noqa: E731
        if len(batch["tokens"]) > 1:
            sums, _ = jax.lax.scan(add, sums, rest)
        (value, (weight, metrics)), grads = sums
        weight = jnp.maximum(weight, 1e-9)
        grads = jax.tree.map(lambda g: g / weight, grads)
        updates, opt_state = transform.update(grads, opt_state, params, value=value / weight)
        out = {name: s / jnp.maximum(w, 1e-9) for name, (s, w) in metrics.items()}
        out |= {"loss": value / weight, "gradient_norm": optax.tree.norm(grads)}
        if isinstance(opt_state, GuardState):
            out |= {"skipped": opt_state.bad, "skipped_in_a_row": opt_state.in_a_row}
        return optax.apply_updates(params, updates), opt_state, out

    if mesh is None:
        return jax.jit(step, donate_argnums=(0, 1))
    shapes = decoder.shapes(config) if shapes is None else shapes
    of_params = sharding.shardings(config, mesh, shapes)
    of_state = sharding.state_shardings(transform, shapes, of_params, mesh)
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.jit(step, donate_argnums=(0, 1), out_shardings=(of_params, of_state, everywhere))


def make_entropy(config: decoder.DecoderConfig) -> Callable:
    """The jitted mean entropy (params, batch [M, rows, ...], frozen=None) at the masked tokens of all micro-batches."""

    @jax.jit
    def mean_entropy(params, batch, frozen=None):
        params = params if frozen is None else lora.join(frozen, params)

        def sums(micro):
            _, entropy = batch_logprobs(config, params, micro, entropy=True)
            mask = micro["mask"] * (jnp.arange(micro["mask"].shape[1]) > 0)
            return (mask * entropy).sum(), mask.sum()

        total, count = jax.lax.map(sums, batch)
        return total.sum() / jnp.maximum(count.sum(), 1)

    return mean_entropy
