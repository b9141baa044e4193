"""Grade many rows in processes that can be killed: a limit on time and memory per item, and nothing left behind."""

import contextlib
import json
import os
import selectors
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from synthrl_jax.grading import verdict as verdicts
from synthrl_jax.grading.extract import extractor
from synthrl_jax.grading.verdict import Verdict
from synthrl_jax.grading.worker import HEADER

GRADER = "synthrl_jax.grading.verdict:compare"
START_SECONDS = 60.0  # for a worker to import what it needs
_ROOT = str(Path(__file__).resolve().parents[2])


class _Worker:
    """One process and the item that it has in hand; all its pipes are read and written without blocking."""

    def __init__(self, grader: str, seconds: float, memory_mb: int):
        paths = dict.fromkeys([_ROOT, *(path or os.getcwd() for path in sys.path)])
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-m", "synthrl_jax.grading.worker", grader, str(seconds), str(memory_mb)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env=env,
            start_new_session=True,  # a Ctrl-C at the terminal does not reach it
        )
        for pipe in (self.process.stdin, self.process.stdout):
            os.set_blocking(pipe.fileno(), False)
        self.seconds = seconds
        self.ready = False
        self.item: object = None
        self.deadline = time.monotonic() + START_SECONDS
        self.outbox = b""
        self.inbox = bytearray()

    def give(self, item: object, message: object) -> None:
        self.item = item
        data = json.dumps(message).encode()
        self.outbox = HEADER.pack(len(data)) + data
        self.deadline = time.monotonic() + self.seconds
        self.write()

    def write(self) -> None:
        """Push what the pipe takes; a broken pipe shows on the reading side."""
        with contextlib.suppress(BlockingIOError):
            try:
                self.outbox = self.outbox[os.write(self.process.stdin.fileno(), self.outbox) :]
            except (BrokenPipeError, OSError) as error:
                if isinstance(error, BlockingIOError):
                    raise
                self.outbox = b""

    def read(self) -> tuple[list, bool]:
        """(messages that came, whether the stream ended)."""
        ended = False
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self.process.stdout.fileno(), 1 << 16):
                self.inbox += chunk
            ended = True
        messages = []
        while len(self.inbox) >= HEADER.size:
            (size,) = HEADER.unpack_from(self.inbox)
            if len(self.inbox) < HEADER.size + size:
                break
            messages.append(json.loads(self.inbox[HEADER.size : HEADER.size + size]))
            del self.inbox[: HEADER.size + size]
        return messages, ended

    def end(self) -> None:
        """Kill, reap, close: nothing of it is left."""
        with contextlib.suppress(OSError):
            self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()
        self.process.wait()


class Pool:
    """Workers for the pairs of several calls; a context manager. Not to be shared between threads.

    workers: processes, started when first needed. seconds: wall-clock limit of one item. memory_mb: address space of one
    worker. grader: "module:function" of (gold, prediction) -> (outcome, reason).
    """

    def __init__(self, workers: int | None = None, seconds: float = 10.0, memory_mb: int = 1024, grader: str = GRADER):
        self.size = workers or max(1, min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2))
        self.settings = (grader, seconds, memory_mb)
        self.workers: list[_Worker] = []
        self.again: set[int] = set()  # items that had one worker die under them
        self.false_starts = 0

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """End all workers."""
        while self.workers:
            self.workers.pop().end()

    def decide(self, pairs: list[tuple[str, str]], tick=lambda done: None) -> list[tuple[str, str]]:
        """(outcome, reason) of each (gold, prediction), in order."""
        results: list = [None] * len(pairs)
        waiting = deque(range(len(pairs)))
        self.again = set()
        done = 0
        try:
            with selectors.DefaultSelector() as selector:
                for worker in self.workers:
                    selector.register(worker.process.stdout, selectors.EVENT_READ, worker)
                while done < len(pairs):
                    done += self._fill(waiting, pairs, results, selector)
                    done += self._step(waiting, results, selector)
                    tick(done)
        except BaseException:
            self.close()
            raise
        return results

    def _fill(self, waiting: deque, pairs: list, results: list, selector) -> int:
        """Give every idle worker an item, and start as many workers as there is work for."""
        failed = 0
        if self.false_starts > 3 * self.size:  # they die before they are ready: this is no item's fault
            while waiting:
                results[waiting.popleft()] = ("grader_error", "the workers do not start")
                failed += 1
        for worker in list(self.workers):
            if worker.item is None and worker.process.poll() is not None:  # it died between two items
                self._lost(worker, "", results, selector)
        while waiting and len(self.workers) < min(self.size, self._busy() + len(waiting)):
            worker = _Worker(*self.settings)
            self.workers.append(worker)
            selector.register(worker.process.stdout, selectors.EVENT_READ, worker)
        for worker in self.workers:
            if worker.ready and worker.item is None and waiting:
                item = waiting.popleft()
                worker.give(item, pairs[item])
        return failed

    def _busy(self) -> int:
        return sum(worker.item is not None for worker in self.workers)

    def _step(self, waiting: deque, results: list, selector) -> int:
        """Wait for one event or deadline; returns the number of items decided."""
        now = time.monotonic()
        watched = [worker for worker in self.workers if worker.item is not None or not worker.ready]
        if not watched:
            return 0
        pending = any(worker.outbox for worker in watched)
        wait = max(0.0, min(worker.deadline for worker in watched) - now)
        done = 0
        for key, _ in selector.select(min(wait, 0.02) if pending else min(wait, 1.0)):
            done += self._heard(key.data, waiting, results, selector)
        now = time.monotonic()
        for worker in list(self.workers):
            if worker.outbox:
                worker.write()
            if worker.deadline < now and (worker.item is not None or not worker.ready):
                seconds = self.settings[1]
                done += self._lost(worker, f"no verdict in {seconds:g} s", results, selector)
        return done

    def _heard(self, worker: _Worker, waiting: deque, results: list, selector) -> int:
        messages, ended = worker.read()
        done = 0
        for message in messages:
            if message == "ready":
                worker.ready = True
                self.false_starts = 0
            elif worker.item is not None:
                outcome, reason, retires = message
                results[worker.item] = (outcome, reason)
                worker.item = None
                done += 1
                ended = ended or retires
        if ended:
            if worker.item is not None and worker.item not in self.again:  # the death may be another's doing: once more
                self.again.add(worker.item)
                waiting.appendleft(worker.item)
                worker.item = None
            done += self._lost(worker, "the worker died", results, selector)
        return done

    def _lost(self, worker: _Worker, reason: str, results: list, selector) -> int:
        selector.unregister(worker.process.stdout)
        self.workers.remove(worker)
        worker.end()
        if not worker.ready:
            self.false_starts += 1
        if worker.item is None:
            return 0
        results[worker.item] = ("grader_error", reason)
        return 1


