"""The host side of the grouped sampler: which job is where, which tasks are done, and the completions that chunks end."""

import bisect
import collections
import dataclasses
from collections.abc import Iterator

import numpy as np

from synthrl_jax.rollouts import sampling, shared_prefix
from synthrl_jax.rollouts.root import Completion, Settings
from synthrl_jax.rollouts.schedule import Job, Shape


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
        # jobs not done that the next shape's prefix slots cannot hold
        self.too_long = sum(job.length > self.shapes[0].prefix for job in jobs) if self.shapes else 0
        self.next_id = 0
        self.loads = 0
        self.started = 0  # tasks whose first token was read
        self.window: list[np.ndarray] | None = None  # the steps of every output that live rows need, [steps, G R] each
        self.active_GxR = np.zeros((self.shape.groups, self.shape.rows), bool)

    def unfinished(self) -> bool:
        return bool(self.pending or self.working)

    def running(self) -> bool:
        return bool(self.working)

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

    def next_shape_holds(self) -> bool:
        """Whether the next shape holds all that is left, as far as was read."""
        if not self.shapes or not self.working:
            return False
        after = self.shapes[0]
        if after.prefix < self.shape.prefix:
            return not self.too_long
        parts_G = -(-self.active_GxR.sum(axis=1) // after.rows)
        return not self.pending and self.started == self.next_id and parts_G.sum() <= after.groups

    def next_shape(self) -> tuple[Shape, np.ndarray, np.ndarray, np.ndarray] | None:
        """The next shape where it holds all that is left; the group, rows and liveness that each of its groups takes."""
        return self._change() if self.next_shape_holds() else None

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
            self.too_long -= bool(self.shapes) and loaded.job.length > self.shapes[0].prefix
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
