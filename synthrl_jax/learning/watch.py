"""What is done about updates whose loss or gradient is not finite, or whose loss is a spike: stop, or skip and say so."""

import jax
import numpy as np

from synthrl_jax.learning.optimizer import GUARD_PATIENCE, OptimizerSettings


class UpdateWatch:
    """Looks at every update's loss, gradient and skips, some at a time: none goes unseen, and no update waits for it."""

    def __init__(self, settings: OptimizerSettings, label: str):
        self.settings, self.label = settings, label
        self.unseen: dict[int, dict[str, jax.Array]] = {}

    def saw(self, update: int, metrics: dict[str, jax.Array]) -> None:
        names = ("loss", "gradient_norm", "skipped", "skipped_in_a_row")
        self.unseen[update] = {name: metrics[name] for name in names if name in metrics}

    def check(self) -> None:
        """Say what was skipped; FloatingPointError where the settings' rule is to stop. Before a state is saved or scored."""
        rows, self.unseen = jax.device_get(self.unseen), {}
        for update, row in sorted(rows.items()):
            (self._skips if self.settings.bad == "skip" else self._stops)(update, row)

    def _skips(self, update: int, row: dict) -> None:
        in_a_row = row["skipped_in_a_row"]
        if in_a_row >= GUARD_PATIENCE:
            raise FloatingPointError(
                f"{self.label}: {in_a_row} updates in a row up to {update} had a loss or gradient that is not finite or a spike"
            )
        if in_a_row:
            about = f"loss {row['loss']:.4g}, gradient norm {row['gradient_norm']:.4g}"
            print(f"{self.label}: update {update} was skipped ({about}); {row['skipped']} so far", flush=True)

    def _stops(self, update: int, row: dict) -> None:
        for name, what in (("loss", "loss"), ("gradient_norm", "gradient's norm")):
            if not np.isfinite(row[name]):
                raise FloatingPointError(
                    f"{self.label}: the {what} is {row[name]} at update {update}; lower the learning rate, or give "
                    "optimizer.bad='skip'"
                )
        if row.get("skipped"):
            raise FloatingPointError(
                f"{self.label}: at update {update} the loss rose more than {self.settings.spike:g} standard deviations above "
                "its mean; lower the learning rate, or give optimizer.bad='skip'"
            )
