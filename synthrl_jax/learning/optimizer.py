"""The optimiser and its learning-rate schedule, from a few named numbers."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

SCHEDULES = ("cosine", "linear", "constant")
OPTIMIZERS = ("adamw", "adafactor")
GUARD_MEMORY = 0.98  # of the running mean and variance that a spike is measured by
GUARD_WARMUP = 20  # losses before a spike can be told
GUARD_FLOOR = (1e-3, 1e-4)  # least standard deviation, of the mean and in itself: below, rounding would be a spike
GUARD_PATIENCE = 25  # bad updates in a row after which skipping has no point


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """learning_rate: the peak; warmup: share of the updates; final: the share of the peak that the
    schedule has come down to after the last update.

    name: adamw, or adafactor (Shazeer & Stern 2018, without momentum: its state is a small fraction of the parameters; `b1`
    and `b2` have no say). bad: what happens on a loss or gradient that is not finite, or on a spike: `stop` the run or `skip` the
    update; spike: a loss of so many running standard deviations (at least 0.1 % of the mean) above its running mean is one
    (0: none is).
    """

    learning_rate: float
    name: str = "adamw"
    schedule: str = "cosine"
    warmup: float = 0.1
    final: float = 0.05
    weight_decay: float = 0.01
    clip: float = 1.0
    b1: float = 0.9
    b2: float = 0.98
    bad: str = "stop"
    spike: float = 0.0

    def __post_init__(self):
        if self.name not in OPTIMIZERS:
            raise ValueError(f"optimizer {self.name!r}: use one of {', '.join(OPTIMIZERS)}")
        if self.bad not in ("stop", "skip") or self.spike < 0:
            raise ValueError(f"bad={self.bad!r} must be stop or skip, spike={self.spike} not negative")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule {self.schedule!r}: use one of {', '.join(SCHEDULES)}")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup={self.warmup}: a share of the updates in [0, 1)")
        if self.learning_rate <= 0 or self.clip <= 0:
            raise ValueError("learning_rate and clip must be positive")


def learning_rate(settings: OptimizerSettings, updates: int) -> optax.Schedule:
    """The rate as a function of the update's number: linear warm-up, then the schedule down to `final`."""
    peak, warm = settings.learning_rate, round(settings.warmup * updates)
    rest = max(1, updates - warm)
    after = {
        "cosine": optax.cosine_decay_schedule(peak, rest, alpha=settings.final),
        "linear": optax.linear_schedule(peak, peak * settings.final, rest),
        "constant": optax.constant_schedule(peak),
    }[settings.schedule]
    # The first update already moves: a rate of 0 would waste it.
    warmup = optax.linear_schedule(peak / max(1, warm), peak, max(1, warm - 1))
    return optax.join_schedules([warmup, after], [warm]) if warm else after


def decays(params):
    """Which parameters weight decay pulls on: matrices, not norm scales or biases (stacked layers have one axis more)."""

    def matrix(path, leaf):
        stacked = path[0].key == "layers"
        return leaf.ndim - stacked >= 2 and not path[-1].key.endswith("_bias")

    return jax.tree_util.tree_map_with_path(matrix, params)


def make(settings: OptimizerSettings, updates: int) -> optax.GradientTransformation:
    """The optimiser after clipping by the global norm; with `bad="skip"` or a spike rule, inside of `guarded`."""
    rate = learning_rate(settings, updates)
    if settings.name == "adamw":
        rule = optax.adamw(rate, b1=settings.b1, b2=settings.b2, weight_decay=settings.weight_decay, mask=decays)
    else:
        rule = optax.chain(
            factored_by_layer(),
            optax.add_decayed_weights(settings.weight_decay, mask=decays),
            optax.scale_by_learning_rate(rate),
        )
    chained = optax.chain(optax.clip_by_global_norm(settings.clip), rule)
    return guarded(chained, settings.spike) if guards(settings) else chained


