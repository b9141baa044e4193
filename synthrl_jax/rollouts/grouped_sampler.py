"""The fast sampler: prefixes shared by groups of rows, rows refilled on the device, roots swapped in by the host.

The nested prefixes of one root need one prefill, at decode time a prefix is read once per group, and a row that ends takes
the next task inside the compiled loop. `schedule` says what is loaded where, `shared_prefix` is the device side.
"""

import bisect
import collections
import dataclasses
import functools
import itertools
import time
from collections.abc import Iterable, Iterator

import jax
import numpy as np
from jax.sharding import Mesh

from synthrl_jax.policy import decoder
from synthrl_jax.rollouts import sampling, schedule, shared_prefix
from synthrl_jax.rollouts.root import Completion, Root, Settings, tasks
from synthrl_jax.rollouts.schedule import Job, Shape
from synthrl_jax.rollouts.static_sampler import empty, stop_conditions

NEAR_TIE = 1e-4


@dataclasses.dataclass
class Stats:
    """What a call cost; seconds are wall-clock on the host."""

    tokens: int = 0  # generated
    prefill_tokens: int = 0  # of roots, without padding
    prefills: int = 0
    row_steps: int = 0
    idle_row_steps: int = 0
    near_ties: int = 0  # tokens whose draw was closer than 1e-4
    chunks: int = 0
    host_seconds: float = 0.0  # neither waiting for the device nor for whoever takes the completions
    prefill_seconds: float = 0.0  # only where prefills are timed apart
    kv_bytes: int = 0
    unshared_kv_bytes: int = 0  # of the same batch with a prefix per row
    shape: Shape | None = None


def sample(policy, roots: Iterable[Root], settings: Settings, seed: int) -> Iterator[Completion]:
    """See `rollouts.sample`."""
    for completion, _ in run(policy, roots, settings, seed, Stats()):
        yield completion


def run(
    policy, roots: Iterable[Root], settings: Settings, seed: int, stats: Stats, time_prefill: bool = False
) -> Iterator[tuple[Completion, np.ndarray]]:
    """Completions with how near a tie each token's draw was; fills `stats`."""
    config = policy.config
    wanted = tasks(roots, settings, config.max_positions)
    yield from ((empty(task, i), np.zeros(0)) for task in wanted if not task.max_tokens for i in range(task.n))
    jobs = schedule.jobs_of([task for task in wanted if task.max_tokens])
    if not jobs:
        return
    shape, jobs = schedule.plan(jobs, settings, longest=max(task.max_tokens for task in wanted), mesh=mesh_of(policy))
    device = Device(policy, shape, settings, seed, stats, time_prefill)
    # on CPU the host's work is small and a late look leaves rows idle; on accelerators the device must not wait for it
    late = 0 if jax.default_backend() == "cpu" else 1
    board, unread = Board(shape, jobs, settings, stats), collections.deque()
    while board.unfinished():
        start = time.perf_counter()
        while picked := board.next_load():
            device.load(*picked)
        if board.running():
            unread.append(device.decode(board.enough()))
        stats.host_seconds += time.perf_counter() - start
        while len(unread) > late or (unread and board.nothing_to_load()):
            chunk = jax.device_get(unread.popleft())
            start = time.perf_counter()
            done = list(board.read(chunk))
            stats.host_seconds += time.perf_counter() - start
            yield from done
        if not unread and (smaller := board.smaller()):
            device.resize(*smaller)


