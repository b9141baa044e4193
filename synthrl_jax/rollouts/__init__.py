"""Sampling: `sample(policy, roots, settings, seed)` continues each root at its forks."""

import dataclasses
import importlib
from collections.abc import Iterable, Iterator, Sequence

from synthrl_jax.rollouts.processes import sample_shares
from synthrl_jax.rollouts.root import Completion, Fork, Root, Settings
from synthrl_jax.rollouts.store import StoreMismatch, read_store, sample_to_store

__all__ = [
    "Completion",
    "Fork",
    "Root",
    "Settings",
    "StoreMismatch",
    "read_store",
    "sample",
    "sample_everywhere",
    "sample_to_store",
    "workload_needs",
]


def sample(policy, roots: Iterable[Root], settings: Settings, seed: int, needs=None) -> Iterator[Completion]:
    """Completions of every fork of every root, as batches finish; each depends on (seed, root, fork, index) alone.

    policy: what `policy.load_pretrained` gives. needs: `workload_needs` of a workload that these roots are a batch of, so
    that all its batches run the same programs. Two roots of one id, or a root beyond the model's positions: ValueError.
    """
    sampler = _sampler(settings)
    if not settings.prompt_logprobs:
        return sampler.sample(policy, roots, settings, seed, needs)
    return _with_prompt_logprobs(sampler, policy, list(roots), settings, seed, needs)


def sample_everywhere(policy, roots: Sequence[Root], settings: Settings, seed: int) -> list[Completion]:
    """What `sample` gives, on every process of a pod, each having drawn a share where the policy fits its devices."""
    return sample_shares(lambda part: sample(policy, part, settings, seed), policy, roots)


def workload_needs(policy, batches: Iterable[Iterable[Root]], settings: Settings):
    """What the batches of a workload need at the most; for `sample`."""
    return _sampler(settings).needs_of(policy, batches, settings)


def _sampler(settings: Settings):
    return importlib.import_module(f"{__name__}.{settings.sampler}_sampler")


def _with_prompt_logprobs(sampler, policy, roots, settings, seed, needs):
    from synthrl_jax.policy import scoring

    asked = [root for root in roots if root.forks]
    prefixes = [root.tokens[: max(fork.position for fork in root.forks)] for root in asked]
    scored = scoring.score_shared(policy.config, policy.params, [(prefix, ()) for prefix in prefixes])
    by_root = {root.id: scores.tolist() for root, (scores, _) in zip(asked, scored)}
    for completion in sampler.sample(policy, roots, settings, seed, needs):
        prompt = tuple(by_root[completion.root_id][: completion.fork])
        yield dataclasses.replace(completion, prompt_logprobs=prompt)
