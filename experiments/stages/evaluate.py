"""Stage `evaluate`: greedy accuracy and pass@k on held-out problems, and what the oracle says of the steps."""

import collections
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.artifacts import read_problems, write_jsonl
from experiments.stages.base import load_sampler
from experiments.stages.sampling import prompt_roots, responses_of, sampler_settings
from synthrl_jax import rollouts
from synthrl_jax.analysis.evaluate import bootstrap_interval, pass_at_k
from synthrl_jax.analysis.spurious import step_ratios
from synthrl_jax.policy import sharding
from synthrl_jax.policy.checkpoint import Policy
from synthrl_jax.problems.oracle import KINDS, Oracle
from synthrl_jax.problems.problem import Problem


def graded_samples(policy, problems: Sequence[Problem], prompt: str, settings: dict, n: int, seed: int):
    """n graded responses to each problem, by problem and index: [problems][n] of (Response, Verdict)."""
    roots = prompt_roots(policy.tokenizer, problems, prompt, n)
    completions = rollouts.sample_everywhere(policy, roots, sampler_settings(policy, settings), seed)
    completions.sort(key=lambda c: c.index)
    graded = responses_of(problems, roots, completions, policy.tokenizer, settings["grading"])
    groups: dict[str, list] = {problem.id: [] for problem in problems}
    for response, verdict in graded:
        groups[response.problem_id].append((response, verdict))
    return [groups[problem.id] for problem in problems]


def greedy_accuracy(start: Policy, problems: Sequence[Problem], prompt: str, settings: dict, params) -> float:
    """Share of problems that `params` answer rightly without sampling."""
    policy = Policy(start.config, sharding.for_sampling(start.config, params), start.tokenizer)
    groups = graded_samples(policy, problems, prompt, {**settings, "temperature": 0.0}, 1, 0)
    return float(np.mean([group[0][1].outcome == "correct" for group in groups]))


def evaluate(settings: dict, inputs: dict[str, Path], out: Path, seed: int, label: str) -> None:
    """Writes problems.jsonl (a row a problem, for paired comparisons) and row.jsonl (the method's row of the result table)."""
    policy, problems = load_sampler(inputs["policy"], settings), read_problems(inputs["test"])
    greedy = graded_samples(policy, problems, settings["prompt"], {**settings, "temperature": 0.0}, 1, seed)
    drawn = graded_samples(policy, problems, settings["prompt"], settings, settings["n"], seed)
    rows = []
    for problem, first, several in zip(problems, greedy, drawn):
        correct = sum(verdict.outcome == "correct" for _, verdict in several)
        counted = sum(verdict.outcome != "grader_error" for _, verdict in several)
        row = {"id": problem.id, "outcome": first[0][1].outcome, "samples": counted, "correct": correct}
        if "graph" in problem.meta:
            row["greedy"] = step_counts(problem, policy.tokenizer.decode(first[0][0].completion))
        rows.append(row)
    write_jsonl(out / "problems.jsonl", rows)
    write_jsonl(out / "row.jsonl", [summary(rows, settings["k"])])


def step_counts(problem: Problem, text: str) -> dict:
    """The oracle's count of each kind of line in a response."""
    kinds = collections.Counter(verdict.kind for verdict in Oracle(problem).judge(text))
    return {kind: kinds[kind] for kind in KINDS if kinds[kind]}


def summary(rows: list[dict], k: int) -> dict:
    """The result table's numbers: accuracy and pass@k with 95 % intervals over problems, outcomes, and step shares.

    Accuracy is over the problems that the grader came to a verdict on; its errors are counted apart. Step shares are of
    all lines of the greedy responses; `right_with_wrong_step` is a share of the right answers.
    """
    judged = [row for row in rows if row["outcome"] != "grader_error"] or rows
    right = np.array([row["outcome"] == "correct" for row in judged], float)
    lo, hi = bootstrap_interval(right)
    out = {"problems": len(rows), "accuracy": right.mean(), "accuracy_lo": lo, "accuracy_hi": hi}
    counted = [row for row in rows if row["samples"] >= k]
    if counted:
        passed = np.asarray(
            pass_at_k(*(np.array([row[f] for row in counted]) for f in ("correct", "samples")), k), float
        )
        lo, hi = bootstrap_interval(passed)
        out |= {"pass_at_k": passed.mean(), "pass_at_k_lo": lo, "pass_at_k_hi": hi, "k": k}
        out["sampled_accuracy"] = sum(row["correct"] for row in counted) / sum(row["samples"] for row in counted)
    for outcome in ("no_answer", "grader_error"):
        out[outcome] = sum(row["outcome"] == outcome for row in rows)
    if all("greedy" in row for row in rows):
        out |= step_ratios([rows])
    return {name: round(float(v), 6) if isinstance(v, float | np.floating) else v for name, v in out.items()}
