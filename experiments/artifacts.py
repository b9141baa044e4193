"""What stages leave in their cells for later ones, and how it is read back."""

import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.cells import write_atomic
from synthrl_jax import pod
from synthrl_jax.credit.assignment import StepCredit
from synthrl_jax.credit.example import Example, Response, StepValues, load_examples, save_examples
from synthrl_jax.policy.tokenizer import Tokenizer
from synthrl_jax.problems.problem import Problem


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    write_atomic(path, "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def read_problems(cell: Path) -> list[Problem]:
    return [Problem.from_json(row) for row in read_jsonl(cell / "problems.jsonl")]


def write_responses(path: Path, responses: Sequence[Response]) -> None:
    write_jsonl(path, [dataclasses.asdict(r) | {"tokens": r.tokens.tolist()} for r in responses])


def read_responses(path: Path) -> list[Response]:
    return [Response(**row) for row in read_jsonl(path)]


def write_values(path: Path, values: Sequence[StepValues]) -> None:
    rows = []
    for v in values:
        row = {"root_id": v.root_id, "rescues": [[r.tolist() for r in fork] for fork in v.rescues]}
        rows.append(row | {name: getattr(v, name).tolist() for name in ("spans", "successes", "attempts")})
    write_jsonl(path, rows)


def read_values(path: Path) -> list[StepValues]:
    return [StepValues(**row) for row in read_jsonl(path)]


def write_credits(path: Path, credits: dict[str, StepCredit]) -> None:
    rows = []
    for response_id, credit in credits.items():
        row = {"response_id": response_id, "prompt_value": credit.prompt_value, "pit": credit.pit}
        q = [None if not known else float(value) for value, known in zip(credit.q, credit.mask)]
        rows.append(row | {"q": q, "advantage": credit.advantage.tolist(), "mask": credit.mask.tolist()})
    write_jsonl(path, rows)


def read_credits(path: Path) -> dict[str, StepCredit]:
    out = {}
    for row in read_jsonl(path):
        q = np.array([np.nan if value is None else value for value in row["q"]])
        arrays = np.array(row["advantage"]), np.array(row["mask"], bool)
        out[row["response_id"]] = StepCredit(q, *arrays, row["prompt_value"], row["pit"])
    return out


def write_examples(path: Path, rows: Sequence[Example]) -> None:
    """Rows for learning; of a pod the first process writes for all."""
    if pod.first():
        save_examples(path, rows)


@dataclasses.dataclass
class Artifacts:
    """What a method builds its examples from: earlier cells of the same size and seed, read when asked for.

    cells: role -> directory of `data`, `sft`, `grade`, `positives`, `values`, `credit`; teacher_row: problem -> the row of its
    teacher's solution; tokenizer: of all of them.
    """

    cells: dict[str, Path]
    seed: int
    teacher_row: Callable[[Problem], Example]
    tokenizer: Tokenizer | None = None

    def problems(self) -> list[Problem]:
        return read_problems(self.cells["data"])

    def teacher(self) -> list[Example]:
        """Rows of the teacher's solutions."""
        return [self.teacher_row(problem) for problem in self.problems()]

    def responses(self) -> list[Response]:
        """Every graded sample of pi_sft."""
        return read_responses(self.cells["grade"] / "responses.jsonl")

    def positives(self) -> list[Response]:
        """RFT's selection of the correct ones."""
        return read_responses(self.cells["positives"] / "responses.jsonl")

    def valued(self) -> list[Response]:
        """The responses whose steps have values."""
        return read_responses(self.cells["values"] / "responses.jsonl")

    def values(self) -> dict[str, StepValues]:
        return {v.root_id: v for v in read_values(self.cells["values"] / "values.jsonl")}

    def credits(self) -> dict[str, StepCredit]:
        return read_credits(self.cells["credit"] / "credits.jsonl")

    def rows(self, name: str) -> list[Example]:
        """Rows that the credit stage made: pairs_fork, pairs_solution, pairs_outcome, pairs_edit_distance, weighted, filtered."""
        return load_examples(self.cells["credit"] / f"{name}.npz")
