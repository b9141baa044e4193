"""Which process draws what on a pod, and how all come to know all of it."""

import pickle
from collections.abc import Callable, Iterable, Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from synthrl_jax.policy import sharding
from synthrl_jax.rollouts.root import Completion, Root, distinct


def share_of(policy) -> tuple[int, int]:
    """(i, n): this process draws every n-th part of the work from the i-th on.

    Where the parameters lie on this process's own devices it draws alone, a share of its own. Where they span several
    processes, all run the same programs on the same roots with the same refill decisions, which depend on tokens only.
    """
    where = getattr(jax.tree.leaves(policy.params)[0], "sharding", None)
    if jax.process_count() == 1 or (where is not None and not where.is_fully_addressable):
        return 0, 1
    return jax.process_index(), jax.process_count()


def mesh_of(policy) -> Mesh | None:
    """The mesh that the parameters lie on, None for one device."""
    return sharding.mesh_of(policy.params)


def barrier(name: str) -> None:
    """Wait until every process of the run is here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def sample_shares(
    draw: Callable[[list[Root]], Iterable[Completion]], policy, roots: Sequence[Root]
) -> list[Completion]:
    """All completions of all roots on every process, each drawn by one of them (or by all together, see `share_of`).

    ValueError: two roots of one id.
    """
    index, count = share_of(policy)
    own = list(draw(distinct(roots)[index::count]))
    if count == 1:
        return own
    data = np.frombuffer(pickle.dumps(own), np.uint8)
    sizes = multihost_utils.process_allgather(np.array(len(data)))
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: len(data)] = data
    gathered = multihost_utils.process_allgather(padded)
    return [c for row, size in zip(gathered, sizes) for c in pickle.loads(row[: int(size)].tobytes())]
