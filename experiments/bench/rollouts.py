"""Tokens a second of our two samplers and, where installed, of transformers' generate and tunix's sampler.

    python -m experiments.bench.rollouts [--samplers=static,grouped,transformers,tunix] [--workloads=plain,groups,values,greedy]
        [--sizes=small] [--repeats=3] [--tunix-python=.bench-tunix/bin/python] [--json FILE]

All sample the same work from the same random Llama weights, with lengths forced (rollout_work.py). Peers run in processes
of their own: transformers from this interpreter, tunix from the environment that experiments/bench/peers.sh makes. Times
are medians over the repeats after a first pass that compiles (transformers compiles nothing, and warms up with one token a
row). compile_seconds: what XLA took, tracing left out. host_share: our samplers' time that is not spent waiting for the
device; a peer's time outside compiled functions (tunix) or torch's operators (transformers), of one batch. A row is written
as soon as it is measured; a sampler that fails is named, and the exit code is then 1. ratio_to_grouped: the grouped sampler's
tokens a second over this one's; cpu_ratio_to_grouped: the same of processor seconds, which another process disturbs less.
"""

import argparse
import collections
import functools
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # peers need the accelerator's memory too

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench import rollout_work
from experiments.bench.rollout_peers import bench_peer
from experiments.bench.rollout_work import SIZES, WORKLOADS, Workload, row_bytes
from synthrl_jax.policy import decoder, hf_weights
from synthrl_jax.policy.checkpoint import Policy
from synthrl_jax.rollouts import Settings, board, grouped_sampler, static_sampler
from synthrl_jax.rollouts.root import Task, tasks

SAMPLERS = ("static", "grouped", "transformers", "tunix")
# rows decoded at once; of 64, 128 and 256 what suited each sampler best
BATCH = {"static": 128, "grouped": 128, "transformers": 64, "tunix": 64}
MISSING = {"transformers": "pip install -e '.[bench]'", "tunix": "bash experiments/bench/peers.sh"}


def machine() -> dict:
    """Float32 matrix product rate and donated copy bandwidth of this machine, measured now."""
    n = 2048 if jax.default_backend() == "cpu" else 8192
    dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    a = jnp.ones((n, n), dtype)
    big = jnp.ones(2**25 if jax.default_backend() == "cpu" else 2**30, jnp.float32)
    product = jax.jit(lambda a: a @ a)
    add = jax.jit(lambda x: x + 1, donate_argnums=0)
    jax.block_until_ready(product(a))
    big = jax.block_until_ready(add(big))
    rates, bandwidths = [], []
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(product(a))
        rates.append(2 * n**3 / (time.perf_counter() - start))
        start = time.perf_counter()
        big = jax.block_until_ready(add(big))
        bandwidths.append(2 * big.nbytes / (time.perf_counter() - start))
    return {"gemm_flops": statistics.median(rates), "copy_bytes_per_second": statistics.median(bandwidths)}


def bound_seconds(config: decoder.DecoderConfig, work: Workload, batch: int, rates: dict) -> tuple[float, float]:
    """Least seconds of the shared-prefix layout, and what of it decoding takes to move bytes: every matrix product at the rate
    of large ones, every root prefilled once, a prefix read once a step for all rows that share it, a suffix only as far as
    it is written, the weights once a step."""
    weights = hf_weights.count_parameters(config) - config.vocab_size * config.width
    size = jnp.dtype(config.dtype).itemsize
    attention = 4 * config.layers * config.heads * config.head_dim
    flops = bytes_ = 0.0
    for root in work.roots:
        lengths = np.concatenate([fork.lengths for fork in root.forks])
        prefixes = np.repeat([fork.position for fork in root.forks], [len(fork.lengths) for fork in root.forks])
        longest = max(fork.position for fork in root.forks)
        flops += 2 * weights * (longest + lengths.sum()) + attention * (lengths * (prefixes + lengths / 2)).sum()
        flops += attention * longest**2 / 2
        sharing = min(len(lengths), batch)
        bytes_ += row_bytes(config) * ((lengths**2 / 2).sum() + longest * lengths.sum() / sharing)
    bytes_ += work.tokens() / batch * weights * size
    compute, memory = flops / rates["gemm_flops"], bytes_ / rates["copy_bytes_per_second"]
    # on CPU the same cores multiply and move; an accelerator does both at once
    return (compute + memory if jax.default_backend() == "cpu" else max(compute, memory)), memory


COMPILED = "/jax/core/compile/backend_compile_duration"  # an event of jax.monitoring


def compiling(call: Callable[[], object]) -> tuple[object, float]:
    """(result, seconds that XLA compiled): the difference of two passes' times would drown in a machine's noise."""
    durations = []

    def listen(event, seconds, **_):
        durations.append(seconds * (event == COMPILED))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        return call(), sum(durations)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def timed(call: Callable[[], object]) -> tuple[float, object, float]:
    """(seconds, result, processor seconds of all threads)"""
    start, cpu = time.perf_counter(), time.process_time()
    result = call()
    return time.perf_counter() - start, result, time.process_time() - cpu


