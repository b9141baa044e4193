"""Stages `sample` and `grade`: the policy's own responses, and which of them are right."""

import collections
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.artifacts import read_problems, write_jsonl, write_responses
from experiments.fields import DRAWING
from experiments.stages.base import load_sampler, load_tokenizer_of
from experiments.stages.prompts import prompt_tokens
from synthrl_jax import grading, pod, rollouts
from synthrl_jax.credit.example import OUTCOMES, Response
from synthrl_jax.problems.problem import Problem
from synthrl_jax.rollouts import Completion, Root, Settings


def sampler_settings(policy, settings: dict) -> Settings:
    """The sampler's settings from a config's, stopping at the policy's end of sequence (and the config's stop strings)."""
    fields = {k: v for k, v in settings.items() if k in DRAWING}
    return Settings(**fields, stop_ids=(policy.tokenizer.eos_id,))


def prompt_roots(tokenizer, problems: Sequence[Problem], template: str, n: int) -> list[Root]:
    """One root a problem: its prompt, forked at the end."""
    prompts = [prompt_tokens(problem, tokenizer, template) for problem in problems]
    return [Root(id=p.id, tokens=tokens, forks=(len(tokens),), n=n) for p, tokens in zip(problems, prompts)]


def sample(settings: dict, inputs: dict[str, Path], out: Path, seed: int, label: str) -> None:
    """n responses to each training problem; shards of completions."""
    policy, problems = load_sampler(inputs["sft"], settings), read_problems(inputs["data"])
    roots = prompt_roots(policy.tokenizer, problems, settings["prompt"], settings["n"])
    rollouts.sample_to_store(
        out / "completions",
        policy,
        roots,
        sampler_settings(policy, settings),
        seed=seed,
        shard_roots=settings["shard_roots"],
        label=label,
    )


def responses_of(
    problems: Sequence[Problem], roots: Sequence[Root], completions: Sequence[Completion], tokenizer, kind: str
):
    """Completions of prompts as graded responses, in order of (problem, index), with their verdicts."""
    by_id, roots_by_id = {p.id: p for p in problems}, {root.id: root for root in roots}
    texts = [tokenizer.decode(completion.tokens) for completion in completions]
    golds = [by_id[completion.root_id].answer for completion in completions]
    names = [f"{completion.root_id}/{completion.index:03d}" for completion in completions]
    # of a pod each process grades its share
    verdicts = pod.shared(
        names, lambda places: grading.grade_many([(texts[i], golds[i], kind) for i in places]), "grading"
    )
    out = []
    for name, completion, verdict in zip(names, completions, verdicts):
        prompt = roots_by_id[completion.root_id].tokens
        tokens = np.array([*prompt, *completion.tokens], np.int32)
        out.append((Response(name, completion.root_id, tokens, len(prompt), verdict.outcome), verdict))
    return out


def grade(settings: dict, inputs: dict[str, Path], out: Path, seed: int, label: str) -> None:
    """Verdicts on all samples: responses.jsonl, verdicts.jsonl, and summary.jsonl with the four outcomes counted apart."""
    tokenizer, problems = load_tokenizer_of(inputs["sft"]), read_problems(inputs["data"])
    roots = prompt_roots(tokenizer, problems, settings["prompt"], 1)
    place = {problem.id: i for i, problem in enumerate(problems)}
    completions = rollouts.read_store(inputs["sample"] / "completions")
    completions = sorted(completions, key=lambda c: (place[c.root_id], c.index))
    graded = responses_of(problems, roots, completions, tokenizer, settings["grading"])
    write_responses(out / "responses.jsonl", [response for response, _ in graded])
    rows = [{"id": r.id, "outcome": v.outcome, "extracted": v.extracted, "reason": v.reason} for r, v in graded]
    write_jsonl(out / "verdicts.jsonl", rows)
    counts = collections.Counter(response.outcome for response, _ in graded)
    right = collections.Counter(response.problem_id for response, _ in graded if response.outcome == "correct")
    tokens = sum(len(completion.tokens) for completion in completions)
    summary = {outcome: counts[outcome] for outcome in OUTCOMES} | {"samples": len(graded), "tokens": tokens}
    summary |= {"problems": len(problems), "problems_with_a_right_answer": len(right)}
    summary["cut_off_by_length"] = sum(completion.finish == "length" for completion in completions)
    write_jsonl(out / "summary.jsonl", [summary])
