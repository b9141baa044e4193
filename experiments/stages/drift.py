"""Stage `drift`: how much a method changed the steps that were right, and those that were wrong, on what pi_sft samples."""

from pathlib import Path

import numpy as np

from experiments.artifacts import read_problems, read_responses, write_jsonl
from experiments.stages.base import load_sampler
from experiments.stages.credit import verdicts_of_steps
from experiments.stages.train import with_reference
from synthrl_jax.credit.example import response_example
from synthrl_jax.credit.pairs import stable_key
from synthrl_jax.credit.steps import step_spans

KINDS = ("needed", "wrong")  # steps by the oracle: right and of use, or with an error


def drift(settings: dict, inputs: dict[str, Path], out: Path, seed: int, label: str) -> None:
    """On `settings.count` of pi_sft's responses, the same for every method of a seed: writes summary.jsonl with, for each of
    KINDS, the number of `steps` and the means over them of log p_sft - log p_method of the whole step (`lost`) and of its
    absolute value (`moved`), in nats. ValueError for problems whose graph is not known."""
    problems = {problem.id: problem for problem in read_problems(inputs["data"])}
    responses = read_responses(inputs["grade"] / "responses.jsonl")
    chosen = sorted(responses, key=lambda r: (stable_key(seed, "drift", r.id), r.id))[: settings["count"]]
    rows, found = [response_example(response) for response in chosen], {}
    for role in ("sft", "policy"):
        policy = load_sampler(inputs[role], settings)
        found[role] = [row.ref_logprobs for row in with_reference(rows, policy)]
    tokenizer, lost = policy.tokenizer, {kind: [] for kind in KINDS}
    for response, before, after in zip(chosen, found["sft"], found["policy"]):
        spans = step_spans(response.tokens, tokenizer, response.prompt_len, settings["delimiters"])
        verdicts = verdicts_of_steps(problems[response.problem_id], response, spans, tokenizer)
        for (start, end), lines in zip(spans, verdicts):
            kind = "wrong" if any(line.wrong for line in lines) else "needed"
            if lines and (kind == "wrong" or all(line.kind == "needed" for line in lines)):
                lost[kind].append(float((before[start:end] - after[start:end]).sum()))
    summary: dict[str, float] = {"responses": len(chosen)}
    for kind, values in lost.items():
        summary[f"{kind}_steps"] = len(values)
        if values:
            summary |= {f"{kind}_lost": round(float(np.mean(values)), 6)}
            summary |= {f"{kind}_moved": round(float(np.mean(np.abs(values))), 6)}
    write_jsonl(out / "summary.jsonl", [summary])
