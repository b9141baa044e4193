"""Training states on disk, by Orbax: written in the background, checked when read, the last good one counts.

A checkpoint is a directory named by its update with the trained parameters, the optimiser's state and JSON extras (position
in the data, seeds, looks). Orbax writes beside the place and renames, so a half-written one has no number; a damaged one is
found by its sums of bits, which do not depend on the mesh or the number of processes, and by the sum of its extras' text.
"""

import contextlib
import itertools
import json
import re
import shutil
import warnings
import zlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from synthrl_jax import remote

ARRAYS, EXTRA = "arrays", "extra"
# what JSON, Orbax and TensorStore raise where files do not hold what they should, or are missing
DAMAGE = (ValueError, LookupError, TypeError, AttributeError, EOFError, FileNotFoundError, NotADirectoryError)
# TensorStore's words for trouble with reading, which says nothing about what is there
TROUBLE = re.compile(
    "RESOURCE_EXHAUSTED|UNAVAILABLE|PERMISSION_DENIED|UNAUTHENTICATED|DEADLINE_EXCEEDED|ABORTED|CANCELLED|"
    r"\b(EIO|ENOMEM|EMFILE|ENFILE|EACCES|ESTALE|ETIMEDOUT)\b"
)


class CheckpointError(OSError, ValueError):
    """A checkpoint could not be written, and why; those before it are intact."""


class UnreadableError(OSError):
    """A checkpoint cannot be read now, and why; whether it is damaged is not known. Nothing was changed: start again."""


