"""Completions on disk: shards of a fixed list of roots each, written beside their place and renamed, resumable.

A shard is sampled as one closed batch, so it holds the same whether the run was interrupted or not.
"""

import dataclasses
import hashlib
import io
import json
import operator
import os
import time
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from etils import epath
from tqdm import tqdm

from synthrl_jax.rollouts import processes
from synthrl_jax.rollouts.root import Completion, Root, Settings, distinct

FORMAT = 3
MANIFEST = "manifest.json"
TRAINING = ("remat", "attention", "vocab_chunk", "scan")  # fields of a decoder that no sampled token hangs on
FINISHES = ("stop", "length")


class StoreMismatch(ValueError):
    """A store that was begun with other settings, weights or roots; the message names the field."""


def sample_to_store(
    directory,
    policy,
    roots: Sequence[Root],
    settings: Settings,
    seed: int,
    *,
    shard_roots: int = 64,
    share: tuple[int, int] | None = None,
    label: str = "rollouts",
    progress: bool = True,
) -> Iterator[Completion]:
    """Sample what the store still lacks, at once; gives its completions, ordered by root, fork and index.

    share (i, n) samples every n-th shard from the i-th on: one process of n; the others' are then not read. None: the
    share of this process of a pod (`processes.share_of`), and then all processes leave with the whole store written.
    A progress line under `label` shows on terminals unless progress is False. StoreMismatch: it was begun with other inputs.
    ValueError: two roots of one id, or shard_roots below 1.
    """
    from synthrl_jax import rollouts
    from synthrl_jax.policy.checkpoint import checksum

    directory, roots = epath.Path(directory), distinct(roots)
    if shard_roots < 1:
        raise ValueError(f"shard_roots must be at least 1, not {shard_roots}")
    pod, share = share is None, processes.share_of(policy) if share is None else share
    # processes that draw the same together leave the writing to the first
    writes = share[1] > 1 or jax.process_index() == 0
    weights = checksum(policy.params)
    parts = [roots[first : first + shard_roots] for first in range(0, len(roots), shard_roots)]
    if writes:
        begin(directory, manifest(policy, roots, settings, seed, weights, shard_roots))
        if pod:  # no other process writes under this one's number: what a killed run left half written
            for path in directory.glob(f".*.{jax.process_index()}.*"):
                path.unlink()
    numbers = range(share[0], len(parts), share[1])
    done = [number for number in numbers if shard_path(directory, number).exists()]
    if pod:
        processes.barrier(f"{label}: all know what is done")
    # the shapes of all shards are those of the largest needs, whichever are still to be sampled
    workload = rollouts.workload_of(policy, parts, settings) if len(done) < len(numbers) else None
    bar = tqdm(total=len(numbers), initial=len(done), unit="shard", desc=label, disable=None if progress else True)
    tokens, start = 0, time.monotonic()
    with bar:
        for number in sorted(set(numbers) - set(done)):
            part = parts[number]
            place = {
                (root.id, fork.position): (i, f) for i, root in enumerate(part) for f, fork in enumerate(root.forks)
            }
            found = rollouts.sample(policy, part, settings, seed, workload)
            ordered = sorted(found, key=lambda c: (*place[c.root_id, c.fork], c.index))
            if writes:
                write_shard(shard_path(directory, number), ordered, weights)
            tokens += sum(len(completion.tokens) for completion in ordered)
            words = f"{tokens / (time.monotonic() - start):,.0f} tokens/s"
            if workload.row_steps:
                words += f", {workload.idle_row_steps / workload.row_steps:.0%} of row-steps idle"
            bar.set_postfix_str(words, refresh=False)
            bar.update()
    if pod:
        processes.barrier(f"{label}: all is written", time.monotonic() - start)
    return (completion for number in numbers for completion in read_shard(shard_path(directory, number)))


