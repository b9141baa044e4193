"""Run one config: all its stages, each a cell that is made once, and the report at the end.

    python -m experiments.run --config=configs/quickstart.py --workdir=runs/quickstart [--workers=2] [--config.field=value ...]

A run that was stopped or killed goes on where it was when the same command is given again. A changed setting makes new cells for
what depends on it; everything else is reused.
"""

import argparse
import concurrent.futures.process
import contextlib
import hashlib
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from pathlib import Path

from ml_collections import ConfigDict

from experiments import cells as cell_store
from experiments.cells import Cell, CellStore, Lock, Node
from experiments.graph import plan
from experiments.settings import UsageError, parse_flags
from experiments.stages import STAGES, find_stage


def make_cell(workdir: str, node: Node, inputs: dict[str, Cell]) -> Cell:
    """Make one cell, in this process."""
    function, version = find_stage(node.stage)
    return cell_store.make(CellStore(workdir), node, version, inputs, function)


def run(nodes: list[Node], workdir: str, workers: int = 1) -> dict[str, Cell]:
    """All cells of the nodes, by label; those that exist are reused. `workers` processes with one core each make them."""
    done: dict[str, Cell] = {}
    executor = _executor(workers, workdir) if workers > 1 else None
    waiting, running, began = list(nodes), {}, time.monotonic()
    try:
        while waiting or running:
            for node in [n for n in waiting if all(label in done for label in n.inputs.values())]:
                waiting.remove(node)
                inputs = {role: done[label] for role, label in node.inputs.items()}
                found = CellStore(workdir).find(node, cell_store.key_of(node, STAGES[node.stage][1], inputs)[0])
                if found is not None:
                    done[node.label] = found
                    continue
                if executor is None:
                    done[node.label] = _told(make_cell(workdir, node, inputs), done, nodes, began)
                else:
                    running[executor.submit(make_cell, workdir, node, inputs)] = node
            if running:
                finished, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
                for future in finished:
                    node = running.pop(future)
                    done[node.label] = _told(future.result(), done, nodes, began)
    finally:
        if executor is not None:
            for process in list(getattr(executor, "_processes", None) or {}):
                _kill(process)
            executor.shutdown(wait=False, cancel_futures=True)
    return done


def _told(cell: Cell, done: dict, nodes: list, began: float) -> Cell:
    spent = int(time.monotonic() - began)
    print(f"[{spent // 60:3}:{spent % 60:02}] {len(done) + 1}/{len(nodes)} cells: {cell.label}", flush=True)
    return cell


def _executor(workers: int, workdir: str) -> concurrent.futures.Executor:
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    context = multiprocessing.get_context("spawn")
    counter = context.Value("i", 0)
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(workdir).resolve() / "compiled"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
    # Without huge pages a third of a small training step goes into fresh pages for XLA's buffers; read when a process starts.
    os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    return concurrent.futures.ProcessPoolExecutor(workers, context, _prepare, (cores, counter, os.getpid()))


def _prepare(cores: list[int], counter, parent: int) -> None:
    """One core for a worker (two single-threaded processes do twice the work of one with two threads); it ends with the run."""
    with counter.get_lock():
        place, counter.value = counter.value, counter.value + 1
    if cores:
        os.sched_setaffinity(0, {cores[place % len(cores)]})
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle

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
    parser.add_argument("--workdir", required=True, help="where cells and the report go; give the same one to go on")
    parser.add_argument("--workers", type=int, default=1, help="processes that make cells side by side, one core each")
    parser.add_argument("--json", help="write the result table's rows to this file")
    try:
        args, config = parse_flags(parser, argv)
        nodes = plan(config)
        workdir = Path(args.workdir).resolve()
        lock = Lock(workdir)
    except (UsageError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        done = run(nodes, str(workdir), args.workers)
    except KeyboardInterrupt:
        print("\nstopped; give the same command again to go on from here", file=sys.stderr)
        return 130
    except (ValueError, FileNotFoundError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except concurrent.futures.process.BrokenProcessPool:
        print(
            "error: a worker was killed (out of memory?); give the same command again to go on from here",
            file=sys.stderr,
        )
        return 1
    write_summary(config, args.config, done, workdir)
    from experiments import report

    print(report.finish(workdir, args.json))
    del lock
    return 0


if __name__ == "__main__":
    sys.exit(main())