class Checkpoints:
    """Saves and restores (arrays, JSON extras) under update numbers in one directory.

    Kept are the last `keep`, and of those each one's best (the update that its extras name as "best_update"). background: saving
    returns once the arrays are copied; an error then shows at the next call. All processes of a run call the same methods.
    """

    def __init__(self, directory, *, keep: int = 1, background: bool = False):
        import orbax.checkpoint as ocp
        from orbax.checkpoint import checkpoint_managers

        self._ocp = ocp
        self.directory = remote.path(directory)
        self._best: dict[int, int] = {}
        self._keep = max(1, keep)

        class Preserved(checkpoint_managers.PreservationPolicy):
            def should_preserve(policy, checkpoints, *, context):
                last = [c.step for c in checkpoints][-self._keep :]
                wanted = {*last, *(self._best.get(step) for step in last)}
                return [c.step in wanted for c in checkpoints]

        if self.directory.is_dir() and jax.process_index() == 0:
            for left in sorted(self.directory.glob("*.orbax-checkpoint-tmp*")):
                warnings.warn(f"{left} was not written to its end and is passed over", stacklevel=2)
        self._manager = ocp.CheckpointManager(
            self.directory,
            item_handlers={ARRAYS: ocp.PyTreeCheckpointHandler(), EXTRA: ocp.JsonCheckpointHandler()},
            options=ocp.CheckpointManagerOptions(
                preservation_policy=Preserved(),
                enable_async_checkpointing=background,
                cleanup_tmp_directories=True,
            ),
        )

    def steps(self) -> list[int]:
        """Updates with a whole checkpoint, rising."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, arrays: Any, extra: dict[str, Any]) -> None:
        """Write a checkpoint. CheckpointError: no room, or the directory is gone; the ones before it are intact."""
        if not remote.is_remote(self.directory) and not self.directory.is_dir():
            raise CheckpointError(f"{self.directory} is gone: no checkpoint of update {step} was written")
        if not remote.is_remote(self.directory):
            _check_room(self.directory, arrays, step)
        sums = {"bit_sums": bit_sums(arrays), "extra_sum": text_sum(extra)}
        self._best[step] = extra.get("best_update", step)
        args = self._ocp.args.Composite(
            **{ARRAYS: self._ocp.args.PyTreeSave(arrays), EXTRA: self._ocp.args.JsonSave(extra | sums)}
        )
        with self.told(f"the checkpoint of update {step}"):
            self._manager.save(step, args=args, force=True)

    def restore(self, like: Any) -> tuple[Any, dict[str, Any]] | None:
        """The newest whole state, in the shapes and shardings of `like`; None where there is none.

        A damaged one is passed over with a warning and deleted; where none is whole, nothing is deleted but all are renamed.
        ValueError: a checkpoint holds other shapes. UnreadableError: one cannot be read now, as of a full memory or a
        service that does not answer.
        """
        damaged, found = [], None
        for step in reversed(self.steps()):
            found = self.read(step, like)
            if found is not None:
                break
            damaged.append(step)
        if found is None:
            self._set_aside(damaged)
        else:
            for step in damaged:
                with contextlib.suppress(OSError, ValueError):
                    self._manager.delete(step)
            self._best = {step: found[1].get("best_update", step) for step in self.steps()}
        return found

    def _set_aside(self, steps: list[int]) -> None:
        """Out of the way of a run that begins anew, for whoever can make something of them."""
        if not steps:
            return
        if jax.process_index() == 0:
            for step in steps:
                place = self.directory / str(step)
                names = (f"damaged-{step}" + (f"-{n}" if n else "") for n in itertools.count())
                aside = next(free for free in (self.directory / name for name in names) if not free.exists())
                with contextlib.suppress(OSError):  # then saving under this number will say so
                    if remote.is_remote(place):  # in a bucket nothing can be renamed
                        remote.copy(place, aside)
                        remote.remove_tree(place)
                    else:
                        place.rename(aside)
                    warnings.warn(
                        f"no checkpoint in {self.directory} is whole: {step} is now {aside.name}", stacklevel=4
                    )
        _worst(0)  # all wait for the first
        self._manager.reload()

    def read(self, step: int, like: Any) -> tuple[Any, dict[str, Any]] | None:
        """One checkpoint's (arrays, extras), or None with a warning where it is damaged; `like` may name part of the arrays."""
        target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
        error: Exception | None = None
        found = None
        try:
            extra = self._manager.restore(step, args=self._ocp.args.Composite(**{EXTRA: self._ocp.args.JsonRestore()}))
            extra = dict(extra[EXTRA])
            stored, mark = extra.pop("bit_sums", None), extra.pop("extra_sum", None)
            if not stored or mark != text_sum(extra):
                raise Damaged("its extras are not what was written")
            self._check_shapes(step, target)
            args = self._ocp.args.PyTreeRestore(
                target, restore_args=self._ocp.checkpoint_utils.construct_restore_args(target), partial_restore=True
            )
            arrays = self._manager.restore(step, args=self._ocp.args.Composite(**{ARRAYS: args}))[ARRAYS]
            if wrong := [name for name, value in bit_sums(arrays).items() if stored.get(name) != value]:
                raise Damaged(f"{wrong[0]} is not what was written")
            found = arrays, extra
        except OtherShapes:
            raise
        except Exception as caught:  # all processes must hear of it
            error = caught
        worst = _worst(0 if error is None else 1 if _is_damage(error) else 2)
        if not worst:
            return found
        root = _causes(error)[-1] if error else "another process could not read it"
        reason = (str(root).strip() or type(root).__name__).splitlines()[0]
        if worst > 1:
            raise UnreadableError(
                f"{self.directory}: checkpoint {step} cannot be read now ({reason}); it may be whole and was left as it is"
            ) from error
        warnings.warn(f"checkpoint {step} in {self.directory} is damaged and passed over: {reason}", stacklevel=2)
        return None

    def _check_shapes(self, step: int, target: Any) -> None:
        metadata = self._manager.item_metadata(step)[ARRAYS]
        if metadata is None:
            return
        stored = {name: tuple(leaf.shape) for name, leaf in _named(getattr(metadata, "tree", metadata))}
        for name, leaf in _named(target):
            if stored.get(name) != tuple(leaf.shape):
                raise OtherShapes(
                    f"{self.directory}: {name} of checkpoint {step} has shape {stored.get(name)}, this run's has "
                    f"{tuple(leaf.shape)}; give another directory or the settings that it was written with"
                )

    def preempted(self, step: int) -> bool:
        """Whether several processes agreed, after one of them got SIGTERM, to save after this update."""
        return jax.process_count() > 1 and self._manager.reached_preemption(step)

    def wait(self) -> None:
        """Until what is being written is there. CheckpointError where it cannot be."""
        with self.told("the last checkpoint"):
            self._manager.wait_until_finished()
            self._manager.check_for_errors()

    def close(self) -> None:
        with self.told("the last checkpoint"):
            self._manager.close()

    @contextlib.contextmanager
    def told(self, what: str):
        """Around what writes beside the checkpoints too: CheckpointError says what could not be written and what is intact."""
        try:
            yield
        except CheckpointError:
            raise
        except Exception as error:
            lines = str(error).strip().splitlines()
            kept = ", ".join(map(str, self.steps())) if self.directory.is_dir() else "none: the directory is gone"
            raise CheckpointError(
                f"{self.directory}: {what} could not be written ({lines[0] if lines else type(error).__name__}); "
                f"intact are: {kept or 'none yet'}"
            ) from error