def manifest(policy, roots: Sequence[Root], settings: Settings, seed: int, weights: str, shard_roots: int) -> dict:
    """What decides a store's contents, as JSON-ready fields."""
    from synthrl_jax.rollouts.static_sampler import stop_conditions

    stop_ids, automaton_NxV = stop_conditions(policy, settings)
    digest = hashlib.blake2b(digest_size=8)
    for root in roots:
        forks = [dataclasses.astuple(fork) for fork in root.forks]
        digest.update(json.dumps([root.id, root.tokens, forks, root.n, root.text]).encode())
    fields = {
        "format": FORMAT,
        "seed": operator.index(seed),
        "parameters": weights,
        "stop_ids": sorted({int(stop) for stop in stop_ids if stop >= 0}),
        "stop_strings": "" if automaton_NxV is None else hashlib.blake2b(automaton_NxV, digest_size=8).hexdigest(),
        "roots": digest.hexdigest(),
        "shard_roots": shard_roots,
        "shards": -(-len(roots) // shard_roots),
    }
    # what the weights alone do not say, as the angles of positions
    model = {name: value for name, value in dataclasses.asdict(policy.config).items() if name not in TRAINING}
    fields |= {f"model.{name}": value for name, value in model.items()}
    fields |= {f"settings.{name}": value for name, value in dataclasses.asdict(settings).items()}
    return json.loads(json.dumps(fields))


def begin(directory: epath.Path, fields: dict):
    """Write the manifest, or compare with the one that is there."""
    path = directory / MANIFEST
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        write_atomically(path, (json.dumps(fields, indent=2) + "\n").encode())
        return
    before = json.loads(path.read_text())
    for name in sorted(set(before) | set(fields)):
        if before.get(name) != fields.get(name):
            raise StoreMismatch(
                f"{directory} was begun with {name} = {before.get(name)!r}, not {fields.get(name)!r}: "
                "use another directory, or remove this one to sample anew"
            )


def shard_path(directory: epath.Path, number: int) -> epath.Path:
    """Where a shard lies once it is whole."""
    return directory / f"shard_{number:05d}.npz"


def write_atomically(path: epath.Path, content: bytes):
    """Write beside the place and rename: a reader sees nothing or all of it."""
    beside = path.parent / f".{path.name}.{jax.process_index()}.{os.getpid()}"
    beside.write_bytes(content)
    beside.replace(path)


def write_shard(path: epath.Path, completions: Sequence[Completion], weights: str):
    """One shard: token rows laid end to end with their offsets, so that reading needs no parsing."""

    def flat(rows, dtype):
        return np.array([value for row in rows for value in row], dtype)

    arrays = {
        "root_id": np.array([c.root_id for c in completions], np.str_),
        "fork": np.array([c.fork for c in completions], np.int32),
        "index": np.array([c.index for c in completions], np.int32),
        "finish": np.array([FINISHES.index(c.finish) for c in completions], np.int8),
        "length": np.array([len(c.tokens) for c in completions], np.int32),
        "tokens": flat((c.tokens for c in completions), np.int32),
        "logprobs": flat((c.logprobs for c in completions), np.float32),
        "parameters": np.array(weights),
    }
    if completions and completions[0].model_logprobs is not None:
        arrays["model_logprobs"] = flat((c.model_logprobs for c in completions), np.float32)
    if completions and completions[0].prompt_logprobs is not None:
        # once per fork, not once per rollout of it
        by_fork = {(c.root_id, c.fork): c.prompt_logprobs for c in completions}
        arrays["prompt_logprobs"] = flat(by_fork.values(), np.float32)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_atomically(path, buffer.getvalue())


def read_shard(path) -> Iterator[Completion]:
    """The completions of one shard, as they were written."""
    with epath.Path(path).open("rb") as file, np.load(file) as arrays:
        columns = {name: arrays[name] for name in arrays.files}
    ends = np.cumsum(columns["length"])
    prompts, start = {}, 0
    if "prompt_logprobs" in columns:
        for fork in dict.fromkeys(zip(columns["root_id"].tolist(), columns["fork"].tolist())):
            prompts[fork] = tuple(columns["prompt_logprobs"][start : start + fork[1]].tolist())
            start += fork[1]
    for row, (end, length) in enumerate(zip(ends.tolist(), columns["length"].tolist())):
        span = slice(end - length, end)
        model = columns.get("model_logprobs")
        yield Completion(
            root_id=str(columns["root_id"][row]),
            fork=int(columns["fork"][row]),
            index=int(columns["index"][row]),
            tokens=tuple(columns["tokens"][span].tolist()),
            logprobs=tuple(columns["logprobs"][span].tolist()),
            finish=FINISHES[columns["finish"][row]],
            model_logprobs=None if model is None else tuple(model[span].tolist()),
            prompt_logprobs=prompts.get((str(columns["root_id"][row]), int(columns["fork"][row]))),
        )


def read_store(directory, share: tuple[int, int] = (0, 1)) -> Iterator[Completion]:
    """All completions of a store, in order. FileNotFoundError: it is no store, or lacks shards (the first is named).

    share (i, n): of every n-th shard from the i-th on alone; a root's completions are all in one shard.
    """
    directory = epath.Path(directory)
    if not (directory / MANIFEST).exists():
        raise FileNotFoundError(f"{directory} is not a store of completions: it has no {MANIFEST}")
    shards = json.loads((directory / MANIFEST).read_text()).get("shards")
    if shards is None:  # format 1 did not say how many
        shards = len(list(directory.glob("shard_*.npz")))
    paths = [shard_path(directory, number) for number in range(share[0], shards, share[1])]
    if missing := [path.name for path in paths if not path.exists()]:
        raise FileNotFoundError(
            f"{directory} lacks {len(missing)} of {len(paths)} shards, the first {missing[0]}: go on sampling"
        )
    for path in paths:
        yield from read_shard(path)
