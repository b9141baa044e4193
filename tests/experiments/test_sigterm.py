"""SIGTERM, as a preempted machine gets it: training saves, the run ends with 75, and goes on when it is started again."""

import signal
import subprocess
import time

import pytest
from test_resume import command

from synthrl_jax.learning.preemption import EXIT_CODE


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_terminated_run_saves_and_ends_with_75(tmp_path, workers):
    run = command(tmp_path, "run")
    run["args"] += [f"--workers={workers}", "--config.sft.epochs=4000.0"]
    process = subprocess.Popen(**run, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    metrics = lambda: list((tmp_path / "run" / "cells").glob("sft-*.partial/metrics.jsonl"))  # noqa: E731
    deadline = time.monotonic() + 300
    while not (metrics() and metrics()[0].read_text()):
        assert process.poll() is None and time.monotonic() < deadline, process.stdout.read().decode()
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=120)[0].decode()
    assert process.returncode == EXIT_CODE, said
    assert "which is saved" in said and "the same command again" in said
    saved = [p.name for p in (tmp_path / "run" / "cells").glob("sft-*.partial/checkpoints/*") if p.name.isdigit()]
    assert saved
