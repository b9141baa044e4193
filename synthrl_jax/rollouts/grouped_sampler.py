"""The fast sampler: prefixes shared by groups of rows, rows refilled on the device, roots swapped in by the host.

The nested prefixes of one root need one prefill, at decode time a prefix is read once per group, and a row that ends takes
the next task inside the compiled loop. `schedule` says what is loaded where, `shared_prefix` is the device side.
"""

import bisect
import collections
import dataclasses
import functools
import operator
import time
from collections.abc import Iterable, Iterator

import jax
import numpy as np

from synthrl_jax.policy import decoder
from synthrl_jax.rollouts import sampling, schedule, shared_prefix, shared_state
from synthrl_jax.rollouts.processes import mesh_of
from synthrl_jax.rollouts.root import Completion, Root, Settings, Task, filtered, tasks
from synthrl_jax.rollouts.schedule import Job, Needs, Shape
from synthrl_jax.rollouts.static_sampler import empty, stop_conditions


@dataclasses.dataclass
class Stats:
    """What a call cost; seconds are wall-clock on the host."""

    tokens: int = 0  # generated
    prefill_tokens: int = 0  # of roots, without padding
    prefills: int = 0
    row_steps: int = 0
    idle_row_steps: int = 0
    near_ties: int = 0  # tokens whose draw was closer than `sampling.NEAR_TIE`
    chunks: int = 0
    host_seconds: float = 0.0  # neither waiting for the device nor for whoever takes the completions
    prefill_seconds: float = 0.0  # only where prefills are timed apart
    kv_bytes: int = 0
    unshared_kv_bytes: int = 0  # of the same batch with a prefix per row
    shape: Shape | None = None


def sample(policy, roots, settings: Settings, seed: int, needs: Needs | None = None) -> Iterator[Completion]:
    """See `rollouts.sample`."""
    for completion, _ in run(policy, roots, settings, seed, Stats(), needs):
        yield completion


def needs_of(policy, batches: Iterable[Iterable[Root]], settings: Settings) -> Needs | None:
    """The needs of a workload of many batches, for `sample` to use the same programs on all of them."""
    found, config = [], policy.config
    for roots in batches:
        every = tasks(roots, settings, config.max_positions, config.vocab_size)
        wanted = [task for task in every if task.max_tokens]
        if wanted:
            found.append(_needs(wanted, schedule.jobs_of(wanted)))
    return functools.reduce(operator.or_, found) if found else None


def _needs(wanted: list[Task], jobs: list[Job]) -> Needs:
    return schedule.needs_of(jobs, longest=max(task.max_tokens for task in wanted), filters=filtered(wanted))


def run(
    policy,
    roots: Iterable[Root],
    settings: Settings,
    seed: int,
    stats: Stats,
    needs: Needs | None = None,
    time_prefill: bool = False,
) -> Iterator[tuple[Completion, np.ndarray]]:
    """Completions with how near a tie each token's draw was; fills `stats`."""
    config = policy.config
    wanted = tasks(roots, settings, config.max_positions, config.vocab_size)
    yield from (
        (empty(task, i, settings), np.zeros(0)) for task in wanted if not task.max_tokens for i in range(task.n)
    )
    wanted = [task for task in wanted if task.max_tokens]
    if not wanted:
        return
    jobs = schedule.jobs_of(wanted)
    own = _needs(wanted, jobs)
    needs = own if needs is None else needs | own
    shapes = schedule.plan(needs, settings, mesh_of(policy))
    jobs = schedule.cut(jobs, shapes[0])
    device = Device(policy, shapes[0], settings, needs.filters, seed, stats, time_prefill)
    # on CPU the host's work is small and a late look leaves rows idle; on accelerators the device must not wait for it
    late = 0 if jax.default_backend() == "cpu" else 1
    board, unread = Board(shapes, jobs, settings, stats), collections.deque()
    while board.unfinished():
        start, prefilled = time.perf_counter(), stats.prefill_seconds
        while picked := board.next_load():
            device.load(*picked)
        if board.running():
            unread.append(device.decode(board.enough()))
        stats.host_seconds += time.perf_counter() - start - (stats.prefill_seconds - prefilled)
        while len(unread) > late or (unread and board.nothing_to_load()):
            chunk = jax.device_get(unread.popleft())
            start = time.perf_counter()
            done = list(board.read(chunk))
            stats.host_seconds += time.perf_counter() - start
            yield from done
        while not unread and (change := board.next_shape()):
            device.resize(*change, loads=bool(board.pending))
    while change := board.shapes_left():  # compiled now, so that no later batch of this workload has to
        device.resize(*change, loads=False)


