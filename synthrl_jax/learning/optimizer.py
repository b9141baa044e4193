"""The optimiser and its learning-rate schedule, from a few named numbers."""

import dataclasses

import jax
import optax

SCHEDULES = ("cosine", "linear", "constant")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """AdamW. learning_rate: the peak; warmup: share of the updates; final: the last rate's share of the peak."""

    learning_rate: float
    schedule: str = "cosine"
    warmup: float = 0.1
    final: float = 0.05
    weight_decay: float = 0.01
    clip: float = 1.0
    b1: float = 0.9
    b2: float = 0.98

    def __post_init__(self):
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
    """AdamW after clipping by the global norm."""
    return optax.chain(
        optax.clip_by_global_norm(settings.clip),
        optax.adamw(
            learning_rate(settings, updates),
            b1=settings.b1,
            b2=settings.b2,
            weight_decay=settings.weight_decay,
            mask=decays,
        ),
    )
