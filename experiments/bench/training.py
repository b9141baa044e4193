"""How fast a training step is, against PyTorch, and what packing, trees and a vocabulary in chunks are worth.

    python -m experiments.bench.training [--comparisons=torch,packing,tree,chunked] [--sizes=small,medium] [--repeats=3]
        [--clock=wall] [--json FILE]

`torch`: one AdamW step of the same random Llama on 32 x 256 tokens in float32, ours and PyTorch + transformers' in turn;
ratio = their seconds / ours. `packing`: GSM8K's lengths in packed rows against rows padded to the longest; ratio of trained
tokens a second. `tree`: per-step DPO pairs with shared prefixes computed once against plain pairs; ratio of pairs a second.
`chunked`: temporary memory of the loss's gradient at a vocabulary of 32,000 and one layer, whole / in chunks.
Medians over the repeats after a first step that compiles; packing, tree and chunked are measured at the first of the sizes. All
buffers lie on huge pages, PyTorch's too, as those of `experiments.run`'s workers do (a GLIBC_TUNABLES in the environment decides
otherwise).
`--clock=cpu` counts processor seconds in place of wall time, for a machine that is not quiet: start it on one core
(taskset -c 0).
"""

import argparse
import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments import machine
from experiments.bench import training_work as work
from experiments.bench.rollout_work import SIZES
from synthrl_jax.learning import optimizer
from synthrl_jax.learning.batches import Batches
from synthrl_jax.learning.metrics import PEAK_FLOPS, model_flops, peak_bytes
from synthrl_jax.learning.optimizer import OptimizerSettings
from synthrl_jax.learning.step import find_loss, make_step
from synthrl_jax.policy import decoder, hf_weights

ROWS, TOKENS, MICRO = 32, 256, 8  # micro-batches of 8 rows stay nearer to the caches than 32 at once: 14 % on one core
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
CHUNK, LARGE_VOCABULARY = 4_000, 32_000
PEER, NOT_INSTALLED = Path(__file__).with_name("torch_peer.py"), 3
COMPARISONS = ("torch", "packing", "tree", "chunked")


class Trainer:
    """A training step with its state, to be called again and again."""

    def __init__(self, config: decoder.DecoderConfig, clock: str, loss: str = "sft", **loss_args):
        transform = optimizer.make(OptimizerSettings(learning_rate=1e-4), 1000)
        self.params = decoder.init(config, jax.random.key(0))
        self.opt_state = jax.jit(transform.init)(self.params)
        self.step = make_step(config, find_loss(loss, loss_args), transform)
        self.clock = CLOCKS[clock]

    def seconds(self, batch: dict[str, np.ndarray]) -> float:
        """Of one update, its batch on the host before and its parameters ready after."""
        began = self.clock()
        arrays = {name: jnp.array(array) for name, array in batch.items()}
        self.params, self.opt_state, _ = self.step(self.params, self.opt_state, arrays)
        jax.block_until_ready(self.params)
        return self.clock() - began


def in_turn(repeats: int, *calls: Callable[[], float]) -> list[float]:
    """Medians of seconds, the calls made in turn after each was made once."""
    for call in calls:
        call()
    found = [[call() for call in calls] for _ in range(repeats)]
    return [statistics.median(column) for column in zip(*found)]


def product_rate(clock: Callable[[], float]) -> Callable[[], float]:
    """Seconds of a 2048 x 2048 float32 product by XLA."""
    a = jnp.ones((2048, 2048), jnp.float32)
    product = jax.jit(lambda a: a @ a)

    def seconds():
        began = clock()
        product(a).block_until_ready()
        return clock() - began

    seconds()
    return seconds


def start_peer(job: dict) -> tuple[subprocess.Popen, dict] | None:
    """PyTorch's process and what it says of itself; None where it is not installed. RuntimeError: it failed otherwise."""
    env = os.environ | {"OMP_NUM_THREADS": str(len(os.sched_getaffinity(0)))}
    command = [sys.executable, str(PEER), json.dumps(job)]
    peer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
    about = peer.stdout.readline()
    if about:
        return peer, json.loads(about)
    if peer.wait() == NOT_INSTALLED:
        return None
    raise _ended(peer)


def _ended(peer: subprocess.Popen) -> RuntimeError:
    return RuntimeError(f"the PyTorch peer ended with exit code {peer.wait()}; what it said is above")


