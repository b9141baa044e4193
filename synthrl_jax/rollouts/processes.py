"""Which process draws what on a pod, and how all come to know all of it."""

import pickle
import time
from collections.abc import Callable, Iterable, Sequence

import jax
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from synthrl_jax import pod
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


def barrier(name: str, own_seconds: float = 0.0) -> None:
    """Wait until every process of the run is here. PodError names those that are not after the pod's time limit, or after
    as long again as this one's own share took: shares are about equal, however long they are."""
    if pod.count() > 1:
        pod.barrier(name, max(pod.limit(), own_seconds))
    elif jax.process_count() > 1:  # joined by jax alone
        multihost_utils.sync_global_devices(name)


def sample_shares(
    draw: Callable[[list[Root]], Iterable[Completion]], policy, roots: Sequence[Root]
) -> list[Completion]:
    """All completions of all roots on every process, each drawn by one of them (or by all together, see `share_of`).

    ValueError: two roots of one id. PodError: a process has not drawn its share in time.
    """
    index, count = share_of(policy)
    began = time.monotonic()
    own = list(draw(distinct(roots)[index::count]))
    if count == 1:
        return own
    barrier("all shares are drawn", time.monotonic() - began)
    return [completion for data in pod.exchange(pickle.dumps(own)) for completion in pickle.loads(data)]
