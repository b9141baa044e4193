"""transformers' generate and tunix's sampler in processes of their own, on the work of the rollout bench."""

import json
import statistics
import subprocess
import tempfile
from pathlib import Path

import jax

from experiments.bench.rollout_work import Workload, row_bytes
from synthrl_jax.policy import decoder, hf_weights
from synthrl_jax.policy.checkpoint import Policy

HERE = Path(__file__).parent


def peer_batches(name: str, config: decoder.DecoderConfig, batches: list[list[tuple[int, int]]], most: int) -> dict:
    """Idle row-steps and bytes of K/V of a peer's batches of (prefix, length), which run until their longest row ends; most:
    tokens of a row.

    transformers' cache is as long as its longest row so far. tunix's has prompts padded to a power of two and room for `most`
    tokens, both for the longest of all, and it steps by 32.
    """
    coarse = name == "tunix"
    longest = [max(length for _, length in batch) for batch in batches]
    steps = sum(len(batch) * (-(-n // 32) * 32 if coarse else n) for batch, n in zip(batches, longest))
    tokens = sum(length for batch in batches for _, length in batch)
    prompts = [max(prefix for prefix, _ in batch) for batch in batches]
    held = [prompt + n for prompt, n in zip(prompts, longest)]
    if coarse:
        held = [(1 << (max(prompts) - 1).bit_length()) + -(-most // 32) * 32] * len(batches)
    slots = max(len(batch) * n for batch, n in zip(batches, held))
    return {"idle_row_steps": 1 - tokens / steps, "kv_bytes": slots * row_bytes(config)}


class PeerFailed(RuntimeError):
    """A peer is installed and did not get through; the others are measured all the same."""


def bench_peer(
    name: str, python: str, policy: Policy, work: Workload, batch: int, repeats: int, every: int
) -> dict | None:
    """A peer in a process of its own, on the middle one of every `every` of its batches; None where it is not installed.

    The policy's arrays are deleted: the peer reads its own copy.
    """
    requests = work.requests()
    starts = range(0, len(requests), batch)
    every = min(every, len(starts))
    # of each stride its middle: requests come with the longest prefix first, and the first batches are the costliest
    chosen = starts[every // 2 :: every]
    requests = [request for start in chosen for request in requests[start : start + batch]]
    with tempfile.TemporaryDirectory() as directory:
        hf_weights.save(directory, policy.config, policy.params)
        for array in jax.tree.leaves(policy.params):
            array.delete()  # an accelerator has to hold the peer's
        job = {
            "model": directory,
            "prefixes": [prefix for prefix, _ in requests],
            "lengths": [length for _, length in requests],
            "batch": batch,
            "max_tokens": work.max_tokens,
            "temperature": work.temperature,
            "repeats": repeats,
            "rope_theta": policy.config.rope_theta,
        }
        script = HERE / f"{name}_peer.py"
        run = subprocess.run([python, str(script)], input=json.dumps(job), stdout=subprocess.PIPE, text=True)
    if run.returncode == 3:
        return None
    if run.returncode:
        raise PeerFailed(f"{name} ended with code {run.returncode}")
    got = json.loads(run.stdout.strip().splitlines()[-1])
    seconds = statistics.median(got["seconds"])
    prefill = statistics.median(got["prefill_seconds"])
    lengths = [(len(prefix), length) for prefix, length in requests]
    return {
        "seconds": seconds,
        "cpu_seconds": statistics.median(got["cpu_seconds"]),
        "compile_seconds": got["compile_seconds"],
        "prefill_seconds": prefill,
        "prefill_tokens": sum(len(prefix) for prefix, _ in requests),
        "decode_seconds": seconds - prefill,
        "host_share": got["host_share"],
        "peer_batches": every,
        "versions": got["versions"],
        "tokens": sum(length for _, length in requests),
        **peer_batches(
            name, policy.config, [lengths[i : i + batch] for i in range(0, len(lengths), batch)], work.max_tokens
        ),
    }
