"""Stage `values`: Monte Carlo values of the step prefixes of chosen responses (paper section 4)."""

import collections
import dataclasses
import itertools
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
    forks = tuple(fork for fork in forks if fork.max_tokens > 0)
    return Root(id=response.id, tokens=response.tokens, forks=forks, n=n, text=response.prompt_len)


def values(settings: dict, inputs: dict[str, Path], out: Path, seed: int, label: str) -> None:
    """Writes responses.jsonl (the chosen ones), values.jsonl and summary.jsonl.

    settings.early_stop: "" draws `rollouts` for each step; "pit" or "advantage" looks after `looks` rollouts, and after that
    draws more, up to `rollouts`, only for the steps of which that question is still open (`credit.early_stop`). With 0
    `rollouts` responses are chosen and cut into steps, of which none gets a value.
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
    by_id = {r.id: r for r in chosen}
    drawn: dict[str, dict[int, Tally]] = {r.id: {} for r in chosen}
    outcomes: collections.Counter = collections.Counter()
    tokens = 0

    def grade(completions):
        rows = []
        for completion in completions:
            response = by_id[completion.root_id]
            text = [*response.tokens[response.prompt_len : completion.fork], *completion.tokens]
            rows.append((tokenizer.decode(text), problems[response.problem_id].answer, settings["grading"]))
        return grading.grade_many(rows)

    counted = [step_values(response, spans[response.id], {}, 0) for response in chosen]
    for number, end in enumerate(rounds if budget else []):
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
        for tallies, seen, count in tallied(store, grade):
            for (root, fork), found in tallies.items():
                drawn[root].setdefault(fork, Tally()).add(found)
            outcomes += seen
            tokens += count
        counted = [step_values(response, spans[response.id], drawn[response.id], budget) for response in chosen]
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


@dataclasses.dataclass
class Tally:
    """What is kept of a fork's rollouts: counts, and the tokens of the first RESCUES distinct correct ones. The tokens of all
    rollouts of a large phase fit in no host's memory. Grader errors are no attempts."""

    successes: int = 0
    attempts: int = 0
    rescues: list[tuple[int, ...]] = dataclasses.field(default_factory=list)

    def see(self, completion: Completion, outcome: str) -> None:
        self.add(Tally(outcome == "correct", outcome != "grader_error", [completion.tokens] * (outcome == "correct")))

    def add(self, later: "Tally") -> None:
        """Rollouts of the same fork that come after these."""
        self.successes += later.successes
        self.attempts += later.attempts
        for tokens in later.rescues:
            if len(self.rescues) < RESCUES and tokens not in self.rescues:
                self.rescues.append(tokens)


def tally(completions: Sequence[Completion], outcomes: Sequence[str]) -> dict[tuple[str, int], Tally]:
    """Of each root and fork, the completions in order of their index."""
    found: dict[tuple[str, int], Tally] = {}
    for completion, outcome in zip(completions, outcomes, strict=True):
        found.setdefault((completion.root_id, completion.fork), Tally()).see(completion, outcome)
    return found


def tallied(store: Path, grade: Callable) -> Iterator[tuple[dict[tuple[str, int], Tally], collections.Counter, int]]:
    """(tallies, outcomes, tokens) of the completions of a store, part by part.

    Of a pod each process reads, grades and counts its own shards, PART at a time, and the counts go to all.
    """
    if pod.count() == 1:
        own = rollouts.read_store(store)
    else:
        own = rollouts.read_store(store, share=(pod.index(), pod.count()))
    parts = in_parts(own, PART)
    while True:
        part = next(parts, [])
        outcomes = [verdict.outcome for verdict in grade(part)]
        found = tally(part, outcomes), collections.Counter(outcomes), sum(len(c.tokens) for c in part)
        every = [found]
        if pod.count() > 1:
            pod.barrier("grading")  # the exchange would wait for ever, or half a minute, and not say for whom
            every = [pickle.loads(data) for data in pod.exchange(pickle.dumps(found))]
        if not any(seen for _, seen, _ in every):
            return
        yield from every


def in_parts(items: Iterable, size: int) -> Iterator[list]:
    """Lists of `size` items, the last one of what is left."""
    items = iter(items)
    while part := list(itertools.islice(items, size)):
        yield part


def step_values(response: Response, spans, forks: Mapping[int, Tally], n: int) -> StepValues:
    """Counts per step from the tallies by fork; the last step's value is the response's own verdict."""
    spans = np.asarray(spans, np.int32).reshape(-1, 2)
    S = len(spans)
    successes, attempts = np.zeros(S, np.int32), np.zeros(S, np.int32)
    rescues: list[tuple[np.ndarray, ...]] = [()] * (S + 1)
    step_of_end = {int(end): step for step, (_, end) in enumerate(spans)}
    for fork, found in forks.items():
        step = step_of_end[fork]
        successes[step], attempts[step] = found.successes, found.attempts
        rescues[step + 1] = tuple(np.asarray(tokens, np.int32) for tokens in found.rescues)
    if S:
        successes[-1], attempts[-1] = n * (response.outcome == "correct"), n
    return StepValues(response.id, spans, successes, attempts, rescues[:S])
