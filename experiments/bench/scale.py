"""A rollout phase from 1 to 1,024 chips, on paper and by simulation: idle share, stragglers, host work, files.

    python -m experiments.bench.scale [--lengths=GSM8K_JSONL] [--problems=128000] [--negatives=8] [--steps=8] [--rollouts=20]

Lengths of continuations are drawn from measured ones: the characters of GSM8K's solutions from a step's end on, over
--characters-per-token. Without the file the quantiles that were measured on its training split are used (MEASURED below). A
shard is a closed batch of roots; a process takes every n-th shard, and its rows are refilled from its shard's queue alone.
"""

import argparse
import heapq
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.cells import write_atomic
from experiments.settings import UsageError

CHIPS = (1, 4, 16, 64, 256, 1024)
# characters of a GSM8K solution's rest after one of its steps (train split, calculator marks removed): quantiles 0, .1, .. 1
MEASURED = (6, 7, 8, 39, 63, 84, 110, 143, 187, 257, 970)
TOKEN_BYTES, ROW_BYTES = (
    8,
    40,
)  # a shard's token with its log-probability; fork, index, finish, length and root id of a row
JSON_BYTES = 6  # a token of a response in responses.jsonl
# seconds of one core, measured: to read and count a row of a shard; to take in a fork's counts with two rescues of 37 tokens
READ, TALLY = 1.0e-5, 7.5e-6
STEP_BYTES = 40  # span, counts and credit of a step in values.jsonl, credits.jsonl


def rests(path: str) -> np.ndarray:
    """Characters left after each step but the last of every solution in a GSM8K file."""
    import re

    found = []
    for number, line in enumerate(Path(path).read_text().splitlines(), 1):
        try:
            text = re.sub(r"<<[^>]*>>", "", json.loads(line)["answer"])
        except (json.JSONDecodeError, KeyError, TypeError):
            raise UsageError(f"{path}:{number}: not a row of GSM8K (question, answer)") from None
        lines = text.split("\n")
        found += [len("\n".join(lines[i:])) for i in range(1, len(lines))]
    if not found:
        raise UsageError(f"{path}: no solutions there")
    return np.array(found)


def lengths(rest: np.ndarray | None, count: int, characters_per_token: float, rng: np.random.Generator) -> np.ndarray:
    """Tokens of `count` continuations, at least one each."""
    if rest is None:
        characters = np.interp(rng.random(count), np.linspace(0, 1, len(MEASURED)), MEASURED)
    else:
        characters = rng.choice(rest, count)
    return np.maximum(1, np.round(characters / characters_per_token)).astype(np.int64)


def makespan(tokens: Sequence[int], rows: int) -> int:
    """Decode steps until a batch is done on `rows` rows, each taking the next task when its own ends."""
    free = [0] * min(rows, len(tokens))
    heapq.heapify(free)
    for n in tokens:
        heapq.heappush(free, heapq.heappop(free) + int(n))
    return max(free, default=0)


def draw_shards(rest, shard: int, rows: int, characters_per_token: float, seed: int, drawn: int = 40) -> np.ndarray:
    """(decode steps, generated tokens) of `drawn` shards of `shard` continuations [drawn, 2]."""
    rng = np.random.default_rng(seed)
    tokens = [lengths(rest, shard, characters_per_token, rng) for _ in range(drawn)]
    return np.array([(makespan(t.tolist(), rows), t.sum()) for t in tokens])


