"""Kill -9 at any moment and start again: the artifacts equal those of an uninterrupted run."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.xla_flags import UNOPTIMISED

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
from configs import tiny

def get_config():
    c = tiny.get_config()
    c.sizes, c.test_problems, c.validation_problems = (24,), 12, 8
    c.sample.shard_roots, c.monte_carlo.shard_roots = 8, 4
    c.methods = {name: c.methods[name] for name in ("rft", "dpo_per_step")}
    return c
"""


def command(directory, name):
    config = directory / "small.py"
    config.write_text(CONFIG)
    flags = [f"--config={config}", f"--workdir={directory / name}", "--json", str(directory / f"{name}.json")]
    env = {**os.environ, "SYNTHRL_QUIET": "1", "XLA_FLAGS": UNOPTIMISED, "PYTHONPATH": str(ROOT)}
    return {"args": [sys.executable, "-m", "experiments.run", *flags], "cwd": ROOT, "env": env}


def artifacts(workdir):
    """Label -> contents of the cell's files, what is no result left aside."""
    from experiments.cells import fingerprint

    cells = json.loads((workdir / "run.json").read_text())["cells"]
    return {label: fingerprint(workdir / place) for label, place in cells.items()}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs")
    subprocess.run(**command(directory, "whole"), check=True, capture_output=True)
    return directory


# Moments at which the run is killed: a file of an unfinished cell that has just appeared. The first is always tried; training
# alone is killed in tests/learning/test_checkpoints.py.
MOMENTS = {
    "rollouts": ("values-*.partial/completions/*", signal.SIGKILL),
    "training": ("sft-*.partial/checkpoints/*", signal.SIGKILL),
    "a method": ("dpo_per_step-*.partial/metrics.jsonl", signal.SIGKILL),
    "Ctrl-C": ("sample-*.partial/completions/*", signal.SIGINT),
}


@pytest.mark.slow
@pytest.mark.parametrize("moment", [*MOMENTS][:1] + [pytest.param(m, marks=pytest.mark.long) for m in [*MOMENTS][1:]])
def test_a_killed_run_ends_like_an_uninterrupted_one(uninterrupted, moment):
    name = moment.replace(" ", "_")
    workdir = uninterrupted / name
    process = subprocess.Popen(
        **command(uninterrupted, name), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    deadline = time.monotonic() + 300
    place, killer = MOMENTS[moment]
    while not list((workdir / "cells").glob(place)):
        assert process.poll() is None and time.monotonic() < deadline, process.stdout.read().decode()
        time.sleep(0.005)
    os.killpg(process.pid, killer)
    said = process.communicate()[0].decode()
    if killer == signal.SIGINT:
        assert process.returncode == 130 and "the same command again" in said, said
    assert not (workdir / "run.json").exists()
    subprocess.run(**command(uninterrupted, name), check=True, capture_output=True)
    assert artifacts(workdir) == artifacts(uninterrupted / "whole")
    assert json.loads((uninterrupted / f"{name}.json").read_text()) == json.loads(
        (uninterrupted / "whole.json").read_text()
    )
