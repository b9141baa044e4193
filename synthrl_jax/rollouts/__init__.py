"""Sampling: `sample(policy, roots, settings, seed)` continues each root at its forks."""

import dataclasses
import importlib
from collections.abc import Iterable, Iterator, Sequence

from synthrl_jax.rollouts.processes import sample_shares
from synthrl_jax.rollouts.root import Completion, Fork, Root, Settings, Workload, tasks
from synthrl_jax.rollouts.store import StoreMismatch, read_store, sample_to_store

__all__ = [
    "Completion",
    "Fork",
    "Root",
    "Settings",
    "StoreMismatch",
    "Workload",
    "read_store",
    "sample",
    "sample_everywhere",
    "sample_to_store",
    "workload_of",
]


def sample(
    policy, roots: Iterable[Root], settings: Settings, seed: int, workload: Workload | None = None
) -> Iterator[Completion]:
    """Completions of every fork of every root, as batches finish; each depends on (seed, root, fork, index) alone.

    policy: what `policy.load_pretrained` gives. workload: `workload_of` all the batches of which these roots are one, so
    that they run the same programs. ValueError: two roots of one id, a root beyond the model's positions, a seed that is
    not in 0..2^32 - 1.
    """
    sampler = _sampler(settings)
    if not settings.prompt_logprobs:
        return sampler.sample(policy, roots, settings, seed, workload)
    return _with_prompt_logprobs(sampler, policy, list(roots), settings, seed, workload)


def sample_everywhere(policy, roots: Sequence[Root], settings: Settings, seed: int) -> list[Completion]:
    """What `sample` gives, on every process of a pod, each having drawn a share where the policy fits its devices."""
    return sample_shares(lambda part: sample(policy, part, settings, seed), policy, roots)


def workload_of(policy, batches: Iterable[Iterable[Root]], settings: Settings) -> Workload:
    """What the batches of a workload share, for `sample`: the same programs, and weights laid out once."""
    return Workload(_sampler(settings).needs_of(policy, batches, settings))


def _sampler(settings: Settings):
    return importlib.import_module(f"{__name__}.{settings.sampler}_sampler")


def _with_prompt_logprobs(sampler, policy, roots, settings, seed, workload):
    from synthrl_jax.policy import scoring

    tasks(roots, settings, policy.config.max_positions, policy.config.vocab_size)  # refused before anything is scored
    asked = [root for root in roots if root.forks]
    prefixes = [root.tokens[: max(fork.position for fork in root.forks)] for root in asked]
    scored = scoring.score_shared(policy.config, policy.params, [(prefix, ()) for prefix in prefixes])
    by_root = {root.id: scores.tolist() for root, (scores, _) in zip(asked, scored)}
    for completion in sampler.sample(policy, roots, settings, seed, workload):
        prompt = tuple(by_root[completion.root_id][: completion.fork])
        yield dataclasses.replace(completion, prompt_logprobs=prompt)
