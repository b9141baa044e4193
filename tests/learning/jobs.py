"""Starts `train_job.py` in processes of its own, and reads what it left."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests import xla_flags

HERE = Path(__file__).parent


def start(out: Path, devices: int = 1, **job) -> subprocess.Popen:
    """A run of `train_job.py` with so many virtual devices."""
    env = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "OMP_NUM_THREADS": "1",
        "XLA_FLAGS": xla_flags.devices(devices),
        "PYTHONPATH": os.pathsep.join([str(HERE.parent.parent), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, str(HERE / "train_job.py"), json.dumps({"out": str(out)} | job)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: subprocess.Popen, code: int = 0) -> str:
    """What a run printed; it must have ended with `code`."""
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == code, printed[-4000:]
    return printed


def run(out: Path, devices: int = 1, code: int = 0, **job) -> str:
    return finish(start(out, devices, **job), code)


def run_on_two(out: Path, devices: int = 4, code: int = 0, **job) -> list[str]:
    """The same job on two processes with `devices` each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    both = [start(out, devices, processes=2, process=i, port=port, **job) for i in range(2)]
    return [finish(process, code) for process in both]


def params(out: Path) -> dict[str, np.ndarray]:
    with np.load(out / "params.npz") as found:
        return dict(found)


def metrics(out: Path) -> str:
    return (out / "metrics.jsonl").read_text() + (out / "result.json").read_text()


def assert_equal(a: Path, b: Path) -> None:
    """To the last bit."""
    assert metrics(a) == metrics(b)
    one, two = params(a), params(b)
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


def assert_close(a: Path, b: Path, atol: float = 2e-4) -> None:
    one, two = params(a), params(b)
    for name in one:
        np.testing.assert_allclose(one[name], two[name], atol=atol, err_msg=name)
