"""Train a policy on rows with one of the losses, looking at validation now and then and keeping the best parameters."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from synthrl_jax import remote
from synthrl_jax.learning import lora, optimizer
from synthrl_jax.learning.batches import Batches
from synthrl_jax.learning.checkpoints import Checkpoints
from synthrl_jax.learning.lora import LoraSettings
from synthrl_jax.learning.metrics import PEAK_FLOPS, MetricWriter, Trace, model_flops, peak_bytes
from synthrl_jax.learning.optimizer import OptimizerSettings
from synthrl_jax.learning.preemption import Preempted, SigtermWatch
from synthrl_jax.learning.step import find_loss, make_entropy, make_step
from synthrl_jax.learning.watch import UpdateWatch
from synthrl_jax.policy import decoder, sharding
from synthrl_jax.progress import Progress


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """loss: a built-in word or "module:function"; loss_args: its hyperparameters; updates: optimiser steps; looks: how often
    validation is asked, evenly spread, the last time after the last update; patience: looks without a new best after which
    training ends (0: never); save_every: updates between checkpoints beside those at looks (0: none); keep: checkpoints
    kept, the best one aside; profile: updates that jax.profiler traces, from the third on where the run is long enough, into
    the run's TensorBoard."""

    loss: str
    optimizer: OptimizerSettings
    updates: int
    loss_args: dict[str, Any] = dataclasses.field(default_factory=dict)
    lora: LoraSettings = dataclasses.field(default_factory=LoraSettings)
    looks: int = 1
    patience: int = 0
    log_every: int = 20
    save_every: int = 0
    keep: int = 2
    profile: int = 0

    def __post_init__(self):
        if self.updates < 1 or self.looks < 1:
            raise ValueError(f"updates={self.updates} and looks={self.looks} must be at least 1")
        if self.save_every < 0 or self.keep < 1 or self.profile < 0:
            raise ValueError(f"save_every={self.save_every}, keep={self.keep}, profile={self.profile}: not possible")


@dataclasses.dataclass
class TrainResult:
    """params: those of the best look (the last ones without validation), adapters merged; looks: (update, score) pairs."""

    params: decoder.Params
    best_update: int
    looks: list[tuple[int, float]]


