"""The shipped base model: what the package says it is."""

import json
from pathlib import Path

import jax
import numpy as np

import synthrl_jax
from synthrl_jax import policy as policies
from synthrl_jax.policy import scoring
from synthrl_jax.problems import arithmetic, language

ASSET = Path(synthrl_jax.__path__[0]) / "assets" / "arithmetic_base"
MADE = json.loads((ASSET / "made_by.json").read_text())


def test_the_weights_are_those_that_the_command_made():
    policy = policies.load_pretrained("arithmetic_base")
    assert policies.checksum(policy.params) == MADE["checksum"]
    assert sum(x.size for x in jax.tree.leaves(policy.params)) == MADE["parameters"]
    assert 0.2e6 <= MADE["parameters"] <= 2e6
    assert sum(path.stat().st_size for path in ASSET.glob("*.safetensors")) <= 12 * 2**20


def test_the_config_that_made_it_is_the_shipped_one():
    from configs import arithmetic_base

    assert json.loads(arithmetic_base.get_config().to_json()) == MADE["config"]
    log = [json.loads(line) for line in (ASSET / "training_log.jsonl").read_text().splitlines()]
    assert log[-1]["update"] == sum(stage["updates"] for stage in MADE["config"]["stages"].values())


def test_the_tokenizer_has_at_most_512_pieces_and_keeps_the_language_short():
    tokenizer = policies.load_pretrained("arithmetic_base").tokenizer
    assert tokenizer.vocab_size <= 512
    assert all(len(tokenizer.encode(piece)) == 1 for piece in language.pieces())
    lengths = []
    for i in range(300):
        problem = arithmetic.make("train", i)
        text = f"{problem.question}\n{problem.solution}"
        assert tokenizer.decode(tokenizer.encode(text)) == text
        lengths.append(len(tokenizer.encode(text)))
    assert max(lengths) <= 200
    for text in ("  two  blanks\n\n\ttab", "héllo 日本 1,234.5\r\n", "Ünïcode – dash"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_it_reads_and_calculates_and_cannot_yet_plan_long_solutions():
    policy = policies.load_pretrained("arithmetic_base")

    def first_line_nll(steps):
        """Mean -log p of the digits of the values in the first line of clean solutions."""
        losses = []
        for i in range(40):
            problem = arithmetic.make("validation", i, seed=9, difficulty=arithmetic.Difficulty(steps=steps))
            prompt = policy.tokenizer.encode(problem.question + "\n")
            line = policy.tokenizer.encode(problem.solution.split("\n")[0])
            tokens = np.full((1, 160), policy.tokenizer.pad_id, np.int32)
            tokens[0, : len(prompt) + len(line)] = prompt + line
            scores = scoring.score(policy.config, policy.params, tokens)[0, len(prompt) : len(prompt) + len(line)]
            digits = np.array([piece.isdigit() for piece in policy.tokenizer.pieces(line)])
            losses.append(-scores[digits].mean())
        return float(np.mean(losses))

    assert first_line_nll(1) < 0.3 < np.log(10)  # values are looked up and sums are known
