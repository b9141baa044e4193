"""A pod of two processes: each draws its share where the policy fits its devices, else both draw the same together."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from synthrl_jax.policy import decoder
from synthrl_jax.policy.checkpoint import Policy
from synthrl_jax.rollouts import Root, Settings, processes, sample
from tests.xla_flags import devices

HERE = Path(__file__).parent


@pytest.mark.long
@pytest.mark.timeout(300)
def test_two_processes_draw_what_one_draws(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1]), "JAX_PLATFORMS": "cpu"}
    environment["XLA_FLAGS"] = devices(2)
    running = [
        subprocess.Popen(
            [sys.executable, str(HERE / "pod_sampling.py"), str(port), str(index), str(tmp_path)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    errors = [process.communicate()[1] for process in running]
    assert all(process.returncode == 0 for process in running), "\n".join(error[-2000:] for error in errors)
    first, second = (json.loads((tmp_path / f"process_{index}.json").read_text()) for index in range(2))

    config = decoder.DecoderConfig(
        vocab_size=96, width=32, layers=1, heads=4, kv_heads=2, max_positions=128, dtype="float32"
    )
    policy = Policy(config, decoder.init(config, jax.random.key(1)))
    roots = [Root(f"root {i}", list(range(2, 10 + i)), [5, 8 + i], n=2) for i in range(6)]
    oracle = sample(policy, roots, Settings(max_tokens=12, stop_ids=(3,), rows=16, sampler="static"), 7)
    expected = sorted([c.root_id, c.fork, c.index, list(c.tokens)] for c in oracle)
    assert (first["alone share"], second["alone share"]) == ([0, 2], [1, 2])
    assert first["together share"] == second["together share"] == [0, 1]
    for name in ("alone store", "together store", "everywhere"):
        for found in (first[name], second[name]):
            assert len(found) == len(expected) == 24
            assert sum(a != b for a, b in zip(found, expected)) <= 1  # a near-tie


def test_one_process_draws_everything():
    config = decoder.DecoderConfig(vocab_size=31, width=16, layers=1, heads=2)
    assert processes.share_of(Policy(config, decoder.init(config, jax.random.key(0)))) == (0, 1)
    assert processes.mesh_of(Policy(config, decoder.init(config, jax.random.key(0)))) is None
