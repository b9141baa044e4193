"""The methods: how each makes rows for learning from earlier artifacts, its loss, and where it starts.

Adding one is a function and a line here, or `config.methods.<name>.examples = "module:function"`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from experiments.artifacts import Artifacts
from synthrl_jax.credit.example import Example, response_example
from synthrl_jax.named import resolve


@dataclasses.dataclass(frozen=True)
class Method:
    """examples: (artifacts, **options) -> rows; loss: its name; start: `base` or `sft` (then also the reference); needs_credit:
    whether the rows come from values and credit, and so wait for them."""

    examples: str | Callable[..., list[Example]]
    loss: str
    start: str = "sft"
    needs_reference: bool = False
    needs_credit: bool = True


def teacher(artifacts: Artifacts) -> list[Example]:
    """The teacher's solutions again: what more updates alone are worth."""
    return artifacts.teacher()


def positives(artifacts: Artifacts) -> list[Example]:
    """RFT: the policy's own selected correct responses."""
    return [response_example(response) for response in artifacts.positives()]


def credit_rows(artifacts: Artifacts, *, rows: str) -> list[Example]:
    """Rows as the credit stage made them."""
    return artifacts.rows(rows)


METHODS: dict[str, tuple[Method, Mapping[str, Any]]] = {
    "sft_continued": (Method(teacher, "sft", needs_credit=False), {}),
    "rft": (Method(positives, "sft", start="base", needs_credit=False), {}),
    "dpo_outcome": (Method(credit_rows, "dpo", needs_reference=True), {"rows": "pairs_outcome"}),
    "dpo_edit_distance": (Method(credit_rows, "dpo", needs_reference=True), {"rows": "pairs_edit_distance"}),
    "dpo_per_step": (Method(credit_rows, "dpo", needs_reference=True), {"rows": "pairs_fork"}),
    "dpo_per_step_solution": (Method(credit_rows, "dpo", needs_reference=True), {"rows": "pairs_solution"}),
    "advantage_weighted": (Method(credit_rows, "advantage_weighted"), {"rows": "weighted"}),
    "advantage_filtered": (Method(credit_rows, "sft"), {"rows": "filtered"}),
}


def find(name: str, entry: Mapping[str, Any]) -> tuple[Method, dict[str, Any]]:
    """The method of a config entry and the options of its examples function.

    `entry.method` names another built-in one (default: the entry's own name); `entry.examples`, `entry.loss`, `entry.start`
    replace its parts, each a built-in word or "module:function". ValueError for an unknown method or start.
    """
    word = entry.get("method") or name
    if word in METHODS:
        method, options = METHODS[word]
    elif entry.get("examples"):
        method, options = Method(entry["examples"], entry.get("loss") or "sft", needs_reference=True), {}
    else:
        raise ValueError(f"unknown method {word!r}: use one of {', '.join(METHODS)}, or give methods.{name}.examples")
    changes: dict[str, Any] = {field: entry[field] for field in ("examples", "loss", "start") if entry.get(field)}
    if "examples" in changes:
        changes["needs_credit"] = True  # what a function from outside reads is not known
    method = dataclasses.replace(method, **changes)
    if method.start not in ("base", "sft"):
        raise ValueError(f"methods.{name}.start={method.start!r}: a method starts from 'base' or 'sft'")
    resolve(method.examples, {}, kind="examples function")
    return method, {**options, **(entry.get("options") or {})}