def compare_torch(size: str, repeats: int, clock: str) -> dict | None:
    """Our step against PyTorch's, in turn; None where PyTorch is not installed."""
    config = dataclasses.replace(SIZES[size], dtype="float32", scan=False)  # layer by layer, as PyTorch's
    ours = Trainer(config, clock)
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (ROWS // MICRO, MICRO, TOKENS), dtype=np.int32)
    batch = {"tokens": tokens, "mask": np.ones(tokens.shape, np.float32)}
    with tempfile.TemporaryDirectory() as directory:
        hf_weights.save(directory, config, ours.params)
        started = start_peer({"model": directory, "rows": ROWS, "tokens": TOKENS, "clock": clock})
        if started is None:
            return None
        peer, about = started

        def ask(word):
            peer.stdin.write(word + "\n")
            peer.stdin.flush()
            if reply := peer.stdout.readline():
                return float(reply)
            raise _ended(peer)

        rate = product_rate(CLOCKS[clock])
        seconds, peer_seconds, product, peer_product = in_turn(
            repeats, lambda: ours.seconds(batch), lambda: ask("step"), rate, lambda: ask("rate")
        )
        peer.stdin.close()
        peer.wait()
    flops = model_flops(config, ROWS * TOKENS, ROWS * (TOKENS - 1), (TOKENS + 1) / 2)
    rate, peer_rate = 2 * 2048**3 / product, 2 * 2048**3 / peer_product
    return {
        "ratio": peer_seconds / seconds,
        "seconds": seconds,
        "torch_seconds": peer_seconds,
        "tokens_per_second": ROWS * TOKENS / seconds,
        "torch_tokens_per_second": ROWS * TOKENS / peer_seconds,
        "xla_matrix_flops": rate,
        "torch_matrix_flops": peer_rate,
        "floor_seconds": flops / rate,
        "of_floor": flops / rate / seconds,
        "rows": ROWS,
        "micro": MICRO,
        "tokens": TOKENS,
        **about,
    }


def layouts(config, examples, loss, loss_args, batch: int, packs: dict[str, dict], repeats: int, clock: str):
    """Seconds and token counts of one update on the same examples in several layouts, in turn."""
    trainers = {pack: Trainer(config, clock, loss, **loss_args) for pack in packs}
    sets = {pack: Batches(examples, batch=batch, seed=0, pad_id=0, **fields) for pack, fields in packs.items()}
    batches = {pack: found.at(0) for pack, found in sets.items()}
    calls = [lambda pack=pack: trainers[pack].seconds(batches[pack]) for pack in packs]
    medians = in_turn(repeats, *calls)
    return {pack: {"seconds": s} | sets[pack].counts(0) for (pack, s) in zip(packs, medians)}


def told(found: dict[str, dict], best: str) -> dict:
    """A row's numbers: the best layout's own, and the others' by name."""
    row = {}
    for name, numbers in found.items():
        prefix = "" if name == best else f"{name}_"
        row[f"{prefix}seconds"] = numbers["seconds"]
        row[f"{prefix}trained_tokens_per_second"] = numbers["trained"] / numbers["seconds"]
        row[f"{prefix}real_share"] = numbers["real"] / numbers["computed"]
        row[f"{prefix}computed_per_trained"] = numbers["computed"] / numbers["trained"]
    return row


def compare_packing(size: str, repeats: int, clock: str) -> dict:
    """64 of GSM8K's rows, padded to the longest of 192 as the trainer does without packing, and packed."""
    config, batch = SIZES[size], 64
    longest = max(map(sum, work.GSM8K_LENGTHS))
    packs = {"padded": {}, "packed": {"pack": "segments", "pack_length": longest}}
    found = layouts(config, work.solutions(config.vocab_size), "sft", {}, batch, packs, repeats, clock)
    row = told(found, "packed")
    ratio = row["trained_tokens_per_second"] / row["padded_trained_tokens_per_second"]
    return {"ratio": ratio, **row, "examples": batch, "longest": longest}


def compare_tree(size: str, repeats: int, clock: str) -> dict:
    """Fork pairs of two problems, three pits each, four chosen a pit: plain rows, packed rows, trees."""
    config, problems = SIZES[size], 2
    pairs = work.step_pairs(problems, config.vocab_size)
    packs = {
        "plain": {},
        "segments": {"pack": "segments", "pack_length": 512},
        "tree": {"pack": "tree", "pack_length": 1024},
    }
    found = layouts(config, pairs, "dpo", {"beta": 0.1}, len(pairs) // 2, packs, repeats, clock)
    row = told(found, "tree")
    row |= {
        "pairs": len(pairs) // 2,
        "problems": problems,
        "pits_per_problem": work.WRONG,
        "chosen_per_pit": work.CHOSEN,
    }
    row |= {"prompt_tokens": work.PROMPT, "steps": work.STEPS, "step_tokens": work.STEP}
    return {
        "ratio": row["plain_seconds"] / row["seconds"],
        "ratio_to_segments": row["segments_seconds"] / row["seconds"],
    } | row


def compare_chunked(size: str, repeats: int, clock: str) -> dict:
    """The gradient of the SFT loss with respect to all parameters at a large vocabulary: memory and seconds."""
    whole = dataclasses.replace(SIZES[size], vocab_size=LARGE_VOCABULARY, layers=1)
    rows, found, calls = 8, {}, []
    tokens = np.random.default_rng(0).integers(0, LARGE_VOCABULARY, (rows, TOKENS), dtype=np.int32)
    params = decoder.init(whole, jax.random.key(0))
    for name, config in (("whole", whole), ("chunked", dataclasses.replace(whole, vocab_chunk=CHUNK))):
        gradient = jax.jit(jax.grad(lambda params, c=config: -decoder.token_logprobs(c, params, tokens).sum()))
        compiled = gradient.lower(params).compile()
        found[name] = compiled.memory_analysis().temp_size_in_bytes  # on CPU its peak_memory_in_bytes leaves these out

        def seconds(compiled=compiled):
            began = CLOCKS[clock]()
            jax.block_until_ready(compiled(params))
            return CLOCKS[clock]() - began

        calls.append(seconds)
    whole_seconds, seconds = in_turn(repeats, *calls)
    return {
        "ratio": found["whole"] / found["chunked"],
        "bytes": found["chunked"],
        "whole_bytes": found["whole"],
        "logits_bytes": 4 * rows * TOKENS * LARGE_VOCABULARY,
        "seconds": seconds,
        "whole_seconds": whole_seconds,
        "vocabulary": LARGE_VOCABULARY,
        "chunk": CHUNK,
        "rows": rows,
        "tokens": TOKENS,
        "layers": 1,
    }


def environment(repeats: int) -> dict:
    """What every row carries: where and when it was measured."""
    device = jax.devices()[0]
    peak = PEAK_FLOPS.get(device.device_kind)
    return {
        "repeats": repeats,
        "device": device.device_kind,
        "cores": len(os.sched_getaffinity(0)),
        "peak_bytes": peak_bytes(),
        "jax": jax.__version__,
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
    } | ({"peak_flops": peak} if peak else {})


def words(known):
    """A parser of comma-separated words of a set."""

    def parse(text):
        chosen = text.split(",")
        if unknown := set(chosen) - set(known):
            raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: known are {', '.join(known)}")
        return chosen

    return parse


def main(argv=None) -> list[dict]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comparisons", type=words(COMPARISONS), default=list(COMPARISONS))
    parser.add_argument("--sizes", type=words(SIZES), default=["small"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    run = {"torch": compare_torch, "packing": compare_packing, "tree": compare_tree, "chunked": compare_chunked}
    rows = []
    for comparison in options.comparisons:
        for size in options.sizes if comparison == "torch" else options.sizes[:1]:
            found = run[comparison](size, options.repeats, options.clock)
            if found is None:
                print(f"{comparison:8} {size:8} not installed: pip install -e '.[bench]'", flush=True)
                continue
            rows.append(
                {"comparison": comparison, "size": size, "clock": options.clock} | found | environment(options.repeats)
            )
            shown = {k: v for k, v in found.items() if (isinstance(v, int | float) and "second" in k) or "byte" in k}
            numbers = "  ".join(f"{name} {value:.4g}" for name, value in shown.items())
            print(f"{comparison:8} {size:8} ratio {found['ratio']:.2f}  {numbers}", flush=True)
            if options.json:
                options.json.parent.mkdir(parents=True, exist_ok=True)
                options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return rows


if __name__ == "__main__":
    machine.restart_with_huge_pages()
    main()
