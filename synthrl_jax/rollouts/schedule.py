"""What a workload asks of the device: its roots cut into jobs, the batch split into groups x rows, and the buckets.

A job is a root with a share of its tasks; a group holds it in one of its prefix slots until its last task is done.
Nothing here depends on time: the schedule is a function of the requests and of the tokens drawn.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jax.sharding import Mesh

from synthrl_jax.rollouts import sampling
from synthrl_jax.rollouts.root import Root, Settings, Task

LEAST_PREFIX, LEAST_SUFFIX, LEAST_BATCH = 16, 32, 16
# Where suffixes are short their bytes do not matter, and where a group has few spill rings chance makes rows wait for them.
LEAST_SPILT, LEAST_SPILLS = 64, 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of the device state; hashable, a static argument of the compiled programs."""

    groups: int
    rows: int  # per group
    slots: int  # prefixes that a group holds at once
    prefix: int  # tokens per prefix slot
    suffix: int  # tokens that a continuation may have
    tasks: int  # per prefix slot
    chunk: int  # decode steps per dispatch
    jobs: int  # prefilled per dispatch
    spills: int = 0  # rings per group for what no longer fits a row's own; 0: a row's own ring holds all of the suffix
    mesh: Mesh | None = None  # groups over its data axes, heads over tensor; None: one device

    @property
    def data(self) -> int:
        """Shards of the groups."""
        return 1 if self.mesh is None else self.mesh.shape["data"] * self.mesh.shape["fsdp"]

    @property
    def batch(self) -> int:
        """Rows that decode at once."""
        return self.groups * self.rows

    @property
    def ring(self) -> int:
        """Slots of each row's ring, and of each spill ring."""
        return self.suffix // 2 if self.spills else self.suffix

    @property
    def held(self) -> int:
        """Tokens whose keys and values a group holds."""
        return self.slots * self.prefix + (self.rows + self.spills) * self.ring


@dataclasses.dataclass(frozen=True)
class Job:
    """One root and some of its tasks, as arrays over tasks: the first `length` tokens are prefilled."""

    root: Root
    position_Q: np.ndarray
    index_Q: np.ndarray
    budget_Q: np.ndarray
    warp_Qx3: np.ndarray  # temperature, top-k, top-p
    text_Q: np.ndarray  # state of the stop strings' automaton

    def __len__(self) -> int:
        return len(self.position_Q)

    @property
    def length(self) -> int:
        """Tokens whose keys and values are needed: a row feeds the last token of its prefix itself."""
        return int(self.position_Q.max()) - 1

    def split(self, parts: int) -> list["Job"]:
        """The job in at most `parts` jobs of nearly equal numbers of tasks."""
        cuts = np.array_split(np.arange(len(self)), min(parts, len(self)))
        return [Job(self.root, *(column[cut] for column in self.columns())) for cut in cuts]

    def columns(self) -> tuple[np.ndarray, ...]:
        """position, index, budget, warp, text, each over tasks."""
        return self.position_Q, self.index_Q, self.budget_Q, self.warp_Qx3, self.text_Q


def jobs_of(wanted: Sequence[Task]) -> list[Job]:
    """One job per root, the longest prefix first, its tasks in order of fork and index: long continuations start early."""
    by_root: dict[str, list[Task]] = {}
    for task in wanted:
        by_root.setdefault(task.root.id, []).append(task)
    jobs = []
    for tasks in by_root.values():
        tasks = sorted(tasks, key=lambda task: task.position)
        n = [task.n for task in tasks]

        def column(field, dtype, tasks=tasks, n=n):
            return np.repeat(np.array([getattr(task, field) for task in tasks], dtype), n, axis=0)

        index_Q = np.concatenate([np.arange(task.first, task.first + task.n, dtype=np.int32) for task in tasks])
        budget_Q = np.concatenate([task.budgets() for task in tasks])
        columns = column("position", np.int32), index_Q, budget_Q, column("warp", np.float32)
        jobs.append(Job(tasks[0].root, *columns, column("stop_state", np.int32)))
    return sorted(jobs, key=lambda job: -job.length)


@dataclasses.dataclass(frozen=True)
class Needs:
    """What decides a shape. A workload of many batches plans by the most of each (`|`), and compiles once."""

    roots: int
    tasks: int
    tasks_per_root: int
    prefix: int  # tokens of the longest root
    median: int  # tokens of the middle one
    shortest: int  # tokens of the shortest root
    longest: int  # tokens that a continuation may have
    filters: bool = False  # whether any fork has top-k or top-p

    def __or__(self, other: "Needs") -> "Needs":
        most = Needs(*map(max, dataclasses.astuple(self), dataclasses.astuple(other)))
        return dataclasses.replace(most, shortest=min(self.shortest, other.shortest))

    def loads(self, prefix: int) -> list[int]:
        """The lengths to which loads of such roots are padded, of slots of so many tokens: all of it, or half."""
        half = prefix // 2
        return [half] * (self.shortest <= half) + [prefix] * (self.prefix > half)