def simulate(drawn: np.ndarray, work: int, shard: int, rows: int, processes: int, seed: int) -> dict:
    """`work` continuations in shards over processes: shares of idle row-steps by cause, and the slowest process's steps.

    A process's steps are the sum of its shards', drawn with replacement from those that were simulated.
    """
    rng = np.random.default_rng(seed + 1)
    shards = max(1, -(-work // shard))
    times, busy = drawn[:, 0], drawn[:, 1]
    counts = np.full(processes, shards // processes)
    counts[: shards % processes] += 1
    if counts.max() > 2000:  # many shards each: the sum is normal
        spread = rng.standard_normal(processes) * times.std() * np.sqrt(counts)
        spans = counts * times.mean() + spread
    else:
        spans = np.array([rng.choice(times, n).sum() if n else 0.0 for n in counts])
    end = spans.max()
    return {
        "shards": shards,
        "steps": float(end),
        "tail_idle": float(1 - busy.sum() / (times.sum() * rows)),
        "straggler_idle": float(1 - spans.mean() / end) if end else 0.0,
        "idle": float(1 - busy.mean() * shards / (end * rows * processes)),
        "mean_tokens": float(busy.mean() / shard),
    }


def phase(options, drawn: np.ndarray, chips: int) -> dict:
    """One row: the Monte Carlo value stage on so many chips."""
    replicas = max(1, chips // options.replica_chips)
    processes = max(1, chips // options.host_chips)
    work = options.problems * options.negatives * options.steps * options.rollouts
    shard = options.shard_roots * options.steps * options.rollouts
    found = simulate(drawn, work, shard, options.rows, replicas, options.seed)
    tokens = work * found["mean_tokens"]
    # fewer chips than a replica's take as much longer for a step, if its weights and caches fit them at all
    seconds = found["steps"] * options.step_seconds * max(1.0, options.replica_chips / chips)
    row = {"chips": chips, "replicas": replicas, "processes": processes, "rollouts": work, "tokens": tokens, **found}
    row["hours"] = seconds / 3600
    row["tokens_per_second"] = tokens / seconds
    row["shard_bytes"] = shard * (found["mean_tokens"] * TOKEN_BYTES + ROW_BYTES)
    row["stored_bytes"] = work * (found["mean_tokens"] * TOKEN_BYTES + ROW_BYTES)
    row["bytes_per_second_per_host"] = row["stored_bytes"] / seconds / processes
    # one verdict takes this long on one core: the grader must keep pace with the sampler
    row["grading_cores_per_host"] = work * options.grade_seconds / seconds / processes
    # each process reads and counts its own shards, and takes in everyone's counts, one a fork
    forks = options.problems * options.negatives * options.steps
    row["host_hours"] = (work / processes * options.read_seconds + forks * options.tally_seconds) / 3600
    row["responses_bytes"] = options.problems * options.negatives * options.response_tokens * JSON_BYTES
    # all completions of the stage as Python objects, as reading a store back at once would make them
    row["objects_bytes"] = work * (900 + found["mean_tokens"] * 64)
    row["manifest_files"] = found["shards"] + 1
    return row


def artifacts(options, mean_tokens: float) -> list[dict]:
    """One row a stage: how many files its cells hold, whatever the number of chips, and their bytes (of the large ones)."""
    drawn, valued = options.problems * options.samples, options.problems * options.negatives
    rollouts = valued * options.steps * options.rollouts
    shards = {"sample": -(-options.problems // options.shard_roots), "values": -(-valued // options.shard_roots)}
    stored = {"sample": drawn * (options.response_tokens * TOKEN_BYTES + ROW_BYTES)}
    stored["values"] = rollouts * (mean_tokens * TOKEN_BYTES + ROW_BYTES)
    text, step = options.response_tokens * JSON_BYTES, options.steps * STEP_BYTES
    found = [
        # (stage, files beside shards and the cell's manifest, bytes): problems, responses and verdicts, chosen ones, ...
        ("data", 1, options.problems * 2 * text),
        ("sample", 1, stored["sample"]),
        ("grade", 3, drawn * (text + STEP_BYTES)),
        ("positives", 2, options.problems * 4 * text),
        ("values", 4, stored["values"] + valued * (text + step)),
        ("credit", 9, valued * (2 * text + step)),
        ("train", 10, options.policy_bytes),
        ("evaluate", 2, 0.0),
    ]
    return [
        {
            "stage": stage,
            "shards": shards.get(stage, 0),
            "files": shards.get(stage, 0) + files + 1,
            "stored_bytes": size,
        }
        for stage, files, size in found
    ]


def breaks(row: dict, options) -> str:
    """What gives way first, and at what."""
    if row["objects_bytes"] > 0.5 * options.host_bytes:
        objects, there = row["objects_bytes"] / 1e9, options.host_bytes / 1e9
        return f"host memory: {objects:,.0f} GB of completions read at once, {there:,.0f} GB a host"
    if row["grading_cores_per_host"] > options.host_cores:
        return f"grading: {row['grading_cores_per_host']:,.0f} cores a host, {options.host_cores} there"
    if row["host_hours"] > 0.1 * row["hours"]:
        return f"counting: {row['host_hours']:.2f} h of one core a host, {row['hours']:.2f} h of sampling"
    if row["straggler_idle"] > 0.1:
        return f"stragglers: {row['straggler_idle']:.0%} of the chips wait for the last shard"
    if row["tail_idle"] > 0.1:
        return f"shard tails: {row['tail_idle']:.0%} of the rows wait for their shard's last rollout"
    if row["manifest_files"] > 100_000:
        return f"files: {row['manifest_files']:,} in one directory"
    return "nothing"


def show(rows: list[dict], stages: list[dict], options) -> str:
    head = f"{'chips':>6} {'processes':>9} {'shards':>8} {'hours':>9} {'idle':>6} {'tails':>6} {'stragglers':>10} "
    lines = [
        head
        + f"{'tokens/s':>12} {'GB stored':>9} {'MB/s/host':>9} {'grading cores/host':>18} {'counting h':>10}  breaks first"
    ]
    for r in rows:
        lines.append(
            f"{r['chips']:>6} {r['processes']:>9} {r['shards']:>8,} {r['hours']:>9.2f} {r['idle']:>6.1%} {r['tail_idle']:>6.1%} "
            f"{r['straggler_idle']:>10.1%} {r['tokens_per_second']:>12,.0f} {r['stored_bytes'] / 1e9:>9.1f} "
            f"{r['bytes_per_second_per_host'] / 1e6:>9.2f} {r['grading_cores_per_host']:>18.2f} {r['host_hours']:>10.2f}  "
            f"{breaks(r, options)}"
        )
    lines += ["", f"{'stage':10} {'shards':>8} {'files a cell':>12} {'GB a cell':>10}"]
    lines += [f"{s['stage']:10} {s['shards']:>8,} {s['files']:>12,} {s['stored_bytes'] / 1e9:>10.2f}" for s in stages]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = {
        "problems": 128_000,
        "negatives": 8,
        "steps": 8,
        "rollouts": 20,
        "rows": 256,
        "shard_roots": 64,
        "seed": 0,
    }
    numbers |= {"replica_chips": 4, "host_chips": 4, "host_cores": 56, "response_tokens": 150, "samples": 16}
    for name, value in numbers.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    parser.add_argument("--characters-per-token", type=float, default=2.9, help="of the tokenizer on such text")
    parser.add_argument(
        "--step-seconds", type=float, default=0.02, help="one decode step of a replica (experiments.plan says)"
    )
    parser.add_argument(
        "--grade-seconds", type=float, default=0.0005, help="one verdict on one core (experiments.bench.grading)"
    )
    parser.add_argument("--read-seconds", type=float, default=READ, help="to read and count a stored rollout, one core")
    parser.add_argument("--tally-seconds", type=float, default=TALLY, help="to take in a fork's counts, one core")
    parser.add_argument("--host-bytes", type=float, default=192e9, help="memory of a host")
    parser.add_argument("--policy-bytes", type=float, default=13.5e9, help="of an exported policy (7B in bfloat16)")
    parser.add_argument("--lengths", help="GSM8K's train.jsonl, to measure lengths anew")
    parser.add_argument("--chips", default=",".join(map(str, CHIPS)))
    parser.add_argument("--json", help="write the rows to this file")
    options = parser.parse_args(argv)
    try:
        if min(getattr(options, name) for name in numbers if name != "seed") < 1:
            raise UsageError("sizes must be at least 1")
        if options.lengths and not Path(options.lengths).is_file():
            raise UsageError(f"--lengths={options.lengths}: no such file")
        rest = rests(options.lengths) if options.lengths else None
        shard = options.shard_roots * options.steps * options.rollouts
        drawn = draw_shards(rest, shard, options.rows, options.characters_per_token, options.seed)
        sizes = [int(chips) for chips in options.chips.split(",")]
        if min(sizes) < 1 or min(options.characters_per_token, options.step_seconds, options.host_bytes) <= 0:
            raise UsageError(
                "--chips must be at least 1, --characters-per-token, --step-seconds and --host-bytes above 0"
            )
        rows = [phase(options, drawn, chips) for chips in sizes]
    except (UsageError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    stages = artifacts(options, rows[0]["mean_tokens"])
    print(show(rows, stages, options))
    if options.json:
        settings = {
            name: getattr(options, name)
            for name in (*numbers, "characters_per_token", "step_seconds", "read_seconds", "tally_seconds")
        }
        write_atomic(Path(options.json), json.dumps([settings | row for row in [*rows, *stages]], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
