"""Several processes as one run: start, agreement, shares of host work, barriers that say who is missing, and one end for all.

Without `start` a run is one process, and everything here does nothing. Exchange goes over jax's coordination service, which lives
in process 0; only `exchange` uses the devices' network.
"""

import dataclasses
import faulthandler
import hashlib
import importlib.metadata
import json
import os
import pickle
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from synthrl_jax import hello

BARRIER_SECONDS = 1800.0
BEAT_SECONDS, LOST_SECONDS = 2.0, 90.0
FAILED = 1  # the exit code of a run that ended for a reason that may pass; higher ones say more


class PodError(RuntimeError):
    """One is missing at a barrier, or processes disagree; the message names them."""


class Disagreement(PodError):
    """Processes were started with different files or flags: starting them again changes nothing."""


@dataclasses.dataclass
class _Pod:
    index: int = 0
    count: int = 1
    client: Any = None
    barriers: int = 0
    seconds: float = BARRIER_SECONDS
    ending: bool = False
    reads_signals: bool = False


_POD = _Pod()


def index() -> int:
    """This process's number."""
    return _POD.index


def count() -> int:
    """How many processes run."""
    return _POD.count


def first() -> bool:
    """Whether this process writes and speaks for all."""
    return _POD.index == 0


def parse(text: str) -> tuple[str, int, int] | None:
    """(coordinator, processes, index) of HOST:PORT,N,I; None for `auto`. ValueError for another form."""
    if text == "auto":
        return None
    parts = text.split(",")
    if len(parts) != 3 or ":" not in parts[0] or not parts[1].isdigit() or not parts[2].isdigit():
        raise ValueError(f"--distributed={text}: off, auto (on TPU, from its metadata) or HOST:PORT,PROCESSES,INDEX")
    if int(parts[2]) >= int(parts[1]):
        raise ValueError(f"--distributed={text}: the index is from 0 to {int(parts[1]) - 1}")
    return parts[0], int(parts[1]), int(parts[2])


def start(text: str, seconds: float = BARRIER_SECONDS) -> None:
    """Join the run: `auto` reads a TPU's metadata, HOST:PORT,N,I is said by hand. Stacks are dumped on SIGTERM from now on."""
    import jax
    from jax._src import distributed

    given, limit = parse(text), max(1, int(seconds))
    try:
        if given is None:
            jax.distributed.initialize(initialization_timeout=limit)
        else:
            coordinator, processes, place = given
            hello.meet(coordinator, processes, place, limit)  # jax would end the process and name nobody
            jax.distributed.initialize(coordinator, processes, place, initialization_timeout=limit)
    except OSError as error:  # who is missing, or why process 0 cannot listen
        raise PodError(str(error)) from None
    except (ValueError, RuntimeError) as error:
        said = str(error).splitlines()[0]
        if given is None and "coordinator_address" in said:
            raise ValueError("--distributed=auto: this machine is not part of a TPU pod; use HOST:PORT,N,I") from None
        raise PodError(f"not all processes came within {limit} s: {said}") from error
    _POD.index, _POD.count = jax.process_index(), jax.process_count()
    _POD.client, _POD.seconds = distributed.global_state.client, seconds
    dump_stacks_on_sigterm()
    if _POD.count > 1:
        threading.Thread(target=_watch, name="pod watch", daemon=True).start()


def limit() -> float:
    """Seconds that a barrier waits unless it is told otherwise."""
    return _POD.seconds


def agree(name: str, value: Any = None) -> Any:
    """Process 0's value (JSON), on every process."""
    if _POD.count == 1:
        return value
    key = f"synthrl/agree/{_next()}/{name}"
    if first():
        _POD.client.key_value_set(key, json.dumps(value))
        return value
    return json.loads(_POD.client.blocking_key_value_get(key, int(1000 * _POD.seconds)))


