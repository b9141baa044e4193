"""A problem, the sources that make them, and one door to all of them."""

import dataclasses
import hashlib
import random
from collections.abc import Iterable
from typing import Any

from synthrl_jax.named import resolve

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Problem:
    """A question with its gold answer and a teacher's solution.

    `id` is stable over runs and machines; `answer` is what `grading` compares with; `solution` is the teacher's text, one
    step a line; `meta` holds what a source knows beyond that (JSON values only).
    """

    id: str
    question: str
    answer: str
    solution: str
    meta: dict[str, Any] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "Problem":
        return cls(**row)


# A source is a function (split, **settings) -> problems; a config may name one of its own as "module:function".
SOURCES = {
    "arithmetic": "synthrl_jax.problems.arithmetic:load",
    "gsm8k": "synthrl_jax.problems.gsm8k:load",
    "hendrycks_math": "synthrl_jax.problems.hendrycks_math:load",
    "svamp": "synthrl_jax.problems.out_of_distribution:svamp",
    "multiarith": "synthrl_jax.problems.out_of_distribution:multiarith",
    "gsm_hard": "synthrl_jax.problems.out_of_distribution:gsm_hard",
    "synthetic": "synthrl_jax.problems.synthetic:load",
}


def load(name: str, split: str, **settings: Any) -> list[Problem]:
    """The problems of one split of a source.

    `name` is a built-in word or "module:function"; `split` one of train, validation, test (a source may know more).
    Raises ValueError for an unknown source, a split or setting that it does not have, and two problems of one id.
    """
    source = resolve(SOURCES.get(name, name), SOURCES, kind="problem source")
    problems = list(source(split, **settings))
    require_unique(problems)
    return problems


def require_unique(problems: Iterable[Problem]) -> None:
    """Raise ValueError naming the first id that occurs twice."""
    seen: set[str] = set()
    for problem in problems:
        if problem.id in seen:
            raise ValueError(f"two problems have the id {problem.id!r}: ids key every later artifact, make them unique")
        seen.add(problem.id)


def content_share(text: str) -> float:
    """A stable number in [0, 1) from a text's content, for cutting splits."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def sample_order(count: int, seed: int) -> list[int]:
    """A permutation of range(count) from a seed; seed 0 keeps the order."""
    order = list(range(count))
    if seed:
        random.Random(f"order {seed}").shuffle(order)
    return order
