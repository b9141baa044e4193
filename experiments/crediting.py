"""The `credit` fields of a config that came after the first results."""

from collections.abc import Mapping
from typing import Any

from synthrl_jax.named import resolve

# pits: "first", the one that pit_rule chooses, or "significant", every step whose rollouts fall significantly, by a one-sided
# Fisher exact test at the level `significance`. least_value: pairs are made only at pits with at least this V(prefix).
# pair_weight: "" weighs all pairs alike, "value_before" by V(prefix), with mean 1 over the data set.
DEFAULTS: dict[str, Any] = {"pits": "first", "significance": 0.1, "least_value": 0.0, "pair_weight": ""}
# Pit rules beside those of `credit.assignment.PIT_RULES`, not chosen by value: bounds for what pits are worth.
UNMEASURED = ("oracle", "random")
WORDS = {"pits": ("first", "significant"), "pair_weight": ("", "value_before"), "rejected": ("step", "rest")}


def without_defaults(credit: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that name a cell: those above count only where they are not at their default, so that results made before a
    field existed stay."""
    return {name: value for name, value in credit.items() if name not in DEFAULTS or value != DEFAULTS[name]}


def check(credit: Mapping[str, Any]) -> None:
    """ValueError for a word or a number that does not fit, or a pit rule that is none."""
    if credit["pit_rule"] not in UNMEASURED:
        from synthrl_jax.credit.assignment import PIT_RULES

        resolve(credit["pit_rule"], PIT_RULES, kind="pit rule")
    for name, words in WORDS.items():
        if credit[name] not in words:
            raise ValueError(f"credit.{name}={credit[name]!r}: use one of {', '.join(map(repr, words))}")
    if not 0 < credit["significance"] < 1:
        raise ValueError(f"credit.significance={credit['significance']}: a level between 0 and 1")
    if not 0 <= credit["least_value"] <= 1:
        raise ValueError(f"credit.least_value={credit['least_value']}: a value, from 0 to 1")
    if credit["pits"] == "significant" and credit["pit_rule"] in UNMEASURED:
        raise ValueError(
            f"credit.pits='significant' chooses by itself; leave credit.pit_rule={credit['pit_rule']!r} out"
        )