class Device:
    """The state on the device and the three programs that change it."""

    def __init__(self, policy, shape: Shape, settings: Settings, seed: int, stats: Stats, time_prefill: bool):
        self.config, self.shape, self.stats, self.time_prefill = policy.config, shape, stats, time_prefill
        self.key = sampling.seed_key(seed)
        self.stops = stop_conditions(policy, settings)
        self.filters = None
        if settings.top_k or settings.top_p < 1.0:
            self.filters = (np.int32(settings.top_k), np.float32(settings.top_p))
        # weights are laid out for decoding once: split over layers and over tensor, never gathered in a step
        unstack, empty_state = layouts(self.config, shape)
        self.weights, self.state = unstack(self.config, policy.params), empty_state(self.config, shape)
        stats.shape = shape
        stats.kv_bytes = sum(x.nbytes for x in jax.tree.leaves(self.state.layers))
        per_token = 2 * self.config.layers * self.config.kv_heads * self.config.head_dim
        per_token *= np.dtype(self.state.layers[0].prefix_k.dtype).itemsize
        stats.unshared_kv_bytes = shape.batch * (shape.prefix + shape.suffix) * per_token

    def load(self, jobs: list[Job], first_ids: list[int], places: list[tuple[int, int]], stamp: int) -> None:
        """Prefill jobs into their (group, slot) places."""
        start = time.perf_counter()
        self.stats.prefill_tokens += sum(job.length for job in jobs)
        self.stats.prefills += len(jobs)
        fill = self.shape.jobs - len(jobs)
        jobs, first_ids = jobs + jobs[-1:] * fill, first_ids + first_ids[-1:] * fill
        places = places + places[-1:] * fill
        T = min(self.shape.prefix, schedule.bucket(max(job.length for job in jobs), schedule.LEAST_PREFIX))
        tokens_FxT = np.zeros((len(jobs), T), np.int32)
        for f, job in enumerate(jobs):
            tokens_FxT[f, : job.length] = job.root.tokens[: job.length]
        table = schedule.table(jobs, first_ids, self.shape.tasks)
        group_F, slot_F = np.array(places, np.int32).T
        load = shared_prefix.Load(
            tokens_FxT=tokens_FxT,
            group_F=group_F,
            slot_F=slot_F,
            stamp_F=np.full(len(jobs), stamp, np.int32),
            task_FxQxX=table.task_FxQx4,
            temperature_FxQ=table.temperature_FxQ,
            word_FxQx4=table.word_FxQx4,
            count_F=table.count_F,
        )
        self.state = shared_prefix.load(self.config, self.shape, self.weights, self.state, self.key, load)
        if self.time_prefill:
            jax.block_until_ready(self.state)
            self.stats.prefill_seconds += time.perf_counter() - start

    def resize(self, shape: Shape, group_G: np.ndarray, row_GxR: np.ndarray) -> None:
        """Go on with a smaller state."""
        self.state = shared_prefix.resize(self.config, self.shape, shape, self.state, group_G, row_GxR)
        self.shape = shape

    def decode(self, enough: int) -> shared_prefix.Chunk:
        """Dispatch a chunk; its outputs come later."""
        self.state, chunk = shared_prefix.decode(
            self.config, self.shape, self.weights, self.state, self.stops, self.filters, np.int32(enough)
        )
        self.stats.chunks += 1
        return chunk


@functools.cache
def layouts(config: decoder.DecoderConfig, shape: Shape):
    """The compiled programs that lay out weights and an empty state, on the shape's mesh."""
    specs = None, None
    if shape.mesh is not None:
        kinds = shared_prefix.weight_specs(config, shape.mesh), shared_prefix.state_specs(config, shape)
        specs = tuple(shared_prefix.placed(kind, shape.mesh) for kind in kinds)
    unstack = jax.jit(decoder.unstack, static_argnums=0, out_shardings=specs[0])
    return unstack, jax.jit(shared_prefix.empty_state, static_argnums=(0, 1), out_shardings=specs[1])


def mesh_of(policy) -> Mesh | None:
    """The mesh that the parameters lie on, None for one device.

    A process whose mesh has its own devices only draws alone: give each a share of the roots. On a mesh of several
    processes all make the same decisions, which depend on tokens only.
    """
    where = jax.tree.leaves(policy.params)[0]
    mesh = getattr(getattr(where, "sharding", None), "mesh", None)
    return mesh if isinstance(mesh, Mesh) and mesh.size > 1 else None