class Device:
    """The state on the device and the three programs that change it."""

    def __init__(
        self, policy, shape: Shape, settings: Settings, filters: bool, seed: int, stats: Stats, time_prefill: bool
    ):
        self.config, self.shape, self.stats, self.time_prefill = policy.config, shape, stats, time_prefill
        self.key = sampling.seed_key(seed)
        self.stops = stop_conditions(policy, settings)
        self.halved = False  # the prefix slots: then every load is as long as they are
        self.filters = filters
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
        self.stats.prefill_tokens += sum(job.length for job in jobs)
        self.stats.prefills += len(jobs)
        shape, half = self.shape, self.shape.prefix // 2
        T = half if not self.halved and max(job.length for job in jobs) <= half else shape.prefix
        tokens_FxT = np.zeros((shape.jobs, T), np.int32)
        for f, job in enumerate(jobs):
            tokens_FxT[f, : job.length] = job.root.tokens[: job.length]
        table = schedule.table(jobs, first_ids, shape.jobs, shape.tasks)
        # what only fills the shape goes into no group
        group_F, slot_F = np.array([*places, *[(shape.groups, 0)] * (shape.jobs - len(jobs))], np.int32).T
        load = shared_prefix.Load(
            tokens_FxT=tokens_FxT,
            group_F=group_F,
            slot_F=slot_F,
            stamp_F=np.full(shape.jobs, stamp, np.int32),
            task_FxQxX=table.task_FxQx4,
            warp_FxQx3=table.warp_FxQx3,
            word_FxQx4=table.word_FxQx4,
            count_F=table.count_F,
            jobs=np.int32(len(jobs)),
        )
        start = time.perf_counter()
        self.state = shared_prefix.load(self.config, shape, self.weights, self.state, self.key, load)
        if self.time_prefill:
            jax.block_until_ready(self.state)
            self.stats.prefill_seconds += time.perf_counter() - start

    def resize(self, shape: Shape, group_G, row_GxR, keep_GxR, loads: bool) -> None:
        """Go on with a smaller state; `loads`: more roots will be loaded."""
        self.state = shared_prefix.resize(self.config, self.shape, shape, self.state, group_G, row_GxR, keep_GxR)
        only_prefix = shape.prefix < self.shape.prefix
        self.halved, self.shape = self.halved or only_prefix, shape
        # every program of a workload is compiled by its first batch, used there or not
        self.decode(0)
        if only_prefix and not loads:
            self.load([], [], [], 0)

    def decode(self, enough: int) -> shared_prefix.Chunk:
        """Dispatch a chunk; its outputs come later."""
        self.state, chunk = shared_prefix.decode(
            self.config, self.shape, self.weights, self.state, self.stops, self.filters, np.int32(enough)
        )
        self.stats.chunks += enough > 0
        return chunk


@functools.cache
def layouts(config: decoder.DecoderConfig, shape: Shape):
    """The compiled programs that lay out weights and an empty state, on the shape's mesh."""
    specs = None, None
    if shape.mesh is not None:
        kinds = shared_state.weight_specs(config, shape.mesh), shared_state.state_specs(config, shape)
        specs = tuple(shared_state.placed(kind, shape.mesh) for kind in kinds)
    unstack = jax.jit(decoder.unstack, static_argnums=0, out_shardings=specs[0])
    return unstack, jax.jit(shared_state.empty_state, static_argnums=(0, 1), out_shardings=specs[1])