def static_batches(config: decoder.DecoderConfig, groups: list[list[Task]], packed: list[static_sampler.Batch]) -> dict:
    """Idle row-steps and bytes of K/V of the static sampler: rows that fill the shape count, the prefills' caches too."""
    steps, slots = 0, 0
    for group, batch in zip(groups, packed):
        (F, P), R = batch.prefix_FxP.shape, len(batch.budget_R)
        steps += R * int(batch.budget_R.max())
        slots = max(slots, F * P + R * (P + static_sampler.bucket(max(task.max_tokens for task in group)) - 1))
    tokens = sum(int(batch.budget_R.sum()) for batch in packed)
    return {"idle_row_steps": 1 - tokens / steps, "kv_bytes": slots * row_bytes(config)}


def bench_static(policy: Policy, work: Workload, batch: int, repeats: int) -> dict:
    """The static sampler; its prefill is timed by a pass of one token a row."""
    settings = Settings(max_tokens=work.max_tokens, temperature=work.temperature, stop_ids=(), rows=batch)

    def generate(roots):
        return sum(len(c.tokens) for c in static_sampler.sample(policy, roots, settings, 0))

    tokens, compile_seconds = compiling(lambda: generate(work.roots))
    assert tokens == work.tokens(), (tokens, work.tokens())
    runs = [timed(lambda: generate(work.roots)) for _ in range(repeats)]
    seconds = statistics.median(run[0] for run in runs)
    prefill = statistics.median(timed(lambda: generate(work.one_token().roots))[0] for _ in range(repeats))
    wanted = tasks(work.roots, settings, policy.config.max_positions, policy.config.vocab_size)

    def host_work():
        """All that the host does: what is left of a pass when the device's outputs are there at once."""
        groups = static_sampler.plan(wanted, batch)
        packed = [static_sampler.pack(group, batch) for group in groups]
        for group, p in zip(groups, packed):
            ints, floats = (np.zeros((len(p.budget_R), p.budget_R.max()), kind) for kind in (np.int32, np.float32))
            outputs = static_sampler.Generated(ints, floats, floats, p.budget_R, p.budget_R > 0, floats)
            collections.deque(static_sampler.unpack(group, outputs, settings), maxlen=0)
        return groups, packed

    host, (groups, packed), _ = timed(host_work)
    forks = [fork.position for root in work.roots for fork in root.forks]
    return {
        "seconds": seconds,
        "cpu_seconds": statistics.median(run[2] for run in runs),
        "compile_seconds": compile_seconds,
        "prefill_seconds": prefill,
        "prefill_tokens": sum(forks),
        "decode_seconds": seconds - prefill,
        "host_share": host / seconds,
        **static_batches(policy.config, groups, packed),
    }