def barrier(name: str, seconds: float | None = None) -> None:
    """Wait until every process is here. PodError after the time limit names those that are not; stacks are dumped everywhere."""
    if _POD.count == 1:
        return
    dump_stacks_on_sigterm()  # a training stage has put a handler of its own in between
    seconds = _POD.seconds if seconds is None else seconds
    place = f"synthrl/barrier/{_next()}/{name}"
    _POD.client.key_value_set(f"{place}/{_POD.index}", "here")
    # the service's own barrier ends all processes at its time limit, before they can say anything
    if _POD.client.key_value_increment(f"{place} count", 1) == _POD.count:
        _POD.client.key_value_set(f"{place} open", "open")
    try:
        _POD.client.blocking_key_value_get(f"{place} open", int(1000 * seconds))
    except Exception as error:
        here = {int(key.rsplit("/", 1)[1]) for key, _ in _directory(place)}
        missing = sorted(set(range(_POD.count)) - here)
        dump_stacks(f"stuck at {name}")
        _say_once("synthrl/dump/asked", name)
        if missing:
            who = ", ".join(map(str, missing))
            raise PodError(
                f"barrier {name!r}: after {seconds:.0f} s process {who} of {_POD.count} is not there"
            ) from None
        raise PodError(f"barrier {name!r}: {str(error).splitlines()[0]}") from None


def check_alike(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Every process's facts, in order; Disagreement names the first fact in which they differ, and who says what."""
    if _POD.count == 1:
        return [facts]
    place = f"synthrl/facts/{_next()}"
    _POD.client.key_value_set(f"{place}/{_POD.index:06d}", json.dumps(facts))
    barrier("banner")
    found = [json.loads(value) for _, value in sorted(_directory(place))]
    for name in facts:
        if name not in OWN and len({json.dumps(f.get(name), sort_keys=True) for f in found}) > 1:
            said = ", ".join(f"process {i} {f.get(name)!r}" for i, f in enumerate(found[:8]))
            raise Disagreement(f"processes disagree on {name}: {said}")
    # the devices' network is joined at its first use, with a time limit of half a minute: here all are together
    exchange(b"here")
    return found


OWN = ("host", "pid", "index")  # facts in which processes may differ


def facts(**more: Any) -> dict[str, Any]:
    """What a process knows of itself, and `more`."""
    import jax
    import jaxlib

    def version(package: str) -> str:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return "none"

    devices = jax.devices()
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "index": _POD.index,
        "processes": _POD.count,
        "devices": len(devices),
        "local_devices": jax.local_device_count(),
        "kind": devices[0].device_kind,
        "python": ".".join(map(str, sys.version_info[:3])),
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        **{package: version(package) for package in ("libtpu", "flax", "optax", "orbax-checkpoint")},
        **more,
    }


def banner(found: Sequence[dict[str, Any]]) -> str:
    """What process 0 says at the start."""
    one = found[0]
    hosts = ", ".join(f["host"] for f in found[:4]) + (", ..." if len(found) > 4 else "")
    rest = " ".join(
        f"{name}={value}" for name, value in one.items() if name not in (*OWN, "processes", "devices", "kind")
    )
    return f"{one['processes']} processes on {hosts}: {one['devices']} x {one['kind']}; {rest}"


def share(ids: Sequence[str]) -> list[int]:
    """Places of the ids that are this process's: by a stable hash, so that an id stays where it is whatever the others are."""
    return [i for i, name in enumerate(ids) if _owner(name) == _POD.index]


def _owner(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") % _POD.count


def shared(ids: Sequence[str], work: Callable[[list[int]], Sequence[Any]], name: str = "shared work") -> list[Any]:
    """`work(places)` gives a result for each place of `ids`; each process does its share, and all leave with all results.

    PodError names who has not done its share within the time limit, which begins when one has.
    """
    places = share(ids)
    results = list(work(places))
    if _POD.count == 1:
        return results
    barrier(name)  # the exchange would wait for ever, or half a minute, and not say for whom
    out: list[Any] = [None] * len(ids)
    for data in exchange(pickle.dumps((places, results))):
        for place, result in zip(*pickle.loads(data)):
            out[place] = result
    return out


def exchange(data: bytes) -> list[bytes]:
    """Every process's bytes, in order, on every process; also where jax alone, without `start`, joined them."""
    import jax
    import numpy as np
    from jax.experimental import multihost_utils

    if jax.process_count() == 1:
        return [data]

    sizes = multihost_utils.process_allgather(np.array(len(data), np.int64))
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: len(data)] = np.frombuffer(data, np.uint8)
    gathered = multihost_utils.process_allgather(padded)
    return [row[: int(size)].tobytes() for row, size in zip(gathered, sizes)]


