"""The records of the credit stage: graded responses, values of their steps, and the rows for learning."""

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from etils import epath

OUTCOMES = ("correct", "wrong", "no_answer", "grader_error")
ROLES = ("chosen", "rejected")


@dataclass(frozen=True, eq=False)
class Response:
    """A graded response: tokens int32 [T] = prompt and response, with the stop token where it stopped, no padding."""

    id: str
    problem_id: str
    tokens: np.ndarray
    prompt_len: int
    outcome: str

    def __post_init__(self):
        object.__setattr__(self, "tokens", np.asarray(self.tokens, np.int32))
        if self.outcome not in OUTCOMES:
            raise ValueError(f"response {self.id}: outcome {self.outcome!r} is none of {', '.join(OUTCOMES)}")
        if not 0 <= self.prompt_len <= len(self.tokens):
            raise ValueError(f"response {self.id}: prompt_len {self.prompt_len} of {len(self.tokens)} tokens")

    @property
    def completion(self) -> np.ndarray:
        """The tokens after the prompt."""
        return self.tokens[self.prompt_len :]


@dataclass(frozen=True, eq=False)
class StepValues:
    """Monte Carlo counts for the S steps of one response.

    spans int32 [S, 2]: token span [start, end) of each step. successes, attempts int32 [S]: rollouts from the prefix that
    ends *after* the step, grader errors left out of both; the last step's are its response's own verdict, (n, n) or
    (0, n). rescues[i], a tuple of token arrays: correct completions of the prefix that ends *before* step i (i = 0: of
    the prompt), so what the rollouts after step i find belongs into rescues[i + 1].
    """

    root_id: str
    spans: np.ndarray
    successes: np.ndarray
    attempts: np.ndarray
    rescues: tuple[tuple[np.ndarray, ...], ...]

    def __post_init__(self):
        rescues = tuple(tuple(np.asarray(found, np.int32) for found in fork) for fork in self.rescues)
        object.__setattr__(self, "spans", np.asarray(self.spans, np.int32).reshape(-1, 2))
        object.__setattr__(self, "successes", np.asarray(self.successes, np.int32))
        object.__setattr__(self, "attempts", np.asarray(self.attempts, np.int32))
        object.__setattr__(self, "rescues", rescues)
        steps = len(self.spans)
        if not len(self.successes) == len(self.attempts) == len(self.rescues) == steps:
            raise ValueError(
                f"values of {self.root_id}: {steps} spans, {len(self.successes)} successes, "
                f"{len(self.attempts)} attempts, rescues for {len(self.rescues)} forks"
            )


class PairRole(NamedTuple):
    """Which preference pair a row belongs to, and as what: 'chosen' or 'rejected'."""

    id: str
    role: str


@dataclass(frozen=True, eq=False)
class Example:
    """One row for learning: T tokens, which of them count, and where the row comes from.

    tokens int32 [T], mask bool [T], weight float32 [T] (1 unless given), ref_logprobs float32 [T] or None (not computed
    yet), arrays: further 1-d arrays by name (`advantage` [S], `step_ids` [T]), meta: provenance that JSON can hold.
    """

    tokens: np.ndarray
    mask: np.ndarray
    weight: np.ndarray | None = None
    ref_logprobs: np.ndarray | None = None
    pair: PairRole | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self):
        ref, pair = self.ref_logprobs, self.pair
        fields = {
            "tokens": np.asarray(self.tokens, np.int32),
            "mask": np.asarray(self.mask, bool),
            "weight": np.asarray(np.ones(len(self.tokens)) if self.weight is None else self.weight, np.float32),
            "ref_logprobs": None if ref is None else np.asarray(ref, np.float32),
            "pair": None if pair is None else PairRole(*pair),
            "arrays": {name: np.asarray(array) for name, array in self.arrays.items()},
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)
        if self.pair is not None and self.pair.role not in ROLES:
            raise ValueError(f"role {self.pair.role!r} is none of {', '.join(ROLES)}")
        for name in ("mask", "weight", "ref_logprobs"):
            array = getattr(self, name)
            if array is not None and array.shape != self.tokens.shape:
                raise ValueError(f"{name} has shape {array.shape}, tokens {self.tokens.shape}")


def completion_mask(length: int, start: int) -> np.ndarray:
    """bool [length]: True from `start` on."""
    return np.arange(length) >= start


def response_example(response: Response, meta: Mapping[str, Any] | None = None) -> Example:
    """The row for fine-tuning on a response: every token after the prompt counts."""
    mask = completion_mask(len(response.tokens), response.prompt_len)
    about = {"problem_id": response.problem_id, "response_id": response.id}
    return Example(response.tokens, mask, meta={**about, **(meta or {})})


def save_examples(path, examples: Iterable[Example]) -> None:
    """Write examples to one .npz file beside its place, then rename; equal examples give equal bytes."""
    examples = list(examples)
    columns = {"tokens": [e.tokens for e in examples], "mask": [e.mask for e in examples]}
    columns |= {"weight": [e.weight for e in examples], "ref_logprobs": [e.ref_logprobs for e in examples]}
    for name in sorted({name for e in examples for name in e.arrays}):
        columns[f"arrays.{name}"] = [e.arrays.get(name) for e in examples]
    lines = [json.dumps({"meta": e.meta, "pair": e.pair}, sort_keys=True, default=_plain) + "\n" for e in examples]
    arrays = {"records": np.frombuffer("".join(lines).encode(), np.uint8)}
    for name, rows in columns.items():
        arrays[f"{name}.lengths"], arrays[f"{name}.values"] = _join(name, rows)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.parent / f".{path.name}.unfinished"
    beside.write_bytes(buffer.getvalue())
    beside.replace(path)


def load_examples(path) -> list[Example]:
    """The examples that `save_examples` wrote."""
    with np.load(io.BytesIO(epath.Path(path).read_bytes())) as file:
        stored = dict(file)
    records = [json.loads(line) for line in stored.pop("records").tobytes().decode().splitlines()]
    names = [name.removesuffix(".values") for name in stored if name.endswith(".values")]
    columns = {name: _split(stored[f"{name}.values"], stored[f"{name}.lengths"]) for name in names}
    examples = []
    for row, record in enumerate(records):
        fields = {name: column[row] for name, column in columns.items() if not name.startswith("arrays.")}
        extra = {
            name.removeprefix("arrays."): column[row] for name, column in columns.items() if name.startswith("arrays.")
        }
        extra = {name: array for name, array in extra.items() if array is not None}
        examples.append(Example(**fields, pair=record["pair"], meta=record["meta"], arrays=extra))
    return examples


def _join(name: str, rows: Sequence[np.ndarray | None]) -> tuple[np.ndarray, np.ndarray]:
    """Rows end to end, and their lengths; -1 stands for a row that is not there."""
    present = [row for row in rows if row is not None]
    if any(row.ndim != 1 for row in present) or len({row.dtype for row in present}) > 1:
        raise ValueError(f"{name}: rows must be 1-d and of one type to be stored together")
    lengths = np.array([-1 if row is None else len(row) for row in rows], np.int64)
    return lengths, np.concatenate(present) if present else np.zeros(0, np.float32)


def _split(values: np.ndarray, lengths: np.ndarray) -> list[np.ndarray | None]:
    ends = np.cumsum(np.maximum(lengths, 0))
    return [None if n < 0 else values[end - n : end] for n, end in zip(lengths, ends)]


def _plain(value):
    """JSON's form of a numpy number or array in `meta`."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"meta must be plain data, not {type(value).__name__}")
