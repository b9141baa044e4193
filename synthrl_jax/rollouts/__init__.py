"""Sampling: `sample(policy, roots, settings, seed)` continues each root at its forks."""

import dataclasses
import importlib
from collections.abc import Iterable, Iterator

from synthrl_jax.rollouts.root import Completion, Fork, Root, Settings
from synthrl_jax.rollouts.store import StoreMismatch, read_store, sample_to_store

__all__ = ["Completion", "Fork", "Root", "Settings", "StoreMismatch", "read_store", "sample", "sample_to_store"]


def sample(policy, roots: Iterable[Root], settings: Settings, seed: int) -> Iterator[Completion]:
    """Completions of every fork of every root, as batches finish; each depends on (seed, root, fork, index) alone.

    policy: what `policy.load_pretrained` gives. Two roots of one id, or a root beyond the model's positions: ValueError.
    """
    sampler = importlib.import_module(f"{__name__}.{settings.sampler}_sampler")
    if not settings.prompt_logprobs:
        return sampler.sample(policy, roots, settings, seed)
    return _with_prompt_logprobs(sampler, policy, list(roots), settings, seed)


def _with_prompt_logprobs(sampler, policy, roots, settings, seed):
    from synthrl_jax.policy import scoring

    scored = scoring.score_shared(policy.config, policy.params, [(root.tokens, ()) for root in roots])
    by_root = {root.id: scores.tolist() for root, (scores, _) in zip(roots, scored)}
    for completion in sampler.sample(policy, roots, settings, seed):
        prompt = tuple(by_root[completion.root_id][: completion.fork])
        yield dataclasses.replace(completion, prompt_logprobs=prompt)