def fail(reason: str, code: int = FAILED) -> None:
    """Tell the others why this process ends; process 0 shows it, and all end with the code (the highest, if several fail)."""
    if _POD.count == 1:
        return
    _say_once(f"synthrl/failed/{_POD.index:06d}", json.dumps([code, reason]))
    time.sleep(3 * BEAT_SECONDS)  # process 0 holds the service: it stays until the others have read it
    _end(max([code, *(other for _, other, _ in _failed())]))


def finish() -> None:
    """The orderly end: all are there, nobody watches any more."""
    if _POD.count > 1:
        barrier("end")
        _POD.ending = True


def _failed() -> list[tuple[int, int, str]]:
    """(process, exit code, reason) of those that have failed."""
    return [(int(key.rsplit("/", 1)[1]), *json.loads(said)) for key, said in _directory("synthrl/failed")]


def _end(code: int = FAILED) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _next() -> int:
    _POD.barriers += 1
    return _POD.barriers


def _directory(place: str) -> list[tuple[str, str]]:
    try:
        return list(_POD.client.key_value_dir_get(place))
    except Exception:  # nothing there yet, or the service is gone
        return []


def _say_once(key: str, value: str) -> None:
    try:
        _POD.client.key_value_set(key, value)
    except Exception:  # said already, or nobody there to hear it
        return


def _watch() -> None:
    """A heartbeat; ends this process when another one failed or, seen by process 0, is not heard of any more."""
    beats: dict[str, tuple[str, float]] = {}
    dumped, number = False, 0
    while not _POD.ending:
        number += 1
        try:
            _POD.client.key_value_set(f"synthrl/beat/{_POD.index:06d}", str(number), allow_overwrite=True)
        except Exception:
            if _POD.ending:
                return
            print("the coordinating process is gone; this one ends", file=sys.stderr, flush=True)
            _end()
        if not dumped and _directory("synthrl/dump"):
            dumped = True
            dump_stacks("another process is stuck at a barrier")
        if failed := _failed():
            if first():
                for process, _, reason in failed:
                    print(f"process {process} failed: {reason}", file=sys.stderr, flush=True)
                time.sleep(2 * BEAT_SECONDS)  # the others look once a beat
            _end(max(code for _, code, _ in failed))
        if first():
            now = time.monotonic()
            for key, beat in _directory("synthrl/beat"):
                if beats.get(key, ("", 0.0))[0] != beat:
                    beats[key] = beat, now
            late = [int(key.rsplit("/", 1)[1]) for key, (_, seen) in beats.items() if now - seen > LOST_SECONDS]
            if late:
                reason = f"not heard of for {LOST_SECONDS:.0f} s (killed, or its machine is gone)"
                _say_once(f"synthrl/failed/{late[0]:06d}", json.dumps([FAILED, reason]))
        time.sleep(BEAT_SECONDS)


def dump_stacks(why: str) -> None:
    """The stacks of all threads of this process, to standard error."""
    print(f"--- process {_POD.index}: {why}; stacks:", file=sys.stderr, flush=True)
    faulthandler.dump_traceback(file=sys.stderr, all_threads=True)


def dump_stacks_on_sigterm() -> None:
    """Stacks at SIGTERM, also when the main thread hangs in native code; then what SIGTERM did before.

    Two ways, for handlers come and go: faulthandler's, before whichever handler there is now, and a pipe to which Python's
    own handlers write the signal's number at once, read by a thread.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    if not _POD.reads_signals:
        _POD.reads_signals = True
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

        def read():
            while data := os.read(reader, 64):
                if signal.SIGTERM in data:
                    dump_stacks("SIGTERM")

        threading.Thread(target=read, name="stacks at SIGTERM", daemon=True).start()
    if signal.getsignal(signal.SIGTERM) in (signal.SIG_DFL, None):
        faulthandler.register(signal.SIGTERM, all_threads=True, chain=True)