def factored_by_layer() -> optax.GradientTransformation:
    """Adafactor's scaling and clipping, each layer of the stacked parameters by itself: the axis of layers is no dimension of a
    matrix, and one layer's large update is no reason to shorten the others'."""
    scale, clip = optax.scale_by_factored_rms(min_dim_size_to_factor=32), optax.clip_by_block_rms(1.0)
    State = optax.FactoredState
    axes = State(count=None, v_row=0, v_col=0, v=0)  # the count is common to all layers
    is_state = lambda x: isinstance(x, State)  # noqa: E731

    def apart(function, out_axes):
        """The function of a leaf, or of each layer of a stacked one."""
        by_layer = jax.vmap(function, out_axes=out_axes)
        return lambda path, *leaves: (by_layer if path[0].key == "layers" else function)(*leaves)

    def joined(states, count):
        """One state from a tree with a state for each parameter."""
        part = lambda name: jax.tree.map(lambda state: getattr(state, name), states, is_leaf=is_state)  # noqa: E731
        return State(count, part("v_row"), part("v_col"), part("v"))

    def init(params):
        states = jax.tree_util.tree_map_with_path(apart(scale.init, axes), params)
        return joined(states, jnp.zeros((), jnp.int32))

    def update(gradients, state, params=None):
        def one(gradient, v_row, v_col, v, param):
            scaled, new = scale.update(gradient, State(state.count, v_row, v_col, v), param)
            return new, clip.update(scaled, optax.EmptyState())[0]

        found = jax.tree_util.tree_map_with_path(
            apart(one, (axes, 0)), gradients, state.v_row, state.v_col, state.v, params
        )
        is_pair = lambda x: isinstance(x, tuple) and is_state(x[0])  # noqa: E731
        states, updates = (jax.tree.map(lambda pair, i=i: pair[i], found, is_leaf=is_pair) for i in range(2))
        return updates, joined(states, optax.safe_increment(state.count))

    return optax.GradientTransformation(init, update)


def guards(settings: OptimizerSettings) -> bool:
    """Whether bad updates are told apart on the device."""
    return settings.bad == "skip" or settings.spike > 0


class GuardState(NamedTuple):
    """mean, variance: of the losses so far, weighed towards the last; counts of losses seen, of bad ones, and in a row."""

    inner: optax.OptState
    mean: jax.Array
    variance: jax.Array
    seen: jax.Array
    bad: jax.Array
    in_a_row: jax.Array


def guarded(inner: optax.GradientTransformation, spike: float) -> optax.GradientTransformationExtraArgs:
    """`inner`, but for updates whose loss (`value`) or gradients are not finite, or whose loss is a spike: these change
    neither parameters nor the optimiser's state, and are counted."""

    def init(params):
        # arrays of their own: the training step donates each
        zeros = lambda: jnp.zeros((), jnp.float32)  # noqa: E731
        count = lambda: jnp.zeros((), jnp.int32)  # noqa: E731
        return GuardState(inner.init(params), zeros(), zeros(), count(), count(), count())

    def update(gradients, state, params=None, *, value, **_):
        ok = jnp.isfinite(value) & jnp.isfinite(optax.tree.norm(gradients))
        if spike:
            floor = jnp.maximum(GUARD_FLOOR[0] * jnp.abs(state.mean), GUARD_FLOOR[1])
            limit = state.mean + spike * jnp.maximum(jnp.sqrt(state.variance), floor)
            ok &= (state.seen < GUARD_WARMUP) | (value <= limit)
        updates, new = inner.update(gradients, state.inner, params)
        keep = lambda new, old: jax.tree.map(lambda a, b: jnp.where(ok, a, b), new, old)  # noqa: E731
        memory = jnp.minimum(GUARD_MEMORY, state.seen / (state.seen + 1.0))  # a plain mean at first
        off = value - state.mean
        mean = state.mean + (1 - memory) * off
        variance = memory * (state.variance + (1 - memory) * off * off)
        mean, variance = keep((mean, variance), (state.mean, state.variance))
        bad = (~ok).astype(jnp.int32)
        new_state = GuardState(
            keep(new, state.inner), mean, variance, state.seen + 1 - bad, state.bad + bad, (state.in_a_row + 1) * bad
        )
        return jax.tree.map(lambda u: jnp.where(ok, u, 0), updates), new_state

    return optax.GradientTransformationExtraArgs(init, update)
