"""Run one config: all its stages, each a cell that is made once, and the report at the end.

    python -m experiments.run --config=configs/quickstart.py --workdir=runs/quickstart [--workers=2] [--config.field=value ...]

A run that was stopped or killed goes on where it was when the same command is given again. A changed setting makes new cells for
what depends on it; everything else is reused. Exit codes: 0 done, 2 wrong use or data (a restart would not help), 75 stopped by
SIGTERM with the state saved (start again), 130 Ctrl-C, others a failure.
"""

import argparse
import concurrent.futures.process
import contextlib
import hashlib
import json
import math
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from ml_collections import ConfigDict

from experiments import cells as cell_store
from experiments import machine
from experiments.cells import Cell, CellStore, Lock, Node
from experiments.countdown import Countdown
from experiments.fields import check
from experiments.graph import plan
from experiments.settings import UsageError, parse_flags
from experiments.stages import STAGES, find_stage
from synthrl_jax import pod, remote
from synthrl_jax.learning.preemption import EXIT_CODE, Preempted

SAVING_SECONDS = 60  # after SIGTERM, for workers that are training


def make_cell(workdir: str, node: Node, inputs: dict[str, Cell]) -> Cell:
    """Make one cell, in this process; SIGTERM ends it with Preempted (training, which watches by itself, saves first)."""
    function, version = find_stage(node.stage)
    with _sigterm(_leave) if pod.count() == 1 else contextlib.nullcontext():
        return cell_store.make(CellStore(workdir), node, version, inputs, function)


def _leave(*_):
    raise Preempted("stopped by SIGTERM")