class Board:
    """What the host knows: which job is where, which tasks are done, and the last tokens of every row."""

    def __init__(self, shape: Shape, jobs: list[Job], settings: Settings, stats: Stats):
        self.shape, self.settings, self.stats = shape, settings, stats
        self.least_batch = shape.batch // 8  # below that a step is hardly cheaper
        self.pending = collections.deque(jobs)
        self.free = collections.deque((g, slot) for slot in range(shape.slots) for g in range(shape.groups))
        self.loaded: dict[tuple[int, int], Loaded] = {}
        self.first_ids: list[int] = []  # of every job ever loaded, ascending
        self.places: list[tuple[int, int]] = []
        self.next_id = 0
        self.loads = 0
        self.started = 0  # tasks whose first token was read
        self.window: list[np.ndarray] | None = None  # the last steps of every output, [steps, G R] each
        self.active_GxR = np.zeros((shape.groups, shape.rows), bool)

    def unfinished(self) -> bool:
        return bool(self.pending or self.loaded)

    def running(self) -> bool:
        return bool(self.loaded)

    def nothing_to_load(self) -> bool:
        """The tail: no root waits, and looking late saves nothing."""
        return not self.pending

    def enough(self) -> int:
        """How many free prefix slots are worth a visit of the host."""
        everything = self.shape.groups * self.shape.slots
        return min(self.shape.jobs, len(self.pending)) if self.pending else everything

    def next_load(self) -> tuple[list[Job], list[int], list[tuple[int, int]], int] | None:
        """Jobs for free places, a whole load of them, or what is left."""
        n = min(self.shape.jobs, len(self.pending))
        if not n or len(self.free) < n:
            return None
        jobs = [self.pending.popleft() for _ in range(n)]
        places = [self.free.popleft() for _ in range(n)]
        first_ids = []
        for job, place in zip(jobs, places):
            first_ids.append(self.next_id)
            self.loaded[place] = Loaded(job, self.next_id, len(job))
            self.next_id += len(job)
        self.first_ids += first_ids
        self.places += places
        self.loads += 1
        return jobs, first_ids, places, self.loads

    def smaller(self) -> tuple[Shape, np.ndarray, np.ndarray] | None:
        """A shape of half the size or less that holds all that is left, and the groups and rows to keep."""
        shape = self.shape
        lengths = [job.length for job in itertools.islice(self.pending, 1)]
        lengths += [loaded.job.length for loaded in self.loaded.values()]
        if not lengths:
            return None
        prefix = schedule.bucket(max(lengths), schedule.LEAST_PREFIX)
        prefix = prefix if 2 * prefix <= shape.prefix else shape.prefix
        groups, rows = shape.groups, shape.rows
        if not self.pending:
            busy = len({group for group, _ in self.loaded})
            most = int(self.active_GxR.sum(axis=1).max())
            drawn = self.started == self.next_id
            while groups % (2 * shape.data) == 0 and groups // 2 >= busy and groups * rows // 2 >= self.least_batch:
                groups //= 2
            while drawn and rows % 2 == 0 and rows // 2 >= most and groups * rows // 2 >= self.least_batch:
                rows //= 2
        after = dataclasses.replace(shape, groups=groups, rows=rows, prefix=prefix)
        if after == shape:
            return None
        return after, *self._shrink(after)

    def _shrink(self, after: Shape) -> tuple[np.ndarray, np.ndarray]:
        before, self.shape = self.shape, after
        works_G = np.zeros(before.groups, bool)
        works_G[[group for group, _ in self.loaded]] = True
        # stable sorts keep the order of what works and put it first
        group_G = np.argsort(~works_G, kind="stable")[: after.groups].astype(np.int32)
        row_GxR = np.argsort(~self.active_GxR[group_G], axis=1, kind="stable")[:, : after.rows].astype(np.int32)
        self.active_GxR = np.take_along_axis(self.active_GxR[group_G], row_GxR, axis=1)
        flat = (group_G[:, None] * before.rows + row_GxR).reshape(-1)
        self.window = [column[:, flat] for column in self.window] if self.window else None
        moved = {int(old): new for new, old in enumerate(group_G)}
        self.loaded = {(moved[group], slot): loaded for (group, slot), loaded in self.loaded.items()}
        self.places = [(moved.get(group, -1), slot) for group, slot in self.places]
        everywhere = ((g, slot) for slot in range(after.slots) for g in range(after.groups))
        self.free = collections.deque(place for place in everywhere if place not in self.loaded)
        return group_G, row_GxR

    def read(self, chunk: shared_prefix.Chunk) -> Iterator[tuple[Completion, np.ndarray]]:
        """Completions that end in this chunk; frees the places of jobs that are done."""
        steps, B = int(chunk.steps), self.shape.batch
        if not steps:
            return
        columns = [np.asarray(getattr(chunk, name)[:steps]).reshape(steps, B) for name in _OUTPUTS]
        active = chunk.active_CxGxR[:steps]
        self.stats.row_steps += steps * B
        self.stats.tokens += int(active.sum())
        self.stats.idle_row_steps += steps * B - int(active.sum())
        self.stats.near_ties += int((chunk.gap_CxGxR[:steps][active] < NEAR_TIE).sum())
        self.active_GxR = active[-1] & (chunk.ended_CxGxR[steps - 1] < 0)
        before = 0
        if self.window is not None:
            before = len(self.window[0])
            columns = [np.concatenate(pair) for pair in zip(self.window, columns)]
        ended = chunk.ended_CxGxR[:steps].reshape(steps, B)
        counts, stopped = chunk.count_CxGxR.reshape(-1, B), chunk.stopped_CxGxR.reshape(-1, B)
        self.started += int((active & (chunk.count_CxGxR[:steps] == 1)).sum())
        for step, row in np.argwhere(ended >= 0).tolist():
            count = int(counts[step, row])
            end = before + step + 1
            yield self._finish(
                int(ended[step, row]),
                [column[end - count : end, row] for column in columns],
                "stop" if stopped[step, row] else "length",
            )
        keep = self.shape.suffix
        self.window = [column[-keep:] for column in columns]

    def _finish(self, task: int, columns: list[np.ndarray], finish: str) -> tuple[Completion, np.ndarray]:
        place = self.places[bisect.bisect_right(self.first_ids, task) - 1]
        loaded = self.loaded[place]
        loaded.left -= 1
        if not loaded.left:
            del self.loaded[place]
            self.free.append(place)
        job, at = loaded.job, task - loaded.first_id
        token, logprob, model_logprob, gap = columns
        completion = Completion(
            root_id=job.root.id,
            fork=int(job.position_Q[at]),
            index=int(job.index_Q[at]),
            tokens=tuple(token.tolist()),
            logprobs=tuple(logprob.tolist()),
            finish=finish,
            model_logprobs=tuple(model_logprob.tolist()) if self.settings.model_logprobs else None,
        )
        return completion, gap


@dataclasses.dataclass
class Loaded:
    """A job in its place; `left` of its tasks are not done."""

    job: Job
    first_id: int
    left: int


_OUTPUTS = ("token_CxGxR", "logprob_CxGxR", "model_logprob_CxGxR", "gap_CxGxR")
