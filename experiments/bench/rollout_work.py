"""What the rollout bench samples: models of random weights, and workloads whose lengths follow GSM8K's.

Random weights never stop, so each continuation's length is drawn beforehand from the lengths of GSM8K's training
solutions and forced; no sampler plans by it.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np

from synthrl_jax.policy.decoder import DecoderConfig
from synthrl_jax.rollouts import Fork, Root

# every twentieth of GSM8K's 7,473 training rows, in tokens of a 4,096-piece BPE trained on them
QUESTION_TOKENS = (14, 35, 39, 42, 45, 48, 51, 53, 56, 59, 62, 64, 67, 71, 75, 79, 84, 91, 101, 115, 274)
SOLUTION_TOKENS = (31, 58, 66, 73, 80, 86, 92, 97, 103, 109, 115, 123, 130, 138, 147, 157, 169, 182, 203, 237, 477)
LENGTHS = "GSM8K training solutions"
MAX_TOKENS = 320
STEPS = 9  # of a valued response: a fork after each but the last, whose value is its verdict
NEVER_STOPS = 0.1  # share of greedy answers that run to the limit

LLAMA = {"norm_eps": 1e-5, "rope_theta": 10_000.0, "max_positions": 2048, "tied": False}
SIZES = {
    "tiny": DecoderConfig(vocab_size=502, width=64, layers=4, heads=4, **LLAMA | {"tied": True}),
    "small": DecoderConfig(vocab_size=4096, width=256, layers=6, heads=8, kv_heads=4, mlp_width=688, **LLAMA),
    "medium": DecoderConfig(vocab_size=4096, width=768, layers=12, heads=12, mlp_width=2048, **LLAMA),
    "large": DecoderConfig(
        vocab_size=32_000, width=2048, layers=16, heads=16, mlp_width=5632, dtype="bfloat16", **LLAMA
    ),
    "llama2_7b": DecoderConfig(
        vocab_size=32_000, width=4096, layers=32, heads=32, mlp_width=11_008, dtype="bfloat16", **LLAMA
    ),
}


@dataclasses.dataclass(frozen=True)
class Workload:
    """Roots whose forks carry forced lengths; `scale` shrinks all lengths for the size `tiny`."""

    roots: list[Root]
    max_tokens: int
    temperature: float

    def requests(self) -> list[tuple[list[int], int]]:
        """(prefix, forced length) of every continuation, for samplers that know no roots; the longest prefix first."""
        found = [
            (list(root.tokens[: fork.position]), length)
            for root in self.roots
            for fork in root.forks
            for length in fork.lengths
        ]
        return sorted(found, key=lambda request: -len(request[0]))

    def tokens(self) -> int:
        """Generated tokens."""
        return sum(length for _, length in self.requests())

    def one_token(self) -> "Workload":
        """The same with one token a continuation: what the prefills cost."""

        def cut(root):
            forks = [dataclasses.replace(fork, lengths=(1,) * len(fork.lengths)) for fork in root.forks]
            return dataclasses.replace(root, forks=forks)

        return dataclasses.replace(self, roots=[cut(root) for root in self.roots])


def row_bytes(config: DecoderConfig) -> int:
    """Bytes of keys and values of one token."""
    return 2 * config.layers * config.kv_heads * config.head_dim * jnp.dtype(config.dtype).itemsize


class Draw:
    """Lengths from quantiles, scaled; at most the limit."""

    def __init__(self, seed: int, scale: float):
        self.rng, self.scale = np.random.default_rng(seed), scale

    def lengths(self, quantiles: Sequence[int], n: int, share: float = 1.0, most: int = 10**9) -> list[int]:
        at = self.rng.random(n) * (len(quantiles) - 1)
        drawn = np.interp(at, np.arange(len(quantiles)), quantiles) * self.scale * share
        return np.clip(drawn.round().astype(int), 4, most).tolist()

    def tokens(self, n: int, vocab: int) -> np.ndarray:
        return self.rng.integers(4, vocab, n)


def prompts(draw: Draw, vocab: int, count: int, n: int, limit: int, never: float = 0.0) -> list[Root]:
    """Plain sampling: `count` prompts, n continuations each."""
    roots = []
    for i, length in enumerate(draw.lengths(QUESTION_TOKENS, count)):
        lengths = draw.lengths(SOLUTION_TOKENS, n, most=limit)
        lengths = tuple(limit if draw.rng.random() < never else length for length in lengths)
        roots.append(Root(f"prompt {i}", draw.tokens(length, vocab), (Fork(length, lengths=lengths),), n=n))
    return roots


def responses(draw: Draw, vocab: int, count: int, n: int, limit: int) -> list[Root]:
    """Monte Carlo values: responses forked after their steps; a rollout is as long as what is left of a solution."""
    roots = []
    for i, prompt in enumerate(draw.lengths(QUESTION_TOKENS, count)):
        [response] = draw.lengths(SOLUTION_TOKENS, 1, most=limit)
        response = max(response, 2 * STEPS)
        forks = []
        for step in range(1, STEPS):
            done = response * step // STEPS
            lengths = draw.lengths(SOLUTION_TOKENS, n, 1 - step / STEPS, most=limit - done)
            forks.append(Fork(prompt + done, max_tokens=limit - done, lengths=tuple(lengths)))
        roots.append(Root(f"response {i}", draw.tokens(prompt + response, vocab), forks, n=n))
    return roots


WORKLOADS: dict[str, Callable[[Draw, int, int], list[Root]]] = {
    "plain": lambda draw, vocab, limit: prompts(draw, vocab, 64, 1, limit),
    "groups": lambda draw, vocab, limit: prompts(draw, vocab, 16, 16, limit),
    "values": lambda draw, vocab, limit: responses(draw, vocab, 32, 8, limit),
    "greedy": lambda draw, vocab, limit: prompts(draw, vocab, 256, 1, limit, NEVER_STOPS),
}


def workload(name: str, size: str, seed: int = 0) -> Workload:
    """A workload for a size; `tiny` has lengths of the embedded arithmetic task, about 0.43 of GSM8K's."""
    scale = 0.43 if size == "tiny" else 1.0
    limit = 112 if size == "tiny" else MAX_TOKENS
    draw = Draw(seed, scale)
    roots = WORKLOADS[name](draw, SIZES[size].vocab_size, limit)
    return Workload(roots, limit, 0.0 if name == "greedy" else 1.0)
