"""Stages `positives` and `credit`: RFT's selection; Q, A and pits; and the rows that methods learn from."""

import collections
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments import crediting
from experiments.artifacts import (
    read_problems,
    read_responses,
    read_values,
    write_credits,
    write_examples,
    write_jsonl,
    write_responses,
)
from experiments.stages.base import load_sampler
from synthrl_jax import pod
from synthrl_jax import policy as policies
from synthrl_jax.credit import assignment, pairs, pits, weighted
from synthrl_jax.credit import positives as selection
from synthrl_jax.credit.example import Response, StepValues
from synthrl_jax.credit.values import best_of_k_value
from synthrl_jax.policy.tokenizer import Tokenizer
from synthrl_jax.problems.oracle import Oracle, StepVerdict, first_wrong_step, losing_step
from synthrl_jax.problems.problem import Problem


def positives(settings: dict, inputs: dict[str, Path], out: Path, seed: int, label: str) -> None:
    """RFT's selection of the correct responses: distinct, diverse, at most `cap` of a problem."""
    responses = read_responses(inputs["grade"] / "responses.jsonl")
    correct = [response for response in responses if response.outcome == "correct"]
    groups: dict[str, list[Response]] = {}
    for response in correct:
        groups.setdefault(response.problem_id, []).append(response)
    kept = [settings["cap"], settings["min_distance"]]
    found = list(groups.values())
    # of a pod each process selects among its share of the problems
    picked = pod.shared(list(groups), lambda places: [selection.select(found[i], *kept) for i in places])
    chosen = [response for group in picked for response in group]
    write_responses(out / "responses.jsonl", chosen)
    distinct = len({(r.problem_id, r.completion.tobytes()) for r in correct})
    summary = {"correct": len(correct), "distinct": distinct, "chosen": len(chosen)}
    write_jsonl(out / "summary.jsonl", [summary | {"problems": len({r.problem_id for r in chosen})}])


def prompt_counts(responses: list[Response]) -> dict[str, tuple[int, int]]:
    """Successes and attempts of each problem in the sample stage; grader errors are no attempts."""
    attempts, successes = collections.Counter(), collections.Counter()
    for response in responses:
        attempts[response.problem_id] += response.outcome != "grader_error"
        successes[response.problem_id] += response.outcome == "correct"
    return {problem: (successes[problem], n) for problem, n in attempts.items()}


def prompt_values(responses: list[Response], k: int) -> dict[str, float]:
    """V(x) of each problem from the sample stage's counts, by the estimator of the steps; NaN below k attempts."""
    counts = prompt_counts(responses)
    return {p: float(best_of_k_value(c, n, k)) if n >= k else float("nan") for p, (c, n) in counts.items()}


def verdicts_of_steps(problem: Problem, response: Response, spans, tokenizer: Tokenizer) -> list[list[StepVerdict]]:
    """The oracle's verdicts on the lines of each step: one as a rule, none for an empty line, and none at all where the steps do
    not cut the text into its lines. ValueError for a problem of which no graph is known."""
    if "graph" not in problem.meta:
        raise ValueError(
            f"{problem.id}: the oracle needs a problem whose graph is known, as the source arithmetic makes"
        )
    verdicts = Oracle(problem).judge(tokenizer.decode(response.completion))
    texts = [tokenizer.decode(response.tokens[start:end]) for start, end in spans]
    ends = np.cumsum([sum(bool(line.strip()) for line in text.split("\n")) for text in texts])
    if not len(ends) or ends[-1] != len(verdicts):
        return [[] for _ in texts]
    return [verdicts[start:end] for start, end in zip([0, *ends[:-1]], ends)]


def oracle_pit(q, a, mask, *, steps: list[list[StepVerdict]]) -> int:
    """The step that holds the oracle's first wrong line; -1 where none is wrong or that step has no value."""
    wrong = next((i for i, lines in enumerate(steps) if any(line.wrong for line in lines)), -1)
    return wrong if wrong >= 0 and mask[wrong] else -1


def pit_rule(
    word: str, problem: Problem, response: Response, values: StepValues, tokenizer, seed: int
) -> str | Callable:
    """The rule that a config's word stands for, of one response: `oracle` and `random` hang on more than the values."""
    if word == "oracle":
        return functools.partial(oracle_pit, steps=verdicts_of_steps(problem, response, values.spans, tokenizer))
    if word == "random":
        return functools.partial(pits.random_pit, key=pairs.stable_key(seed, "pit", response.id))
    return word


