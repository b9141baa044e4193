"""Stage `values`: Monte Carlo values of the step prefixes of chosen responses (paper section 4)."""

import collections
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.artifacts import read_problems, read_responses, write_jsonl, write_responses, write_values
from experiments.stages.base import load_policy
from experiments.stages.sampling import sampler_settings
from synthrl_jax import grading, rollouts
from synthrl_jax.credit.example import Response, StepValues
from synthrl_jax.credit.pairs import stable_key
from synthrl_jax.credit.steps import step_spans
from synthrl_jax.rollouts import Completion, Fork, Root

RESCUES = 4  # correct completions kept per fork: fork pairs are made of them


def choose(responses: Sequence[Response], outcomes: Sequence[str], cap: int, seed: int) -> list[Response]:
    """At most `cap` distinct responses of each problem with one of the outcomes, by a stable key."""
    groups: dict[str, dict[bytes, Response]] = {}
    for response in responses:
        if response.outcome in outcomes:
            groups.setdefault(response.problem_id, {}).setdefault(response.tokens.tobytes(), response)
    chosen = []
    for group in groups.values():
        chosen += sorted(group.values(), key=lambda r: (stable_key(seed, "values", r.id), r.id))[:cap]
    return chosen


def root_of(response: Response, spans: np.ndarray, n: int, max_tokens: int) -> Root:
    """The response with a fork after each step but the last; a fork may be as long as the response's limit leaves."""
    forks = [Fork(int(end), max_tokens=max_tokens - (int(end) - response.prompt_len)) for _, end in spans[:-1]]
    return Root(id=response.id, tokens=response.tokens, forks=tuple(f for f in forks if f.max_tokens > 0), n=n)


def values(settings: dict, inputs: dict[str, Path], out: Path, seed: int, label: str) -> None:
    """Writes responses.jsonl (the chosen ones), values.jsonl and summary.jsonl."""
    policy, problems = load_policy(inputs["sft"]), {p.id: p for p in read_problems(inputs["data"])}
    tokenizer = policy.tokenizer
    responses = read_responses(inputs["grade"] / "responses.jsonl")
    negatives = choose(responses, ("wrong",), settings["negatives"], seed)
    selected = read_responses(inputs["positives"] / "responses.jsonl")
    positives = choose(selected, ("correct",), settings["positives"], seed)
    chosen = negatives + positives
    spans = {r.id: step_spans(r.tokens, tokenizer, r.prompt_len, settings["delimiters"]) for r in chosen}
    roots = [root_of(r, np.asarray(spans[r.id]), settings["rollouts"], settings["max_tokens"]) for r in chosen]
    store = out / "completions"
    rollouts.sample_to_store(
        store,
        policy,
        [root for root in roots if root.forks],
        sampler_settings(policy, settings),
        seed=seed,
        shard_roots=settings["shard_roots"],
        label=label,
    )
    completions = list(rollouts.read_store(store))
    by_id = {r.id: r for r in chosen}
    rows = []
    for completion in completions:
        response = by_id[completion.root_id]
        tokens = [*response.tokens[response.prompt_len : completion.fork], *completion.tokens]
        rows.append((tokenizer.decode(tokens), problems[response.problem_id].answer, settings["grading"]))
    outcomes = [verdict.outcome for verdict in grading.grade_many(rows)]
    counted = [
        step_values(r, spans[r.id], group, settings["rollouts"]) for r, group in _grouped(chosen, completions, outcomes)
    ]
    write_responses(out / "responses.jsonl", chosen)
    write_values(out / "values.jsonl", counted)
    counts = collections.Counter(outcomes)
    summary = {"responses": len(chosen), "wrong": len(negatives), "rollouts": len(completions), **counts}
    summary["tokens"] = sum(len(completion.tokens) for completion in completions)
    write_jsonl(out / "summary.jsonl", [summary])


def _grouped(responses, completions, outcomes):
    groups: dict[str, list[tuple[Completion, str]]] = {response.id: [] for response in responses}
    for completion, outcome in zip(completions, outcomes):
        groups[completion.root_id].append((completion, outcome))
    for response in responses:
        yield response, sorted(groups[response.id], key=lambda row: (row[0].fork, row[0].index))


def step_values(response: Response, spans, graded: Sequence[tuple[Completion, str]], n: int) -> StepValues:
    """Counts per step; grader errors are no attempts, and the last step's value is the response's own verdict."""
    spans = np.asarray(spans, np.int32).reshape(-1, 2)
    S = len(spans)
    successes, attempts = np.zeros(S, np.int32), np.zeros(S, np.int32)
    rescues: list[dict[bytes, np.ndarray]] = [{} for _ in range(S + 1)]
    step_of_end = {int(end): step for step, (_, end) in enumerate(spans)}
    for completion, outcome in graded:
        step = step_of_end[completion.fork]
        attempts[step] += outcome != "grader_error"
        if outcome == "correct":
            successes[step] += 1
            if len(rescues[step + 1]) < RESCUES:
                tokens = np.asarray(completion.tokens, np.int32)
                rescues[step + 1].setdefault(tokens.tobytes(), tokens)
    if S:
        successes[-1], attempts[-1] = n * (response.outcome == "correct"), n
    return StepValues(response.id, spans, successes, attempts, [tuple(found.values()) for found in rescues[:S]])