class Board:
    """What the host knows: which job is where, which tasks are done, and the last tokens of every row."""

    def __init__(self, shapes: list[Shape], jobs: list[Job], settings: Settings, stats: Stats):
        self.shape, *self.shapes = shapes
        self.settings, self.stats = settings, stats
        self.pending = collections.deque(jobs)
        self.free = collections.deque((g, slot) for slot in range(self.shape.slots) for g in range(self.shape.groups))
        self.loaded: list[Loaded] = []  # every job ever loaded, ids ascending
        self.first_ids: list[int] = []
        self.working = 0  # jobs loaded and not done
        self.next_id = 0
        self.loads = 0
        self.started = 0  # tasks whose first token was read
        self.window: list[np.ndarray] | None = None  # the steps of every output that live rows need, [steps, G R] each
        self.active_GxR = np.zeros((self.shape.groups, self.shape.rows), bool)

    def unfinished(self) -> bool:
        return bool(self.pending or self.working)

    def running(self) -> bool:
        return bool(self.working)

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
            self.loaded.append(Loaded(job, self.next_id, len(job), place))
            self.next_id += len(job)
        self.first_ids += first_ids
        self.working += n
        self.loads += 1
        return jobs, first_ids, places, self.loads

    def next_shape(self) -> tuple[Shape, np.ndarray, np.ndarray, np.ndarray] | None:
        """The next shape where it holds all that is left; the group, rows and liveness that each of its groups takes."""
        if not self.shapes or not self.working:
            return None
        after = self.shapes[0]
        if after.prefix < self.shape.prefix:
            left = [loaded.job.length for loaded in self.loaded if loaded.left] + [j.length for j in self.pending]
            return self._change() if max(left) <= after.prefix else None
        parts_G = -(-self.active_GxR.sum(axis=1) // after.rows)
        drawn = not self.pending and self.started == self.next_id
        return self._change() if drawn and parts_G.sum() <= after.groups else None

    def shapes_left(self) -> tuple[Shape, np.ndarray, np.ndarray, np.ndarray] | None:
        """The next shape once all is done."""
        return self._change() if self.shapes else None

    def _change(self):
        """Groups with more live rows than the next shape's groups hold are spread over several of its groups."""
        before, (after, *self.shapes) = self.shape, self.shapes
        self.shape = after
        if (after.groups, after.rows) == (before.groups, before.rows):
            row_GxR = np.broadcast_to(np.arange(after.rows, dtype=np.int32), self.active_GxR.shape)
            return after, np.arange(after.groups, dtype=np.int32), row_GxR, np.ones_like(self.active_GxR)
        parts_G = -(-self.active_GxR.sum(axis=1) // after.rows)
        group_G = np.repeat(np.arange(before.groups), parts_G)
        part_G = np.arange(len(group_G)) - np.repeat(np.cumsum(parts_G) - parts_G, parts_G)
        fill = (0, after.groups - len(group_G))
        group_G, part_G = np.pad(group_G, fill), np.pad(part_G, fill)
        # live rows first, in their order
        order_GxR = np.argsort(~self.active_GxR[group_G], axis=1, kind="stable")
        row_GxR = np.take_along_axis(order_GxR, part_G[:, None] * after.rows + np.arange(after.rows), axis=1)
        keep_GxR = np.arange(after.groups)[:, None] < after.groups - fill[1]
        keep_GxR = np.take_along_axis(self.active_GxR[group_G], row_GxR, axis=1) & keep_GxR
        flat = (group_G[:, None] * before.rows + row_GxR).reshape(-1)
        self.window = [column[:, flat] for column in self.window] if self.window else None
        self.active_GxR = keep_GxR
        return after, group_G.astype(np.int32), row_GxR.astype(np.int32), keep_GxR

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
        self.stats.near_ties += int((chunk.gap_CxGxR[:steps][active] < sampling.NEAR_TIE).sum())
        self.active_GxR = np.asarray(chunk.live_GxR)
        before = 0
        if self.window is not None:
            before = len(self.window[0])
            columns = [np.concatenate(pair) for pair in zip(self.window, columns)]
        ended = chunk.ended_CxGxR[:steps].reshape(steps, B)
        counts, stopped = chunk.count_CxGxR.reshape(-1, B), chunk.stopped_CxGxR.reshape(-1, B)
        self.started += int((active & (chunk.count_CxGxR[:steps] == 1)).sum())
        *drawn, drawing, _ = columns
        for step, row in np.argwhere(ended >= 0).tolist():
            # its own last steps, those left out in which it waited
            at = np.flatnonzero(drawing[: before + step + 1, row])[-int(counts[step, row]) :]
            finish = "stop" if stopped[step, row] else "length"
            yield self._finish(int(ended[step, row]), [column[at, row] for column in drawn], finish)
        self.window = self._needed(columns)

    def _needed(self, columns: list[np.ndarray]) -> list[np.ndarray]:
        """The steps from the first token of any row that is at work."""
        *_, drawing, count = columns
        first = (drawing & (count == 1))[::-1].argmax(axis=0)[self.active_GxR.reshape(-1)]
        keep = 1 + int(first.max()) if first.size else 0
        return [column[len(column) - keep :] for column in columns]

    def _finish(self, task: int, columns: list[np.ndarray], finish: str) -> tuple[Completion, np.ndarray]:
        loaded = self.loaded[bisect.bisect_right(self.first_ids, task) - 1]
        loaded.left -= 1
        if not loaded.left:
            self.working -= 1
            self.free.append(loaded.place)
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
    """A job in its place (group, slot); `left` of its tasks are not done."""

    job: Job
    first_id: int
    left: int
    place: tuple[int, int]


_OUTPUTS = ("token_CxGxR", "logprob_CxGxR", "model_logprob_CxGxR", "gap_CxGxR", "active_CxGxR", "count_CxGxR")
