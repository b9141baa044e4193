"""One process of a pod of two with two devices each, run by test_processes.py: argv is port, process index, directory."""

import json
import sys
from pathlib import Path

import jax
import numpy as np

from synthrl_jax import rollouts
from synthrl_jax.policy import decoder, sharding
from synthrl_jax.policy.checkpoint import Policy
from synthrl_jax.rollouts import Root, Settings, processes

CONFIG = decoder.DecoderConfig(
    vocab_size=96, width=32, layers=1, heads=4, kv_heads=2, max_positions=128, dtype="float32"
)
SETTINGS = Settings(max_tokens=12, stop_ids=(3,), rows=16, sampler="grouped")


def roots():
    return [Root(f"root {i}", list(range(2, 10 + i)), [5, 8 + i], n=2) for i in range(6)]


def place(params, mesh):
    """Global arrays of what every process computed alike."""
    return jax.tree.map(
        lambda x, s: jax.make_array_from_callback(x.shape, s, lambda at: np.asarray(x)[at]),
        params,
        sharding.shardings(CONFIG, mesh),
    )


def rows(completions):
    return sorted((c.root_id, c.fork, c.index, c.tokens) for c in completions)


def main(port: str, index: int, directory: Path):
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, index)
    params = jax.device_get(decoder.init(CONFIG, jax.random.key(1)))
    everyone = sharding.make_mesh(data=2, tensor=2, devices=jax.devices())
    policies = {"alone": Policy(CONFIG, params), "together": Policy(CONFIG, place(params, everyone))}
    report = {}
    for name, policy in policies.items():
        report[f"{name} share"] = processes.share_of(policy)
        rollouts.sample_to_store(directory / name, policy, roots(), SETTINGS, 7, shard_roots=3, progress=False)
        report[f"{name} store"] = rows(rollouts.read_store(directory / name))
    report["everywhere"] = rows(rollouts.sample_everywhere(policies["alone"], roots(), SETTINGS, 7))
    (directory / f"process_{index}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