def bench_grouped(policy: Policy, work: Workload, batch: int, repeats: int) -> dict:
    """The grouped sampler, with what it says of itself."""
    settings = Settings(max_tokens=work.max_tokens, temperature=work.temperature, stop_ids=(), rows=batch)

    def generate():
        stats = board.Stats()
        for _ in grouped_sampler.run(policy, work.roots, settings, 0, stats, time_prefill=True):
            pass
        return stats

    stats, compile_seconds = compiling(generate)
    assert stats.tokens == work.tokens(), (stats.tokens, work.tokens())
    runs = sorted((timed(generate) for _ in range(repeats)), key=lambda run: run[0])
    seconds, stats, _ = runs[len(runs) // 2]
    return {
        "seconds": seconds,
        "cpu_seconds": statistics.median(run[2] for run in runs),
        "compile_seconds": compile_seconds,
        "prefill_seconds": stats.prefill_seconds,
        "prefill_tokens": stats.prefill_tokens,
        "decode_seconds": seconds - stats.prefill_seconds - stats.host_seconds,
        "host_share": stats.host_seconds / seconds,
        "idle_row_steps": stats.idle_row_steps / stats.row_steps,
        "near_ties": stats.near_ties,
        "kv_bytes": stats.kv_bytes,
        "unshared_kv_bytes": stats.unshared_kv_bytes,
        "groups": stats.shape.groups,
        "rows_per_group": stats.shape.rows,
    }


def measure(
    sampler: str, size: str, workload: str, repeats: int, pythons: dict, rates: dict, rows: int, every: int
) -> dict | None:
    """One row of the table, or None for a peer that is not installed."""
    config = SIZES[size]

    @functools.partial(jax.jit, static_argnums=0)
    def weights(config):
        return jax.tree.map(lambda x: x.astype(config.dtype), decoder.init(config, jax.random.key(0)))

    policy = Policy(config, weights(config))
    work = rollout_work.workload(workload, size)
    batch = rows or BATCH[sampler]
    if sampler in pythons:
        if not Path(pythons[sampler]).exists():
            return None
        got = bench_peer(sampler, pythons[sampler], policy, work, batch, repeats, every)
    else:
        got = {"static": bench_static, "grouped": bench_grouped}[sampler](policy, work, batch, repeats)
    if got is None:
        return None
    tokens = got.pop("tokens", work.tokens())
    row = {"sampler": sampler, "workload": workload, "size": size, "batch": batch, "tokens": tokens}
    row["share_of_work"] = tokens / work.tokens()
    row["tokens_per_second"] = tokens / got["seconds"]
    row["tokens_per_cpu_second"] = tokens / got["cpu_seconds"]
    decode_seconds = got.pop("decode_seconds")
    row["decode_tokens_per_second"] = tokens / max(decode_seconds, 1e-9)
    row["prefill_tokens_per_second"] = got.pop("prefill_tokens") / got["prefill_seconds"]
    bound, memory = bound_seconds(config, work, rows or BATCH["grouped"], rates)
    row["of_bound"] = row["share_of_work"] * bound / got["seconds"]
    row["decode_of_memory_bound"] = row["share_of_work"] * memory / max(decode_seconds, 1e-9)
    return row | got


def environment(repeats: int, rates: dict) -> dict:
    """What every row carries: where and when it was measured."""
    device = jax.devices()[0]
    return rates | {
        "lengths": rollout_work.LENGTHS,
        "repeats": repeats,
        "device": device.device_kind,
        "cores": os.cpu_count(),
        "jax": jax.__version__,
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
    }


SHOWN = ("tokens_per_second", "decode_tokens_per_second", "prefill_tokens_per_second", "compile_seconds", "host_share")
SHOWN += ("idle_row_steps", "kv_bytes", "of_bound", "decode_of_memory_bound", "near_ties")


def show(row: dict) -> str:
    """A row of the table."""
    cells = (f"{row[name]:.4g}" if name in row else "-" for name in SHOWN)
    return f"{row['size']:8} {row['workload']:8} {row['sampler']:13}" + " ".join(f"{cell:>12}" for cell in cells)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)

    def words(known):
        def parse(text):
            chosen = text.split(",")
            if unknown := set(chosen) - set(known):
                raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: known are {', '.join(known)}")
            return chosen

        return parse

    parser.add_argument("--samplers", type=words(SAMPLERS), default=list(SAMPLERS))
    parser.add_argument("--workloads", type=words(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--sizes", type=words(SIZES), default=["small"])

    def positive(text):
        if not text.isdigit() or not int(text):
            raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 1")
        return int(text)

    parser.add_argument("--repeats", type=positive, default=3)
    parser.add_argument("--rows", type=positive, default=0, help="rows decoded at once, for all samplers")
    parser.add_argument(
        "--peer-batches", type=positive, default=1, help="peers run every n-th of their batches: a sample of the work"
    )
    parser.add_argument("--tunix-python", default=".bench-tunix/bin/python")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    # compile times are measured
    jax.config.update("jax_enable_compilation_cache", False)
    pythons = {"transformers": sys.executable, "tunix": options.tunix_python}
    rates = machine()
    print(
        f"matrix product {rates['gemm_flops'] / 1e9:.0f} GFLOP/s, copies {rates['copy_bytes_per_second'] / 1e9:.0f} GB/s"
    )
    print(f"{'size':8} {'workload':8} {'sampler':13}" + " ".join(f"{name[:12]:>12}" for name in SHOWN))
    rows, failed = [], False

    def write(rows):
        if options.json:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps(rows, indent=1) + "\n")

    for size in options.sizes:
        for workload in options.workloads:
            found = []
            for sampler in options.samplers:
                try:
                    row = measure(
                        sampler, size, workload, options.repeats, pythons, rates, options.rows, options.peer_batches
                    )
                except RuntimeError as error:  # XLA's too: out of memory
                    failed = True
                    print(f"{size:8} {workload:8} {sampler:13} failed: {error}", flush=True)
                    continue
                if row is None:
                    print(f"{size:8} {workload:8} {sampler:13} not installed: {MISSING[sampler]}")
                    continue
                found.append(row | environment(options.repeats, rates))
                print(show(found[-1]), flush=True)
                write([*rows, *found])
            ours = [row["tokens_per_second"] for row in found if row["sampler"] == "grouped"]
            cpu = [row["tokens_per_cpu_second"] for row in found if row["sampler"] == "grouped"]
            for row in found if ours else ():
                row |= {"ratio_to_grouped": ours[0] / row["tokens_per_second"]}
                row |= {"cpu_ratio_to_grouped": cpu[0] / row["tokens_per_cpu_second"]}
                ratios = f"{row['ratio_to_grouped']:.2f} (processor time {row['cpu_ratio_to_grouped']:.2f})"
                print(f"{size:8} {workload:8} grouped over {row['sampler']}: {ratios}")
            rows += found
            write(rows)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