@contextlib.contextmanager
def _sigterm(handler):
    """SIGTERM goes to the handler; left alone outside of the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run(nodes: list[Node], workdir: str, workers: int = 1, told=lambda node, cell: None) -> dict[str, Cell]:
    """All cells of the nodes, by label; those that exist are reused. `workers` processes with one core each make them; `told`
    hears of each that is there. Preempted after SIGTERM, once what was training has saved."""
    if workers > 1:
        with _sigterm(_to_workers):
            return _run(nodes, workdir, workers, told)
    return _run(nodes, workdir, workers, told)


def _to_workers(*_):
    for child in multiprocessing.active_children():
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGTERM)


def _run(nodes: list[Node], workdir: str, workers: int, told) -> dict[str, Cell]:
    done: dict[str, Cell] = {}
    executor = _executor(workers, workdir) if workers > 1 else None
    waiting, running, began, count = list(nodes), {}, time.monotonic(), Countdown(nodes, workers)
    try:
        while waiting or running:
            for node, cell in _made_before(waiting, done, workdir) if pod.count() == 1 else ():
                done[node.label] = _told(node, cell, count, began)
                told(node, cell)
            for node in [n for n in waiting if all(label in done for label in n.inputs.values())]:
                waiting.remove(node)
                inputs = _inputs(node, done)
                if pod.count() > 1:
                    cell = make_cell(workdir, node, inputs)
                    done[node.label] = _told(node, cell, count, began)
                    if pod.first():
                        told(node, cell)
                    continue
                if executor is None:
                    done[node.label] = _told(node, make_cell(workdir, node, inputs), count, began)
                    told(node, done[node.label])
                else:
                    running[executor.submit(make_cell, workdir, node, inputs)] = node
            if running:
                finished, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
                for future in finished:
                    node = running.pop(future)
                    try:
                        done[node.label] = _told(node, future.result(), count, began)
                    except Preempted:
                        concurrent.futures.wait(running, timeout=SAVING_SECONDS)  # the others save too
                        raise
                    told(node, done[node.label])
    finally:
        if executor is not None and (waiting or running):
            for process in list(getattr(executor, "_processes", None) or {}):
                _kill(process)
            executor.shutdown(wait=False, cancel_futures=True)
        elif executor is not None:
            executor.shutdown()
    return done


def _inputs(node: Node, done: dict[str, Cell]) -> dict[str, Cell]:
    return {role: done[label] for role, label in node.inputs.items()}


def _made_before(waiting: list[Node], done: dict[str, Cell], workdir: str) -> Iterator[tuple[Node, Cell]]:
    """Take those nodes off `waiting` whose cells are there; all before any work, so that the time left is of what is to do.

    A plan has inputs before what uses them, and the caller puts each cell into `done` before it asks for the next one.
    """
    store = CellStore(workdir)
    for node in list(waiting):
        if all(label in done for label in node.inputs.values()):
            found = store.find(node, cell_store.key_of(node, STAGES[node.stage][1], _inputs(node, done))[0])
            if found is not None:
                waiting.remove(node)
                yield node, found


def _told(node: Node, cell: Cell, count: Countdown, began: float) -> Cell:
    """Count a cell, and say so if it was made now: cells done and to do, and about how long those take."""
    count.done(node, cell)
    if cell.fresh and pod.first():
        spent = int(time.monotonic() - began)
        print(f"[{spent // 60:3}:{spent % 60:02}] {count.line()}: {cell.label}{count.time_left()}", flush=True)
    return cell


def _executor(workers: int, workdir: str) -> concurrent.futures.Executor:
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    context = multiprocessing.get_context("spawn")
    counter = context.Value("i", 0)
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(workdir).resolve() / "compiled"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
    os.environ.setdefault(*machine.HUGE_PAGES)
    return concurrent.futures.ProcessPoolExecutor(workers, context, _prepare, (cores, counter, os.getpid()))


def _prepare(cores: list[int], counter, parent: int) -> None:
    """One core for a worker (two single-threaded processes do twice the work of one with two threads); it ends with the run."""
    with counter.get_lock():
        place, counter.value = counter.value, counter.value + 1
    if cores:
        os.sched_setaffinity(0, {cores[place % len(cores)]})
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # but for while a cell is made

    def watch():
        while os.getppid() == parent:
            time.sleep(0.1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 9)


def config_hash(config: ConfigDict) -> str:
    return hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True).encode()).hexdigest()[:12]


def files_hash() -> str:
    """A digest of the code that this process runs, whether or not git is there to name it."""
    root, digest = Path(__file__).resolve().parents[1], hashlib.sha256()
    for file in sorted(p for part in ("synthrl_jax", "experiments") for p in (root / part).rglob("*.py")):
        digest.update(f"{file.relative_to(root).as_posix()}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def write_summary(config: ConfigDict, path: str, done: dict[str, Cell], workdir: Path) -> None:
    """run.json: what was run, and where its cells lie; the report reads it."""
    summary = {"name": config.name, "config": config.to_dict(), "config_hash": config_hash(config)}
    summary["docstring"] = _docstring(path)
    summary["cells"] = {label: str(cell.path.relative_to(workdir)) for label, cell in done.items()}
    cell_store.write_atomic(workdir / "run.json", json.dumps(summary, indent=1) + "\n")


def _docstring(path: str) -> str:
    import ast

    return ast.get_docstring(ast.parse(Path(path).read_text())) or ""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--workdir", help="where cells and the report go, runs/NAME if not given; give the same one to go on"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes that make cells side by side, one core each")
    parser.add_argument("--json", help="write the result table's rows to this file")
    parser.add_argument(
        "--distributed", default="off", help="off, auto (a TPU pod's metadata) or HOST:PORT,PROCESSES,INDEX"
    )
    parser.add_argument("--barrier-minutes", type=float, default=30.0, help="how long processes wait for each other")
    try:
        args, config = parse_flags(parser, argv)
        args.workdir = args.workdir or f"runs/{config.name}"
        if args.workers < 1:
            raise UsageError(f"--workers={args.workers}: at least 1")
        nodes, told, where = plan(config), lambda node, cell: None, ""
        if config.results:
            from experiments.results_file import ResultsFile

            results = ResultsFile(config.results, nodes)
            where = results.progress(nodes)
            nodes, told = results.remaining(nodes), results.add
        if args.distributed != "off":
            _join(args, config)
        if any(size != 1 for size in config.mesh.values()):
            _check_mesh(config)
        workdir = remote.path(args.workdir)
        lock = Lock(workdir)
    except (UsageError, OSError, pod.PodError) as error:
        print(f"error: {error}", file=sys.stderr)
        missing = isinstance(error, pod.PodError) and not isinstance(error, pod.Disagreement)
        return _end(1 if missing else 2, error)
    if where and pod.first():
        print(where, flush=True)
    try:
        done = run(nodes, str(workdir), args.workers, told)
    except KeyboardInterrupt:
        print("\nstopped; give the same command again to go on from here", file=sys.stderr)
        return _end(130, KeyboardInterrupt("Ctrl-C"))
    except Preempted as stopped:
        print(f"{stopped}; give the same command again to go on from here", file=sys.stderr)
        return EXIT_CODE
    except (ValueError, FileNotFoundError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return _end(2, error)
    except concurrent.futures.process.BrokenProcessPool:
        print(
            "error: a worker was killed (out of memory?); give the same command again to go on from here",
            file=sys.stderr,
        )
        return 1
    except Exception as error:
        if pod.count() == 1:
            raise
        traceback.print_exc()
        return _end(1, error)
    try:
        if pod.first():
            write_summary(config, args.config, done, workdir)
            print(_report(workdir, args.json))
        pod.finish()
    except Exception as error:
        if pod.count() == 1:
            raise
        traceback.print_exc()
        return _end(1, error)
    del lock
    return 0


def _report(workdir, json_path: str | None) -> str:
    """Make the report; of a work directory in a bucket from a copy of what it reads, and put it there."""
    from experiments import report

    if not remote.is_remote(workdir):
        return report.finish(workdir, json_path)
    with tempfile.TemporaryDirectory() as directory:
        remote.copy(workdir, Path(directory), leave=("policy", "completions", "checkpoints", "tensorboard", "logs"))
        text = report.finish(directory, json_path)
        remote.copy(Path(directory) / "report", workdir / "report")
        return text.replace(directory, str(workdir))


def _check_mesh(config: ConfigDict) -> None:
    """UsageError for a mesh that is not of the machine's or pod's devices, or that the batches do not divide over."""
    from synthrl_jax.policy.sharding import make_mesh

    try:
        mesh = make_mesh(**config.mesh)
    except ValueError as error:
        raise UsageError(f"{error}: set config.mesh") from None
    check(config.to_dict() | {"mesh": dict(mesh.shape)})  # -1 is settled now


def _join(args, config: ConfigDict) -> None:
    """Become one of the processes of a pod; the first one says what runs. UsageError for flags that do not go together."""
    if args.workers > 1:
        raise UsageError("--workers is for one machine; on a pod every process works on every cell")
    import jax

    try:
        pod.start(args.distributed, 60 * args.barrier_minutes)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if pod.count() > 1 and (sizes := math.prod(config.mesh.values())) > 0 and sizes != jax.device_count():
        raise UsageError(
            f"mesh {dict(config.mesh)} is of {sizes} devices and the pod has {jax.device_count()}: set config.mesh"
        )
    sizes = list(config.mesh.values())
    known = math.prod(size for size in sizes if size != -1)
    mesh = "x".join(str(jax.device_count() // known if size == -1 else size) for size in sizes)
    facts = {"config": config_hash(config), "files": files_hash(), "commit": cell_store._commit()}
    found = pod.check_alike(pod.facts(mesh=mesh, workdir=args.workdir, **facts))
    if pod.first():
        print(pod.banner(found), flush=True)


def _end(code: int, error: BaseException) -> int:
    """The exit code; a pod's other processes end with it too, and with the reason."""
    pod.fail(f"{type(error).__name__}: {error}", code)
    return code


if __name__ == "__main__":
    sys.exit(main())
