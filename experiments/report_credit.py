"""What the stages from sampling to credit found, read from their cells: counts, pits, and one worked example."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from experiments.artifacts import read_credits, read_jsonl, read_problems, read_responses, read_values
from synthrl_jax.analysis.worked_example import ExampleStep, WorkedExample
from synthrl_jax.policy.tokenizer import load_tokenizer
from synthrl_jax.problems.oracle import Oracle

Places = Mapping[tuple[str, int, int], Path]  # (what, size, seed) -> a cell's directory


def sample_facts(training: Places, size: int, seed: int) -> dict[str, float]:
    """Flat facts of one size and seed: outcomes of the samples, RFT's selection, rollouts, pairs and pits."""
    out: dict[str, float] = {}
    for stage, prefix in (("grade", "samples"), ("positives", "positives"), ("values", "values"), ("credit", "credit")):
        if (stage, size, seed) in training:
            for name, value in read_jsonl(training[stage, size, seed] / "summary.jsonl")[0].items():
                out[name if name.startswith(("samples", "pairs_")) else f"{prefix}_{name}"] = value
    if ("credit", size, seed) in training:
        out |= pit_facts(read_jsonl(training["credit", size, seed] / "pits.jsonl"))
    return out


def pit_facts(pits: Sequence[Mapping]) -> dict[str, float]:
    """How often the pit is the oracle's first wrong step, the step after which the answer is lost, either; over all pits and
    (`usable_`) over those with a value above 0 before them."""
    usable = [row for row in pits if row["value_before"] > 0]
    out: dict[str, float] = {"pits": len(pits), "usable_pits": len(usable)}
    for prefix, rows in (("pit", pits), ("usable_pit", usable)):
        if rows and all("first_wrong" in row for row in rows):
            first = np.array([row["pit"] == row["first_wrong"] for row in rows])
            lost = np.array([row["pit"] == row["lost"] for row in rows])
            out[f"{prefix}_is_first_wrong"] = float(first.mean())
            out[f"{prefix}_is_lost"] = float(lost.mean())
            out[f"{prefix}_is_either"] = float((first | lost).mean())
    return out


def first_example(training: Places, size: int) -> WorkedExample | None:
    """The first wrong response (in the credit cell's order) with a pit after its first step, V > 0.5 before it and a rescue;
    else the first with a pit and a rescue; else none."""
    seeds = sorted(seed for what, n, seed in training if what == "credit" and n == size)
    if not seeds or not all((what, size, seeds[0]) in training for what in ("data", "sft", "values")):
        return None
    at = {what: training[what, size, seeds[0]] for what in ("data", "sft", "values", "credit")}
    tokenizer = load_tokenizer(str(at["sft"] / "policy"))
    if tokenizer is None:
        return None
    responses = {r.id: r for r in read_responses(at["values"] / "responses.jsonl")}
    values = {v.root_id: v for v in read_values(at["values"] / "values.jsonl")}
    candidates = [
        (name, credit, values[name].rescues[credit.pit])
        for name, credit in read_credits(at["credit"] / "credits.jsonl").items()
        if responses[name].outcome == "wrong" and credit.pit >= 0 and values[name].rescues[credit.pit]
    ]
    good = [c for c in candidates if c[1].pit >= 1 and c[1].value_before(c[1].pit) > 0.5]
    if not candidates:
        return None
    name, credit, rescues = (good or candidates)[0]
    response = responses[name]
    problem = next(p for p in read_problems(at["data"]) if p.id == response.problem_id)
    texts = [tokenizer.decode(response.tokens[start:end]).strip("\n") for start, end in values[name].spans]
    verdicts = Oracle(problem).judge(tokenizer.decode(response.completion)) if "graph" in problem.meta else []
    if [v.line for v in verdicts] != texts:  # an empty line is a step to one and nothing to the other
        verdicts = []
    steps = []
    for index, text in enumerate(texts):
        q = float(credit.q[index]) if credit.mask[index] else None
        said = {"verdict": verdicts[index].kind, "wrong": verdicts[index].wrong} if verdicts else {}
        steps.append(ExampleStep(text, q, float(credit.advantage[index]), **said))
    rescue = tokenizer.decode(rescues[0]).strip("\n").split("\n")
    return WorkedExample(problem.question, problem.answer, credit.prompt_value, steps, credit.pit, rescue)