def needs_of(jobs: Sequence[Job], longest: int, filters: bool = False) -> Needs:
    """The needs of one batch's jobs, the longest first."""
    sizes = [len(job) for job in jobs]
    lengths = jobs[0].length, jobs[len(jobs) // 2].length, jobs[-1].length
    return Needs(len(jobs), sum(sizes), max(sizes), *lengths, longest, filters)


def plan(needs: Needs, settings: Settings, mesh: Mesh | None = None) -> list[Shape]:
    """The device's shapes, each to follow the one before: the whole batch, then less of it as work runs out.

    The groups divide over the mesh's data axes. Prefix slots are halved once the long half of the roots is done, rows (or
    groups of one row) when all tasks are drawn. A batch visits all of them, so that the next one compiles nothing.
    """
    prefix, suffix = bucket(needs.prefix, LEAST_PREFIX, 2), bucket(needs.longest, LEAST_SUFFIX, 4)
    data = 1 if mesh is None else mesh.shape["data"] * mesh.shape["fsdp"]
    batch = max(data, min(power_of_two(needs.tasks), settings.rows // data * data))
    # a quarter of a root's tasks at a time: rows of one root end together, and the tail of one is the start of the next
    rows = power_of_two(max(1.0, needs.tasks / needs.roots / 4))
    rows = max(rows, power_of_two(batch / needs.roots))
    rows = max(1, min(rows, batch // data))
    rows = share_prefixes(rows, min(batch // data, power_of_two(needs.tasks / needs.roots)), prefix, suffix)
    # few continuations outgrow half of the longest one's length at the same time; those that find no spill ring free wait
    spills = spills_of(rows, suffix)
    groups = max(data, batch // rows // data * data)
    parts = max(1, -(-groups // needs.roots))
    # a second prefix lets a root start while the last rows of the one before it run out; rows that are alone in their
    # group would read twice the prefix for it, so there the host is called as soon as enough of them have ended
    slots = 1 if rows == 1 or needs.roots * parts <= groups else 2
    shape = Shape(
        groups=groups,
        rows=rows,
        slots=slots,
        prefix=prefix,
        suffix=suffix,
        spills=spills,
        tasks=bucket(-(-needs.tasks_per_root // parts), 8, 1),
        chunk=32,
        jobs=max(1, min(8, groups * slots // 8)),
        mesh=mesh,
    )
    shapes = [shape]
    if needs.roots > groups * slots and 2 * needs.median <= shape.prefix:
        shapes.append(dataclasses.replace(shape, prefix=shape.prefix // 2))
    # below an eighth of the batch, or sixteen rows, a step is hardly cheaper
    while shapes[-1].batch // 2 >= max(LEAST_BATCH, shape.batch // 8):
        last = shapes[-1]
        if last.rows > 1:
            shapes.append(dataclasses.replace(last, rows=last.rows // 2))
        elif last.groups % (2 * data) == 0:
            shapes.append(dataclasses.replace(last, groups=last.groups // 2))
        else:
            break
    return shapes


def share_prefixes(rows: int, most: int, prefix: int, suffix: int) -> int:
    """Rows a group, doubled up to `most` until two prefixes a group leave keys and values a third of what a prefix for each
    row would need; as they were where no sharing can reach it."""

    def third(rows):
        spills = spills_of(rows, suffix)
        rings = (rows + spills) / 2 if spills else rows
        return 3 * (2 * prefix + rings * suffix) <= rows * (prefix + suffix)

    enough = rows
    while enough < most and not third(enough):
        enough *= 2
    return enough if third(enough) else rows


def spills_of(rows: int, suffix: int) -> int:
    """Spill rings of a group: with lengths spread evenly up to the longest, a quarter of the rows need one at a time."""
    return rows // 4 if suffix >= LEAST_SPILT and rows // 4 >= LEAST_SPILLS else 0


def cut(jobs: Sequence[Job], shape: Shape) -> list[Job]:
    """The jobs in loading order, cut finer where there are fewer than groups: then each part's group prefills the root for
    itself, since its prefix is read there at each step. So a root has one prefill where there are as many roots as groups,
    and at most one a group."""
    if len(jobs) >= shape.groups:
        return list(jobs)
    parts = -(-shape.groups // len(jobs))
    return [part for job in jobs for part in job.split(parts)]


def power_of_two(value: float) -> int:
    """The nearest power of two (in ratio) that is at least 1."""
    return 1 << max(0, round(math.log2(value)))


def bucket(length: int, smallest: int, parts: int) -> int:
    """The next of smallest x 2^i x (1 + j / parts): few shapes, at most one part in `parts` + 1 of a bucket is empty."""
    size = smallest
    while 2 * size < length:
        size *= 2
    step = max(1, size // parts)
    return max(size, -(-length // step) * step)


@dataclasses.dataclass(frozen=True)
class Table:
    """The tasks of F jobs as the device takes them, padded to the shape's Q."""

    task_FxQx5: np.ndarray  # id, prefix length, budget, last token of the prefix, state of the stop strings' automaton
    warp_FxQx3: np.ndarray
    word_FxQx4: np.ndarray  # root's two words, fork, index: what a key is made of
    count_F: np.ndarray


def table(jobs: Sequence[Job], first_ids: Sequence[int], F: int, Q: int) -> Table:
    """Task tables of up to F jobs; the tasks of a job have the ids first_id, first_id + 1, ..."""
    out = Table(
        np.zeros((F, Q, 5), np.int32),
        np.ones((F, Q, 3), np.float32),
        np.zeros((F, Q, 4), np.uint32),
        np.zeros(F, np.int32),
    )
    for f, (job, first) in enumerate(zip(jobs, first_ids)):
        n = len(job)
        tokens = np.asarray(job.root.tokens, np.int32)
        ids = np.arange(first, first + n)
        task = ids, job.position_Q, job.budget_Q, tokens[job.position_Q - 1], job.text_Q
        out.task_FxQx5[f, :n] = np.stack(task, axis=1)
        out.warp_FxQx3[f, :n] = job.warp_Qx3
        out.word_FxQx4[f, :n, :2] = sampling.root_words(job.root.id)
        out.word_FxQx4[f, :n, 2], out.word_FxQx4[f, :n, 3] = job.position_Q, job.index_Q
        out.count_F[f] = n
    return out
