"""Stages `positives` and `credit`: RFT's selection; Q, A and pits; and the rows that methods learn from."""

import collections
from pathlib import Path

import numpy as np

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
from synthrl_jax.credit import assignment, pairs, weighted
from synthrl_jax.credit import positives as selection
from synthrl_jax.credit.example import Response
from synthrl_jax.credit.values import best_of_k_value
from synthrl_jax.problems.oracle import Oracle, first_wrong_step, losing_step


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


def prompt_values(responses: list[Response], k: int) -> dict[str, float]:
    """V(x) of each problem from the sample stage's counts, by the estimator of the steps; NaN below k attempts."""
    attempts, successes = collections.Counter(), collections.Counter()
    for response in responses:
        attempts[response.problem_id] += response.outcome != "grader_error"
        successes[response.problem_id] += response.outcome == "correct"
    return {p: float(best_of_k_value(successes[p], n, k)) if n >= k else float("nan") for p, n in attempts.items()}


def credit(settings: dict, inputs: dict[str, Path], out: Path, seed: int, label: str) -> None:
    """Credits of every valued response, and rows for all methods: pairs in both readings and the two baselines' pairs,
    weighted rows, filtered rows. Every kind of pair gets the same wrong responses and at most the same number of pairs."""
    policy, problems = load_sampler(inputs["sft"], settings), {p.id: p for p in read_problems(inputs["data"])}
    stop, sampler = (policy.tokenizer.eos_id,), policies.checksum(policy.params)
    responses = read_responses(inputs["grade"] / "responses.jsonl")
    chosen = {r.id: r for r in read_responses(inputs["values"] / "responses.jsonl")}
    counted = read_values(inputs["values"] / "values.jsonl")
    start_values = prompt_values(responses, settings["k"])
    credits, usable = {}, []
    for values in counted:
        value = start_values[chosen[values.root_id].problem_id]
        if np.isfinite(value) and len(values.spans):
            credits[values.root_id] = assignment.assign(values, value, settings["k"], settings["pit_rule"])
            usable.append(values)
    write_credits(out / "credits.jsonl", credits)

    by_problem = collections.defaultdict(list)
    for response in read_responses(inputs["positives"] / "responses.jsonl"):
        by_problem[response.problem_id].append(response)
    made = {"pairs_fork": [], "pairs_solution": [], "pairs_outcome": [], "pairs_edit_distance": []}
    rows = {"weighted": [], "filtered": []}
    limit = settings["limit"]
    for values in usable:
        response, got = chosen[values.root_id], credits[values.root_id]
        about = {"seed": seed, "sampler": sampler}
        rows["weighted"].append(weighted.advantage_example(response, values, got, meta=about))
        rows["filtered"].append(weighted.filtered_example(response, values, got, settings["threshold"], meta=about))
        if response.outcome != "wrong":
            continue
        known = by_problem[response.problem_id]
        options = {"limit": limit, "stop_ids": stop, "meta": about}
        made["pairs_fork"] += pairs.fork_pairs(response, values, got, known, rejected=settings["rejected"], **options)
        made["pairs_solution"] += pairs.solution_pairs(response, values, got, known, seed=seed, **options)
        made["pairs_outcome"] += pairs.outcome_pairs(response, known, limit=limit, seed=seed, meta=about)
        made["pairs_edit_distance"] += pairs.edit_distance_pairs(response, known, limit=limit, meta=about)
    for name, found in made.items():
        write_examples(
            out / f"{name}.npz",
            [side for pair in pairs.cap_pairs(found, settings["per_problem"], seed) for side in pair],
        )
    for name, found in rows.items():
        write_examples(out / f"{name}.npz", [row for row in found if row is not None])
    summary = {"credited": len(credits)} | {name: len(found) for name, found in made.items()}
    summary |= {name: sum(row is not None for row in found) for name, found in rows.items()}
    write_jsonl(out / "pits.jsonl", pit_rows(chosen, usable, credits, problems, policy.tokenizer))
    write_jsonl(out / "summary.jsonl", [summary])


def pit_rows(chosen, usable, credits, problems, tokenizer) -> list[dict]:
    """Where the pit of each wrong response lies, and where the oracle sees the first wrong step and the loss of the answer."""
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
            verdicts = Oracle(problems[response.problem_id]).judge(tokenizer.decode(response.completion))
            row |= {"first_wrong": first_wrong_step(verdicts), "lost": losing_step(verdicts)}
            row["kind"] = verdicts[got.pit].kind if got.pit < len(verdicts) else None
        rows.append(row)
    return rows