@dataclasses.dataclass
class _State:
    """What a checkpoint holds: the trained parameters, the optimiser's state, and how far the run is."""

    params: decoder.Params
    opt_state: optax.OptState
    best: decoder.Params
    update: int = 0
    best_update: int = 0
    best_score: float = -np.inf
    looks: list[tuple[int, float]] = dataclasses.field(default_factory=list)

    def extra(self, data: dict[str, int]) -> dict[str, Any]:
        names = ("update", "best_update", "best_score", "looks")
        return {name: getattr(self, name) for name in names} | {"data": data}


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
    checkpoints go; a run started again there continues after its last checkpoint and ends with the same result. All
    processes of a run call this with the same arguments. Raises ValueError for a batch that does not divide over the mesh,
    FloatingPointError when a loss or gradient is not finite (or, by `optimizer.bad` and `spike`, when updates are bad), before
    that state is saved, or when every validation score is NaN; CheckpointError when the disk is full or gone, and Preempted
    after a SIGTERM, its state saved.
    """
    loss = find_loss(settings.loss, settings.loss_args)
    batches.check_mesh(mesh)
    config, trained, frozen = _trainable(config, params, settings, batches.seed, mesh)
    transform = optimizer.make(settings.optimizer, settings.updates)
    shapes = jax.eval_shape(lambda: trained)
    step_fn, entropy_fn = make_step(config, loss, transform, mesh=mesh, shapes=shapes), make_entropy(config)
    place = jnp.array if mesh is None else functools.partial(sharding.put_batch, mesh)
    where = None
    if mesh is not None:
        where = sharding.state_shardings(transform, shapes, sharding.shardings(config, mesh, shapes), mesh)
    opt_state = jax.jit(transform.init, out_shardings=where)(trained)
    state = _State(trained, opt_state, best=trained)
    merged = (lambda params: params) if frozen is None else _merger(config, params, mesh)

    data = {"seed": batches.seed, "batch": batches.batch, "units": batches.units}
    data |= {"order": "tree"} if batches.pack == "tree" else {}  # the one packing that changes which units meet
    checkpoints = None
    if workdir is not None:
        checkpoints = Checkpoints(remote.path(workdir) / "checkpoints", keep=settings.keep, background=True)
        _resume(state, checkpoints, data)
    if state.best is state.params:
        state.best = jax.tree.map(jnp.copy, state.params)  # the step donates

    first = jax.process_index() == 0
    writer = None
    if workdir is not None and first:
        writer = MetricWriter(workdir, resume_after=state.update, loss=settings.loss)
    look_at = {round(settings.updates * (i + 1) / settings.looks) for i in range(settings.looks)}
    progress = Progress(label, settings.updates, unit="updates", start=state.update)
    adapters = 0 if frozen is None else sum(x.size for x in jax.tree.leaves(trained))
    clock = _Clock(config, batches, len(mesh.devices.flat) if mesh is not None else 1, adapters)
    watch = UpdateWatch(settings.optimizer, label)
    tensorboard = None if workdir is None else remote.path(workdir) / "tensorboard"
    trace = Trace(tensorboard, settings.profile if tensorboard else 0, state.update, settings.updates)
    with SigtermWatch(jax.process_count() == 1) as sigterm, _closing(trace, progress, writer, checkpoints):
        for update in range(state.update + 1, settings.updates + 1):
            if _out_of_patience(settings, state.looks, state.best_update):
                break
            trace.before(update)
            batch = {k: place(v) for k, v in batches.at(update - 1).items()}
            with _on(mesh):
                state.params, state.opt_state, metrics = step_fn(state.params, state.opt_state, batch, frozen)
            state.update = update
            progress.to(update)
            clock.tick(update - 1, metrics)
            trace.after(update, metrics)
            watch.saw(update, metrics)
            look = update in look_at
            if update % settings.log_every == 0 or look:
                row = {name: float(value) for name, value in jax.device_get(metrics).items()}
                row.pop("skipped_in_a_row", None)
                timing = clock.row()
                watch.check()
                if look:
                    with _on(mesh):
                        row["entropy"] = float(entropy_fn(state.params, batch, frozen))
                    score = float(validate(merged(state.params))) if validate else float(update)
                    state.looks.append((update, score))
                    row |= {"validation": score} if validate else {}
                    if score > state.best_score or not (state.best_update or np.isnan(score)):
                        state.best = jax.tree.map(jnp.copy, state.params)
                        state.best_update, state.best_score = update, score
                if writer is not None:
                    with checkpoints.told(f"the metrics of update {update}"):
                        writer.write(update, row)
                        if timing:
                            writer.write_timing(update, timing)
                progress.note(**{k: row[k] for k in ("loss", "validation") if k in row})
            if checkpoints is not None:
                leave = sigterm.asked or checkpoints.preempted(update)
                due = look or (settings.save_every and update % settings.save_every == 0)
                if leave or (due and update < settings.updates):
                    watch.check()  # a state that is not finite must not take the place of a good one
                    if writer is not None:
                        with checkpoints.told(f"the metrics up to update {update}"):
                            writer.sync()
                    checkpoints.save(update, _arrays(state), state.extra(data))
                if leave:
                    checkpoints.wait()
                    raise Preempted(f"{label}: stopped by SIGTERM after update {update}, which is saved")
            elif sigterm.asked:
                raise Preempted(f"{label}: stopped by SIGTERM at update {update}; without a directory nothing is saved")
            if look:
                clock.pause()
    if (
        sigterm.asked
    ):  # it came as the last files were written: what follows must not go on as if nothing had been asked
        raise Preempted(f"{label}: stopped by SIGTERM at its end, update {state.update}")
    if state.looks and all(np.isnan(score) for _, score in state.looks):
        raise FloatingPointError(f"{label}: none of {len(state.looks)} validation looks gave a score: all are NaN")
    return TrainResult(merged(state.best), state.best_update, state.looks)


def _trainable(config, params, settings: TrainSettings, seed: int, mesh):
    """(config, what is trained, what stays beside it or None): float32 copies on the mesh, or adapters and the base model."""
    copied = functools.partial(_copied, config, mesh)
    if not settings.lora.rank:
        return config, copied(params, jnp.float32), None  # master weights, also of a policy that was loaded in bfloat16
    config = settings.lora.config(config)
    adapters = lora.init(params, settings.lora, jax.random.key(seed))
    return config, copied(adapters, jnp.float32), copied(params, config.dtype)


def _copied(config, mesh, params: decoder.Params, dtype) -> decoder.Params:
    """A copy on the mesh, as the step donates; one array after the other, as a device may have no room for all of them."""
    if mesh is None:
        return jax.tree.map(lambda x: jnp.array(x, dtype), params)
    shardings = sharding.shardings(config, mesh, jax.eval_shape(lambda: params))
    return jax.tree.map(lambda x, where: _put(jnp.array(x, dtype), where), params, shardings)


def _put(x: jax.Array, where) -> jax.Array:
    """On the mesh; from a host's copy where the mesh spans processes."""
    if where.is_fully_addressable or (isinstance(x, jax.Array) and not x.is_fully_addressable):
        return jax.device_put(x, where)
    host = np.asarray(x)
    return jax.make_array_from_callback(host.shape, where, lambda index: host[index])


