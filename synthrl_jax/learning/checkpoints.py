"""Training states on disk, by Orbax: the last one counts, and a half-written one is no state."""

import os
from pathlib import Path
from typing import Any

import jax


class Checkpoints:
    """Saves and restores (arrays, JSON extras) under step numbers in one directory; keeps the last `keep`."""

    def __init__(self, directory, *, keep: int = 1):
        import orbax.checkpoint as ocp

        self._ocp = ocp
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(Path(os.path.abspath(directory)), options=options)

    def save(self, step: int, arrays: Any, extra: dict[str, Any]) -> None:
        args = self._ocp.args.Composite(
            arrays=self._ocp.args.StandardSave(arrays), extra=self._ocp.args.JsonSave(extra)
        )
        self._manager.save(step, args=args)

    def restore(self, like: Any) -> tuple[Any, dict[str, Any]] | None:
        """The newest state, in the shapes and shardings of `like`; None where there is none."""
        step = self._manager.latest_step()
        if step is None:
            return None
        target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
        args = self._ocp.args.Composite(
            arrays=self._ocp.args.StandardRestore(target), extra=self._ocp.args.JsonRestore()
        )
        found = self._manager.restore(step, args=args)
        return found["arrays"], found["extra"]

    def close(self) -> None:
        self._manager.close()
