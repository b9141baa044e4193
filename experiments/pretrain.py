"""Make the base model of the embedded task again: `python -m experiments.pretrain --config=configs/arithmetic_base.py --out=DIR`.

Every batch is a function of (seed, update); a run that was stopped goes on from its last checkpoint in DIR/checkpoints.
"""

import argparse
import functools
import json
import random
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.cells import write_atomic
from experiments.settings import UsageError, parse_flags
from experiments.stages.evaluate import graded_samples
from synthrl_jax import policy as policies
from synthrl_jax.learning import optimizer
from synthrl_jax.learning.checkpoints import Checkpoints
from synthrl_jax.learning.optimizer import OptimizerSettings
from synthrl_jax.policy import decoder, hf_weights
from synthrl_jax.policy.checkpoint import Policy
from synthrl_jax.policy.tokenizer import Tokenizer, train_sentencepiece
from synthrl_jax.problems import arithmetic, drills, language
from synthrl_jax.problems.arithmetic import Difficulty
from synthrl_jax.problems.drills import Drill
from synthrl_jax.progress import Progress


def make_tokenizer(pieces: int):
    """The task's tokenizer: its names and marks as single pieces, the characters between them, and bytes for the rest."""
    texts = [f"{p.question}\n{p.solution}" for p in (arithmetic.make("pretrain", i) for i in range(300))]
    texts.append("0 1")  # a space on its own is no byte to SentencePiece: it must be a piece
    return train_sentencepiece(texts, pieces, language.pieces())


def encode(drill: Drill, tokenizer: Tokenizer) -> tuple[list[int], list[bool]]:
    """Tokens of a drill, and which of them count."""
    prompt, response = tokenizer.encode(drill.prompt), tokenizer.encode(drill.response)
    response += [tokenizer.eos_id] if drill.ends else []
    if drill.counted == "response":
        return prompt + response, [False] * len(prompt) + [True] * len(response)
    counted, inside = [], False
    for piece in tokenizer.pieces(response):
        counted.append(inside)  # the digits after `Name is `, and the line's end
        inside = piece.endswith(" is ") or (inside and piece.isdigit())
    return prompt + response, [False] * len(prompt) + counted


def draw_drill(rng: random.Random, index: int, shares: Sequence[float], styles: Sequence[float]) -> Drill:
    kind = rng.choices(("facts", "lookups", "problem"), shares)[0]
    if kind == "problem":
        return drills.short_problem(rng, index, styles)
    return drills.facts(rng) if kind == "facts" else drills.lookups(rng)


def batch_at(update: int, c, shares: Sequence[float], tokenizer: Tokenizer) -> np.ndarray:
    """int32 [4, batch, length]: tokens, segment ids (0: padding), positions, and whether a token counts."""
    out = np.zeros((4, c.batch, c.length), np.int32)
    out[0] = tokenizer.pad_id
    for row in range(c.batch):
        rng = random.Random(f"drills {c.seed} {update} {row}")
        end = segment = 0
        while True:
            segment += 1
            index = (update * c.batch + row) * 32 + segment
            tokens, counted = encode(draw_drill(rng, index, shares, c.styles), tokenizer)
            if end + len(tokens) > c.length:
                break
            place = slice(end, end + len(tokens))
            counted[0] = False  # a first token is predicted from nothing
            out[:, row, place] = tokens, [segment] * len(tokens), range(len(tokens)), counted
            end += len(tokens)
    return out


def make_update(config: decoder.DecoderConfig, transform: optax.GradientTransformation):
    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def update(params, opt_state, batch):
        tokens, segments, positions, counted = batch

        def loss(params):
            logprobs = decoder.token_logprobs(config, params, tokens, positions, segments)
            return -(logprobs * counted).sum() / counted.sum()

        value, grads = jax.value_and_grad(loss)(params)
        changes, opt_state = transform.update(grads, opt_state, params)
        return optax.apply_updates(params, changes), opt_state, value

    return update


def schedule(c) -> Iterator[tuple[int, Sequence[float]]]:
    """(update, shares) of the whole run."""
    update = 0
    for stage in ("first", "second"):
        for _ in range(c.stages[stage].updates):
            update += 1
            yield update, c.stages[stage].shares


def accuracies(policy: Policy) -> dict[str, float]:
    """Greedy accuracy by number of steps, on held-out problems."""
    settings = {"max_tokens": 112, "temperature": 0.0, "grading": "gsm8k_hash", "rows": 128}
    out = {}
    for steps in (1, 2, 3, 4, 5, 6):
        difficulty = Difficulty(steps=steps)
        problems = [arithmetic.make("validation", i, seed=1, difficulty=difficulty) for i in range(128)]
        groups = graded_samples(policy, problems, "{question}\n", settings, 1, 0)
        out[f"accuracy_{steps}_steps"] = float(np.mean([group[0][1].outcome == "correct" for group in groups]))
    return out


def pretrain(c, out: Path) -> list[dict]:
    """Pre-train by the config into `out`; returns the log's rows."""
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer(c.pieces)
    config = decoder.DecoderConfig(vocab_size=tokenizer.vocab_size, **c.decoder)
    total = sum(c.stages[stage].updates for stage in c.stages)
    transform = optimizer.make(OptimizerSettings(**c.optimizer), total)
    params = decoder.init(config, jax.random.key(c.seed))
    opt_state = transform.init(params)
    checkpoints, begun, log = Checkpoints(out / "checkpoints"), 0, []
    if found := checkpoints.restore({"params": params, "opt_state": opt_state}):
        arrays, extra = found
        params, opt_state, begun, log = arrays["params"], arrays["opt_state"], extra["update"], extra["log"]
    update_fn, losses = make_update(config, transform), []
    progress = Progress("pretrain", total, unit="updates", start=begun)
    for update, shares in schedule(c):
        if update <= begun:
            continue
        params, opt_state, loss = update_fn(params, opt_state, jnp.asarray(batch_at(update, c, shares, tokenizer)))
        losses.append(loss)
        progress.to(update)
        if update % c.log_every == 0 or update == total:
            row = {"update": update, "loss": float(np.mean(jax.device_get(losses)))}
            if update % (2 * c.log_every) == 0 or update == total:
                row |= accuracies(Policy(config, params, tokenizer))
            log.append({name: round(value, 4) for name, value in row.items()})
            print(json.dumps(log[-1]), flush=True)
            checkpoints.save(update, {"params": params, "opt_state": opt_state}, {"update": update, "log": log})
            losses = []
    checkpoints.close()
    progress.close()
    hf_weights.save(out, config, params)
    tokenizer.save(str(out))
    write_atomic(out / "training_log.jsonl", "".join(json.dumps(row) + "\n" for row in log))
    counts = {"parameters": int(sum(x.size for x in jax.tree.leaves(params)))}
    made = {
        "checksum": policies.checksum(params),
        **counts,
        "config": json.loads(c.to_json()),
        "command": __doc__.split("`")[1],
    }
    write_atomic(out / "made_by.json", json.dumps(made, indent=1) + "\n")
    shutil.rmtree(out / "checkpoints")
    return log


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="the model's directory")
    parser.add_argument("--json", help="write the training log's rows, with the settings, to this file")
    try:
        args, config = parse_flags(parser, argv)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    log = pretrain(config, Path(args.out).resolve())
    if args.json:
        settings = {"seed": config.seed, "width": config.decoder.width, "layers": config.decoder.layers}
        write_atomic(Path(args.json), json.dumps([row | settings for row in log], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
