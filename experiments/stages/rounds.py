"""Stages of repeated training: a round's slice of the problems, the best round, the best point of a grid, a recorded result."""

from pathlib import Path

import numpy as np

from experiments.artifacts import read_jsonl, read_problems, write_jsonl
from experiments.stages.base import point_to
from synthrl_jax.problems.problem import sample_order


def slice_of_problems(settings: dict, inputs: dict[str, Path], out: Path, seed: int, label: str) -> None:
    """Slice `number` of `count` problems, in an order by seed; past the last problem it goes on with the first."""
    problems = read_problems(inputs["data"])
    order = sample_order(len(problems), seed)
    first = settings["number"] * settings["count"]
    chosen = [problems[order[(first + i) % len(order)]] for i in range(min(settings["count"], len(order)))]
    write_jsonl(out / "problems.jsonl", (problem.to_json() for problem in chosen))


def best(settings: dict, inputs: dict[str, Path], out: Path, seed: int, label: str) -> None:
    """The round with the best validation accuracy, the first of equals; summary.jsonl sums updates and tokens of all rounds."""
    names = sorted(inputs, key=lambda name: int(name.split()[-1]))
    rows = [read_jsonl(inputs[name] / "summary.jsonl")[0] for name in names]
    # A round without a single row leaves the policy as it was, and has no accuracy of its own.
    scores = [row.get("validation_accuracy", -1.0) for row in rows]
    number = int(np.argmax(scores))
    point_to(out, inputs[names[number]])
    looks = [{"update": i + 1, "validation_accuracy": score} for i, score in enumerate(scores) if score >= 0]
    write_jsonl(out / "looks.jsonl", looks)
    summary = {field: sum(row[field] for row in rows) for field in ("rows", "updates", "tokens")}
    summary |= {"best_round": number + 1, "rounds": len(rows)}
    if scores[number] >= 0:
        summary["validation_accuracy"] = scores[number]
    write_jsonl(out / "summary.jsonl", [summary])


def choose(settings: dict, inputs: dict[str, Path], out: Path, seed: int, label: str) -> None:
    """The point of a grid with the best mean validation accuracy over the tuning seeds; grid.jsonl has all points."""
    scores: list[list[float]] = [[] for _ in settings["points"]]
    for name, path in inputs.items():
        row = read_jsonl(path / "summary.jsonl")[0]
        scores[int(name.split()[0])].append(row.get("validation_accuracy", 0.0))
    means = [float(np.mean(found)) for found in scores]
    rows = [{"point": point, "validation_accuracy": mean} for point, mean in zip(settings["points"], means)]
    write_jsonl(out / "grid.jsonl", rows)
    write_jsonl(out / "choice.jsonl", [rows[int(np.argmax(means))]])


def recorded(settings: dict, inputs: dict[str, Path], out: Path, seed: int, label: str) -> None:
    """A result that a study's file holds, as the cell that it came from."""
    from experiments.results_file import unpack

    for name, rows in unpack(settings["files"]).items():
        write_jsonl(out / name, rows)
