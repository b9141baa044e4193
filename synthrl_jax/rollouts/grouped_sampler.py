"""The fast sampler: prefixes shared by groups of rows, rows refilled on the device, roots swapped in by the host.

The nested prefixes of one root need one prefill, at decode time a prefix is read once per group, and a row that ends takes
the next task inside the compiled loop. `schedule` plans, `board` is the host side and `shared_prefix` the device side.
"""

import collections
import functools
import operator
import time
from collections.abc import Iterable, Iterator

import jax
import numpy as np

from synthrl_jax.policy import decoder
from synthrl_jax.rollouts import sampling, schedule, shared_prefix, shared_state, stop_strings
from synthrl_jax.rollouts.board import Board, Stats
from synthrl_jax.rollouts.processes import mesh_of
from synthrl_jax.rollouts.root import Completion, Root, Settings, Task, Workload, filtered, tasks
from synthrl_jax.rollouts.schedule import Job, Needs, Shape
from synthrl_jax.rollouts.static_sampler import empty, stop_conditions


def sample(policy, roots, settings: Settings, seed: int, workload: Workload | None = None) -> Iterator[Completion]:
    """See `rollouts.sample`."""
    stats, workload = Stats(), workload or Workload()
    for completion, _ in run(policy, roots, settings, seed, stats, workload):
        yield completion
    workload.row_steps += stats.row_steps
    workload.idle_row_steps += stats.idle_row_steps
    workload.near_ties += stats.near_ties


def needs_of(policy, batches: Iterable[Iterable[Root]], settings: Settings) -> Needs | None:
    """The needs of a workload of many batches; None where nothing is to be drawn."""
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
    workload: Workload | None = None,
    time_prefill: bool = False,
) -> Iterator[tuple[Completion, np.ndarray]]:
    """Completions with how near a tie each token's draw was; fills `stats`."""
    config, key, stops = policy.config, sampling.seed_key(seed), stop_conditions(policy, settings)
    wanted = stop_strings.resumed(stops[1], tasks(roots, settings, config.max_positions, config.vocab_size))
    yield from (
        (empty(task, i, settings), np.zeros(0)) for task in wanted if not task.max_tokens for i in range(task.n)
    )
    wanted = [task for task in wanted if task.max_tokens]
    if not wanted:
        return
    jobs = schedule.jobs_of(wanted)
    own = _needs(wanted, jobs)
    workload = workload or Workload()
    needs = own if workload.needs is None else workload.needs | own
    shapes = schedule.plan(needs, settings, mesh_of(policy))
    jobs = schedule.cut(jobs, shapes[0])
    device = Device(policy, shapes[0], needs, key, stops, stats, workload, time_prefill)
    if workload.needs is not None:
        device.compile_loads()
    board, unread, late = Board(shapes, jobs, settings, stats), collections.deque(), chunks_ahead()
    while board.unfinished():
        start, prefilled = time.perf_counter(), stats.prefill_seconds
        while picked := board.next_load():
            device.load(*picked)
        if board.running():
            unread.append(device.decode(board.enough()))
        stats.host_seconds += time.perf_counter() - start - (stats.prefill_seconds - prefilled)
        # a change of shape needs all that was drawn before it
        while len(unread) > late or (unread and board.next_shape_holds()):
            chunk = jax.device_get(unread.popleft())
            start = time.perf_counter()
            done = list(board.read(chunk))
            stats.host_seconds += time.perf_counter() - start
            yield from done
        while not unread and (change := board.next_shape()):
            device.resize(*change, loads=bool(board.pending))
    while change := board.shapes_left():  # compiled now, so that no later batch of this workload has to
        device.resize(*change, loads=False)


def chunks_ahead() -> int:
    """Chunks that the device may be ahead of the host: an accelerator must not wait for it, on CPU the host's work is small
    and a late look leaves rows idle. No token depends on it."""
    return 0 if jax.default_backend() == "cpu" else 1


_loads_compiled: set[tuple] = set()


class Device:
    """The state on the device and the three programs that change it."""

    def __init__(
        self,
        policy,
        shape: Shape,
        needs: Needs,
        key: jax.Array,
        stops: tuple[np.ndarray, np.ndarray | None],
        stats: Stats,
        workload: Workload,
        time_prefill: bool,
    ):
        self.config, self.shape, self.stats, self.time_prefill = policy.config, shape, stats, time_prefill
        self.key, self.stops = key, stops
        self.loads = needs.loads(shape.prefix)  # lengths that prefixes are padded to
        self.filters = needs.filters
        # weights are laid out for decoding once: split over layers and over tensor, never gathered in a step
        unstack, empty_state = layouts(self.config, shape)
        self.weights = workload.laid_out(policy, lambda: unstack(self.config, policy.params))
        self.state = empty_state(self.config, shape)
        stats.shape = shape
        stats.kv_bytes = sum(x.nbytes for x in jax.tree.leaves(self.state.layers))
        per_token = 2 * self.config.layers * self.config.kv_heads * self.config.head_dim
        per_token *= np.dtype(self.state.layers[0].prefix_k.dtype).itemsize
        stats.unshared_kv_bytes = shape.batch * (shape.prefix + shape.suffix) * per_token

    def load(self, jobs: list[Job], first_ids: list[int], places: list[tuple[int, int]], stamp: int) -> None:
        """Prefill jobs into their (group, slot) places."""
        self.stats.prefill_tokens += sum(job.length for job in jobs)
        self.stats.prefills += len(jobs)
        longest = max(job.length for job in jobs)
        self._load(jobs, first_ids, places, stamp, next(T for T in self.loads if longest <= T))

    def compile_loads(self) -> None:
        """Run, into no group, each load that a batch of the workload may need and that this process has not run yet."""
        for T in self.loads:
            if (at := (self.config, self.shape, T)) not in _loads_compiled:
                _loads_compiled.add(at)
                self._load([], [], [], 0, T)

    def _load(self, jobs, first_ids, places, stamp: int, T: int) -> None:
        shape = self.shape
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
            task_FxQxX=table.task_FxQx5,
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
        state, before, moved = self.state, self.shape, (group_G, row_GxR)
        old, new = list(state.layers), []
        # one layer at a time, so that no more than one is there twice
        self.state = state = state._replace(layers=())
        for i in range(len(old)):
            layer, old[i] = old[i], None
            new.append(shared_prefix.resize_layer(self.config, before, shape, layer, state.cursor, *moved))
            jax.block_until_ready(new[-1])
            del layer
        state = shared_prefix.resize_rows(self.config, shape, state, *moved, keep_GxR)
        self.state, self.shape = state._replace(layers=tuple(new)), shape
        only_prefix = shape.prefix < before.prefix
        if only_prefix:
            self.loads = [shape.prefix]
        # every program of a workload is compiled by its first batch, used there or not
        self.decode(0)
        if only_prefix and not loads:
            self._load([], [], [], 0, shape.prefix)

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