def _merger(config, params: decoder.Params, mesh) -> Callable:
    """Adapters -> parameters of float32, merged into the caller's own: the copy that the step computes with may be rounded."""
    merge = jax.jit(lambda base, adapters: lora.merge(config, lora.join(base, adapters)), donate_argnums=0)
    return lambda adapters: merge(_copied(config, mesh, params, jnp.float32), adapters)


def _arrays(state: _State) -> dict[str, Any]:
    return {"params": state.params, "opt_state": state.opt_state}


def _resume(state: _State, checkpoints: Checkpoints, data: dict[str, int]) -> None:
    """Go on from the last whole checkpoint, with the best parameters from that of the best look."""
    found = checkpoints.restore(_arrays(state))
    if found is None:
        return
    arrays, extra = found
    if extra.get("data", data) != data:
        raise ValueError(f"{checkpoints.directory} is of a run on other data: {extra['data']} there, {data} here")
    state.params, state.opt_state, state.best = arrays["params"], arrays["opt_state"], arrays["params"]
    state.update, state.best_update, state.best_score = extra["update"], extra["best_update"], extra["best_score"]
    state.looks = [tuple(look) for look in extra["looks"]]
    if state.best_update in (0, state.update):
        return
    # the best look's own checkpoint; where that is damaged, the best that is left
    usable = [look for look in state.looks if not np.isnan(look[1])]
    for update, score in sorted(usable, key=lambda look: (-look[1], look[0])):
        if update in checkpoints.steps() and (best := checkpoints.read(update, {"params": state.params})) is not None:
            state.best, state.best_update, state.best_score = best[0]["params"], update, score
            return
    state.best_update, state.best_score = 0, -np.inf


class _Clock:
    """Rates between rows of the log, the first update (which compiles), looks and checkpoints left out."""

    def __init__(self, config: decoder.DecoderConfig, batches: Batches, devices: int, adapters: int):
        self.config, self.batches, self.devices, self.adapters = config, batches, devices, adapters
        self.begun: float | None = None
        self.steps: list[int] = []

    def tick(self, step: int, metrics) -> None:
        if self.begun is None:
            jax.block_until_ready(metrics)
            self.begun = time.perf_counter()
        else:
            self.steps.append(step)

    def pause(self) -> None:
        """Begin again now: what happened since the last row was no training."""
        self.begun, self.steps = time.perf_counter(), []

    def row(self) -> dict[str, float]:
        """What timing.jsonl gets, and begin again; nothing where no update was timed."""
        if not self.steps:
            return {}
        seconds = (time.perf_counter() - self.begun) / len(self.steps)
        total = self.batches.counts(self.steps[-1])  # the last batch stands for all: packing each again costs too much
        row = {
            "seconds_per_update": seconds,
            "trained_tokens_per_second": total["trained"] / seconds,
            "computed_tokens_per_second": total["computed"] / seconds,
            "real_share": total["real"] / total["computed"],
            "computed_per_trained": total["computed"] / max(1, total["trained"]),
        }
        peak = PEAK_FLOPS.get(jax.devices()[0].device_kind)
        if peak:
            context = total["seen"] / total["real"]
            flops = model_flops(self.config, total["real"], total["trained"], context, self.adapters)
            row["mfu"] = flops / seconds / peak / self.devices
        if (peak_memory := peak_bytes()) is not None:
            row["peak_bytes"] = peak_memory
        self.pause()
        return row


class _closing:
    """Closes all at the end; an error while closing shows only where nothing else went wrong."""

    def __init__(self, *things):
        self.things = [thing for thing in things if thing is not None]

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        for thing in self.things:
            try:
                thing.close()
            except OSError:
                if kind is None:
                    raise


def _on(mesh):
    """The context in which programs see the mesh."""
    return contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh)


def _out_of_patience(settings: TrainSettings, looks: list, best_update: int) -> bool:
    return bool(settings.patience) and sum(update > best_update for update, _ in looks) >= settings.patience
