"""Stage `values`: Monte Carlo values of the step prefixes of chosen responses (paper section 4)."""

import collections
import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from experiments.artifacts import read_problems, read_responses, write_jsonl, write_responses, write_values
from experiments.stages.base import load_sampler
from experiments.stages.credit import prompt_values
from experiments.stages.sampling import sampler_settings
from synthrl_jax import grading, pod, rollouts
from synthrl_jax.credit import early_stop
from synthrl_jax.credit.example import Response, StepValues
from synthrl_jax.credit.pairs import stable_key
from synthrl_jax.credit.steps import step_spans
from synthrl_jax.rollouts import Completion, Fork, Root

PART = 20_000  # completions graded at a time
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
    """Writes responses.jsonl (the chosen ones), values.jsonl and summary.jsonl.

    settings.early_stop: "" draws `rollouts` for each step; "pit" or "advantage" looks after `looks` rollouts, and after that
    draws more, up to `rollouts`, only for the steps of which that question is still open (`credit.early_stop`).
    """
    policy, problems = load_sampler(inputs["sft"], settings), {p.id: p for p in read_problems(inputs["data"])}
    tokenizer = policy.tokenizer
    responses = read_responses(inputs["grade"] / "responses.jsonl")
    negatives = choose(responses, ("wrong",), settings["negatives"], seed)
    selected = read_responses(inputs["positives"] / "responses.jsonl")
    positives = choose(selected, ("correct",), settings["positives"], seed)
    chosen = negatives + positives
    spans = {r.id: step_spans(r.tokens, tokenizer, r.prompt_len, settings["delimiters"]) for r in chosen}
    k, budget = settings.get("k", 1), settings["rollouts"]
    rounds = [budget]
    if settings.get("early_stop"):
        rounds = early_stop.rounds_of(settings["looks"], budget, k, settings["early_stop"])
        start = prompt_values(responses, k)
    limits = settings["max_tokens"]
    forks = {r.id: root_of(r, np.asarray(spans[r.id]), rounds[0], limits) for r in chosen}
    by_id, drawn = {r.id: r for r in chosen}, {r.id: [] for r in chosen}
    outcomes: collections.Counter = collections.Counter()
    rescued: dict[tuple[str, int], set] = {}
    tokens = 0

    def grade(completions):
        rows = []
        for completion in completions:
            response = by_id[completion.root_id]
            text = [*response.tokens[response.prompt_len : completion.fork], *completion.tokens]
            rows.append((tokenizer.decode(text), problems[response.problem_id].answer, settings["grading"]))
        return grading.grade_many(rows)

    for number, end in enumerate(rounds):
        # a round's rollouts are what the next indices would have been without early stopping
        store = out / ("completions" if number == 0 else f"completions_{number}")
        rollouts.sample_to_store(
            store,
            policy,
            [root for root in forks.values() if root.forks],
            sampler_settings(policy, settings),
            seed=seed,
            shard_roots=settings["shard_roots"],
            label=label,
        )
        for part in in_parts(rollouts.read_store(store), PART):
            # of a pod each process grades its share
            names = [f"{c.root_id} {c.fork} {c.index}" for c in part]
            verdicts = pod.shared(names, lambda places, part=part: grade([part[i] for i in places]), "grading")
            for completion, verdict in zip(part, verdicts):
                drawn[completion.root_id].append((slim(completion, verdict.outcome, rescued), verdict.outcome))
                outcomes[verdict.outcome] += 1
                tokens += len(completion.tokens)
        counted = []
        for response in chosen:
            graded = sorted(drawn[response.id], key=lambda row: (row[0].fork, row[0].index))
            counted.append(step_values(response, spans[response.id], graded, budget))
        if end == budget:
            break
        for response, found in zip(chosen, counted):
            value = start.get(response.problem_id, float("nan"))
            more = early_stop.open_steps(
                found.successes, found.attempts, k, budget, settings["early_stop"], value, settings["level"]
            )
            ends = {int(end) for end in found.spans[more, 1]}
            wanted = rounds[number + 1] - end
            again = [dataclasses.replace(f, first=end) for f in forks[response.id].forks if f.position in ends]
            forks[response.id] = dataclasses.replace(forks[response.id], forks=tuple(again), n=wanted)
    write_responses(out / "responses.jsonl", chosen)
    write_values(out / "values.jsonl", counted)
    summary = {"responses": len(chosen), "wrong": len(negatives), "rollouts": outcomes.total(), **outcomes}
    write_jsonl(out / "summary.jsonl", [summary | {"tokens": tokens}])


def in_parts(items: Iterable, size: int) -> Iterator[list]:
    """Lists of `size` items, the last one of what is left."""
    items = iter(items)
    while part := list(itertools.islice(items, size)):
        yield part


def slim(completion: Completion, outcome: str, rescued: dict[tuple[str, int], set]) -> Completion:
    """The completion as it is kept for counting: with its tokens only where it is among the first RESCUES distinct correct ones
    of its fork (`rescued`, which this fills). The tokens of all rollouts of a large phase fit in no host's memory."""
    if outcome == "correct":
        found = rescued.setdefault((completion.root_id, completion.fork), set())
        if len(found) < RESCUES:
            found.add(tuple(completion.tokens))
            return dataclasses.replace(completion, logprobs=())
    return dataclasses.replace(completion, tokens=(), logprobs=())


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