class _Progress:
    """One line on standard error for work that takes longer than a few seconds."""

    def __init__(self, total: int, shown: bool | None):
        self.total, self.start = total, time.monotonic()
        self.terminal = sys.stderr is not None and sys.stderr.isatty()
        self.every = 0.5 if self.terminal else 30.0
        self.next = float("inf") if shown is False else self.start + (0.0 if shown else 5.0)
        self.written = False

    def __call__(self, done: int) -> None:
        now = time.monotonic()
        if now < self.next:
            return
        self.next = now + self.every
        rate = done / max(now - self.start, 1e-9)
        line = f"grading: {done:,} of {self.total:,} pairs, {rate:,.0f}/s"
        print(f"\r{line}" if self.terminal else line, end="" if self.terminal else "\n", file=sys.stderr, flush=True)
        self.written = True

    def close(self) -> None:
        if self.written and self.terminal:
            print(file=sys.stderr)


def grade_many(
    rows: Iterable[tuple[str, str, str]],
    *,
    workers: int | None = None,
    seconds: float = 10.0,
    memory_mb: int = 1024,
    progress: bool | None = None,
    pool: Pool | None = None,
    grader: str = GRADER,
) -> list[Verdict]:
    """Verdicts of (text, gold, kind) rows, in order.

    Answers are extracted here, and identical strings and plain numbers decided here; every other pair of answers is
    graded once, in a worker process. A worker that exceeds `seconds` (wall clock) or `memory_mb`, or dies, is killed and
    replaced and its item becomes `grader_error`; where it died unasked, a second one tries the item first. progress: None
    shows a line when the work takes more than 5 s. With `pool` its workers are used and kept. An unknown kind is a
    ValueError before anything is graded.
    """
    rows = list(rows)
    for kind in {row[2] for row in rows}:
        extractor(kind)
    found: list[Verdict | None] = []
    pairs: dict[tuple[str, str], int] = {}
    places: list[tuple[int, int, object]] = []
    own = grader != GRADER or (pool is not None and pool.settings[0] != GRADER)
    for at, (text, gold, kind) in enumerate(rows):
        ready, answer, pair = _prepared(text, gold, kind, own)
        found.append(ready)
        if ready is None:
            places.append((at, pairs.setdefault(pair, len(pairs)), answer))
    if pairs:
        line = _Progress(len(pairs), progress)
        crew = pool or Pool(min(workers, len(pairs)) if workers else None, seconds, memory_mb, grader)
        try:
            decided = crew.decide(list(pairs), line)
        finally:
            line.close()
            if pool is None:
                crew.close()
        for at, number, answer in places:
            outcome, reason = decided[number]
            found[at] = Verdict(outcome, answer, reason)
    return found


def _prepared(text, gold, kind: str, own: bool) -> tuple[Verdict | None, object, tuple[str, str]]:
    """(the verdict if no worker is needed, the answer as extracted, (gold, prediction) for a worker)."""
    text, gold = "" if text is None else str(text), "" if gold is None else str(gold)
    try:
        ready, answer, gold, prediction = verdicts.quick(text, gold, kind)
    except Exception as error:
        return Verdict("grader_error", None, f"{type(error).__name__}: {error}"[:200]), None, ("", "")
    if own and ready is not None and ready.outcome in ("correct", "wrong"):
        ready = None
    return ready, answer, (gold, prediction)