def credit(settings: dict, inputs: dict[str, Path], out: Path, seed: int, label: str) -> None:
    """Credits of every valued response, and rows for all methods: pairs in both readings and the two baselines' pairs,
    weighted rows, filtered rows. Every kind of pair gets the same wrong responses and at most the same number of pairs.

    settings.pit_rule: how the pit is chosen; `oracle` and `random` are bounds for what pits are worth, and need no measured
    drop. pits, significance, least_value, pair_weight: see `experiments.crediting`.
    """
    settings = crediting.DEFAULTS | settings
    policy, problems = load_sampler(inputs["sft"], settings), {p.id: p for p in read_problems(inputs["data"])}
    stop, sampler = (policy.tokenizer.eos_id,), policies.checksum(policy.params)
    responses = read_responses(inputs["grade"] / "responses.jsonl")
    chosen = {r.id: r for r in read_responses(inputs["values"] / "responses.jsonl")}
    counted = read_values(inputs["values"] / "values.jsonl")
    counts, start_values = prompt_counts(responses), prompt_values(responses, settings["k"])
    credits, usable = {}, []
    for values in counted:
        response = chosen[values.root_id]
        value, problem = start_values[response.problem_id], problems[response.problem_id]
        if np.isfinite(value) and len(values.spans):
            rule = pit_rule(settings["pit_rule"], problem, response, values, policy.tokenizer, seed)
            credits[values.root_id] = assignment.assign(values, value, settings["k"], rule)
            usable.append(values)
    write_credits(out / "credits.jsonl", credits)

    by_problem = collections.defaultdict(list)
    for response in read_responses(inputs["positives"] / "responses.jsonl"):
        by_problem[response.problem_id].append(response)
    made = {"pairs_fork": [], "pairs_solution": [], "pairs_outcome": [], "pairs_edit_distance": []}
    rows = {"weighted": [], "filtered": []}
    limit, measured = settings["limit"], settings["pit_rule"] not in crediting.UNMEASURED
    for values in usable:
        response, got = chosen[values.root_id], credits[values.root_id]
        about = {"seed": seed, "sampler": sampler}
        rows["weighted"].append(weighted.advantage_example(response, values, got, meta=about))
        rows["filtered"].append(weighted.filtered_example(response, values, got, settings["threshold"], meta=about))
        if response.outcome != "wrong":
            continue
        known = by_problem[response.problem_id]
        options = {"limit": limit, "stop_ids": stop, "meta": about}
        options |= {"need_drop": measured, "least_value": settings["least_value"]}
        made["pairs_fork"] += pairs.fork_pairs(
            response,
            values,
            got,
            known,
            rejected=settings["rejected"],
            pits=pits_of(settings, values, got, counts[response.problem_id]),
            **options,
        )
        made["pairs_solution"] += pairs.solution_pairs(response, values, got, known, seed=seed, **options)
        made["pairs_outcome"] += pairs.outcome_pairs(response, known, limit=limit, seed=seed, meta=about)
        made["pairs_edit_distance"] += pairs.edit_distance_pairs(response, known, limit=limit, meta=about)
    for name, found in made.items():
        kept = pairs.cap_pairs(found, settings["per_problem"], seed)
        if settings["pair_weight"] and name in ("pairs_fork", "pairs_solution"):  # the others have no pit
            kept = pairs.weigh_pairs(kept, settings["pair_weight"])
        write_examples(out / f"{name}.npz", [side for pair in kept for side in pair])
    for name, found in rows.items():
        write_examples(out / f"{name}.npz", [row for row in found if row is not None])
    summary = {"credited": len(credits)} | {name: len(found) for name, found in made.items()}
    summary |= {name: sum(row is not None for row in found) for name, found in rows.items()}
    write_jsonl(out / "pits.jsonl", pit_rows(chosen, usable, credits, problems, policy.tokenizer))
    write_jsonl(out / "summary.jsonl", [summary])


def pits_of(settings: Mapping[str, Any], values: StepValues, credit, prompt: tuple[int, int]) -> list[int] | None:
    """The steps at which fork pairs are made; None: at the credit's pit."""
    if settings["pits"] == "first":
        return None
    counts = values.successes, values.attempts, prompt
    return pits.significant_pits(*counts, credit.advantage, credit.mask, settings["significance"])


def pit_rows(chosen, usable, credits, problems, tokenizer) -> list[dict]:
    """Where the pit of each wrong response lies, and where the oracle sees the first wrong step and the loss of the answer; all
    as indices of steps, of which an empty line is one."""
    rows = []
    for values in usable:
        response, got = chosen[values.root_id], credits[values.root_id]
        if response.outcome != "wrong" or got.pit < 0:
            continue
        row = {
            "response_id": response.id,
            "steps": len(got.q),
            "pit": got.pit,
            "value_before": got.value_before(got.pit),
        }
        row["advantage"] = float(got.advantage[got.pit])
        if "graph" in problems[response.problem_id].meta:
            steps = verdicts_of_steps(problems[response.problem_id], response, values.spans, tokenizer)
            of_step = [i for i, lines in enumerate(steps) for _ in lines] + [
                -1
            ]  # the oracle counts lines; -1 stays: none
            verdicts = [line for lines in steps for line in lines]
            row |= {"first_wrong": of_step[first_wrong_step(verdicts)], "lost": of_step[losing_step(verdicts)]}
            row["kind"] = steps[got.pit][0].kind if steps[got.pit] else None
        rows.append(row)
    return rows
