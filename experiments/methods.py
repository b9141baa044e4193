"""The methods: how each makes rows for learning from earlier artifacts, its loss, and where it starts.

Adding one is a function and a line here, or `config.methods.<name>.method = "module:function"`.
"""

import collections
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from experiments.artifacts import Artifacts
from synthrl_jax.credit.example import Example, Response, response_example
from synthrl_jax.named import resolve
from synthrl_jax.problems.oracle import Oracle
from synthrl_jax.problems.problem import Problem


@dataclasses.dataclass(frozen=True)
class Method:
    """examples: (artifacts, **options) -> rows; loss: its name; start: `base` or `sft` (then also the reference); needs_credit:
    whether the rows come from values and credit, and so wait for them; rows_from: what they hang on, `rollouts`, `samples` or
    the `teacher` alone, whatever else they wait for: so much counts as a method's cost."""

    examples: str | Callable[..., list[Example]]
    loss: str
    start: str = "sft"
    needs_reference: bool = False
    needs_credit: bool = True
    rows_from: str = "rollouts"

    @property
    def unused(self) -> tuple[str, ...]:
        """The earlier artifacts that it could do without, by role."""
        if self.rows_from == "rollouts":
            return ()
        sampled = ("grade", "positives") if self.rows_from == "teacher" else ()
        start = ("sft",) if self.rows_from == "teacher" and self.start == "base" and not self.needs_reference else ()
        return ("values", "credit", *sampled, *start)


def teacher(artifacts: Artifacts) -> list[Example]:
    """The teacher's solutions again: what more updates alone are worth."""
    return artifacts.teacher()


def complete(artifacts: Artifacts) -> list[Example]:
    """The teacher's solutions without a leap, by the oracle: the baseline that drops the terse ones. ValueError: no graph."""
    whole = lambda p: not any(line.kind == "leap" for line in oracle(p, "sft_complete").judge(p.solution))  # noqa: E731
    return [artifacts.teacher_row(problem) for problem in filter(whole, artifacts.problems())]


def oracle(problem: Problem, name: str) -> Oracle:
    """The oracle of a problem, for what is called `name`. ValueError: no graph of it is known."""
    if "graph" not in problem.meta:
        raise ValueError(f"{problem.id}: {name} needs problems whose graph is known, as the source arithmetic makes")
    return Oracle(problem)


def positives(artifacts: Artifacts, *, cap: int | None = None, first: str = "") -> list[Example]:
    """RFT: the policy's own selected correct responses, at most `cap` of a problem: the first ones that were selected.

    first: "flawless" or "flawed" takes, before others, those without or with a step that is wrong by the oracle. Both
    give as many rows, so what they differ in is what such steps do to RFT (paper, section 5). ValueError: no graph.
    """
    if first not in ("", "flawless", "flawed"):
        raise ValueError(f"first={first!r}: use 'flawless', 'flawed' or ''")
    found, counts = artifacts.positives(), collections.Counter()
    if first:
        oracles = {p.id: oracle(p, f"first={first!r}") for p in artifacts.problems()}

        def flawed(response: Response) -> bool:
            lines = oracles[response.problem_id].judge(artifacts.tokenizer.decode(response.completion))
            return any(line.wrong for line in lines)

        found = sorted(found, key=lambda response: flawed(response) != (first == "flawed"))  # otherwise as they were
    kept = []
    for response in found:
        counts[response.problem_id] += 1
        if cap is None or counts[response.problem_id] <= cap:
            kept.append(response_example(response))
    return kept


def credit_rows(artifacts: Artifacts, *, rows: str) -> list[Example]:
    """Rows as the credit stage made them."""
    return artifacts.rows(rows)


METHODS: dict[str, tuple[Method, Mapping[str, Any]]] = {
    "sft_continued": (Method(teacher, "sft", needs_credit=False, rows_from="teacher"), {}),
    "sft_complete": (Method(complete, "sft", start="base", needs_credit=False, rows_from="teacher"), {}),
    "rft": (Method(positives, "sft", start="base", needs_credit=False, rows_from="samples"), {}),
    "dpo_outcome": (Method(credit_rows, "dpo", needs_reference=True, rows_from="samples"), {"rows": "pairs_outcome"}),
    "dpo_edit_distance": (
        Method(credit_rows, "dpo", needs_reference=True, rows_from="samples"),
        {"rows": "pairs_edit_distance"},
    ),
    "dpo_per_step": (Method(credit_rows, "dpo", needs_reference=True), {"rows": "pairs_fork"}),
    "dpo_per_step_solution": (Method(credit_rows, "dpo", needs_reference=True), {"rows": "pairs_solution"}),
    "advantage_weighted": (Method(credit_rows, "advantage_weighted", needs_reference=True), {"rows": "weighted"}),
    "advantage_filtered": (Method(credit_rows, "sft"), {"rows": "filtered"}),
}


def find(name: str, entry: Mapping[str, Any]) -> tuple[Method, dict[str, Any]]:
    """The method of a config entry and the options of its examples function.

    `entry.method` names a built-in one (default: the entry's own name) or, as "module:function", an examples function of yours;
    `entry.examples`, `entry.loss`, `entry.start` replace its parts. ValueError for an unknown method or start.
    """
    word = entry.get("method") or name
    if ":" in word:
        entry = {"examples": word, **{field: value for field, value in entry.items() if value}}
    if word in METHODS:
        method, options = METHODS[word]
    elif entry.get("examples"):
        method, options = Method(entry["examples"], entry.get("loss") or "sft", needs_reference=True), {}
    else:
        raise ValueError(f"unknown method {word!r}: use one of {', '.join(METHODS)}, or 'module:function'")
    changes: dict[str, Any] = {field: entry[field] for field in ("examples", "loss", "start") if entry.get(field)}
    if "examples" in changes:
        changes |= {"needs_credit": True, "rows_from": "rollouts"}  # what a function from outside reads is not known
    method = dataclasses.replace(method, **changes)
    if method.start not in ("base", "sft"):
        raise ValueError(f"methods.{name}.start={method.start!r}: a method starts from 'base' or 'sft'")
    resolve(method.examples, {}, kind="examples function")
    return method, {**options, **(entry.get("options") or {})}