class OtherShapes(ValueError):
    """A checkpoint of another model or optimiser."""


class Damaged(ValueError):
    """A checkpoint that reads well but does not hold what was written."""


def _causes(error: BaseException) -> list[BaseException]:
    """The error, what it was raised from, and so on to the root: Orbax wraps what TensorStore says."""
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    return chain


def _is_damage(error: BaseException) -> bool:
    """Whether the files are to blame, not the reading of them."""

    def of_files(e):
        return (isinstance(e, DAMAGE) or type(e) is Exception) and not TROUBLE.search(str(e))

    return all(map(of_files, _causes(error)))


def text_sum(extra: dict[str, Any]) -> int:
    """A checksum of JSON extras, the same before they are written and after they are read."""
    plain = json.loads(json.dumps(extra))  # tuples become lists, keys strings
    return zlib.crc32(json.dumps(plain, sort_keys=True).encode())


def bit_sums(arrays: Any) -> dict[str, int]:
    """Sum of each array's elements read as unsigned integers, modulo 2^32: the same for any sharding."""
    leaves = dict(_named(arrays))
    if all(leaf.is_fully_addressable for leaf in leaves.values()) and jax.default_backend() == "cpu":
        sums = {}
        for name, leaf in leaves.items():
            bits = np.atleast_1d(np.asarray(leaf)).view(f"u{leaf.dtype.itemsize}")
            sums[name] = int(bits.sum(dtype=np.uint64)) % 2**32
        return sums
    found = jax.device_get(_device_sums(leaves))
    return {name: int(value) for name, value in found.items()}


@jax.jit
def _device_sums(leaves):
    def one(leaf):
        unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[leaf.dtype.itemsize]
        return jax.lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32).sum(dtype=jnp.uint32)

    return jax.tree.map(one, leaves)


def _named(tree: Any) -> list[tuple[str, Any]]:
    """(path, leaf) of a tree, the path spelled alike for dicts, named tuples and what a checkpoint's metadata holds."""

    def word(entry):
        return str(getattr(entry, "key", getattr(entry, "name", getattr(entry, "idx", entry))))

    return [("/".join(map(word, path)), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def _check_room(directory: Path, arrays: Any, step: int) -> None:
    """CheckpointError before anything is written where the disk has no room for this process's part."""
    need = sum(
        shard.data.nbytes
        for leaf in jax.tree.leaves(arrays)
        for shard in leaf.addressable_shards
        if not shard.replica_id
    )
    if remote.is_remote(directory):
        return  # a bucket has no end
    free = shutil.disk_usage(directory).free
    if free < need:
        raise CheckpointError(
            f"{directory}: {free / 2**20:.0f} MiB are free, the checkpoint of update {step} needs {need / 2**20:.0f} MiB"
        )


def _worst(number: int) -> int:
    """The largest of all processes' numbers."""
    if jax.process_count() == 1:
        return number
    from jax.experimental import multihost_utils

    return int(multihost_utils.process_allgather(np.array(number)).max())
