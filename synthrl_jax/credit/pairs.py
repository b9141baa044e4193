"""Preference pairs from wrong responses: at the fork before a pit, of whole solutions, by outcome, by edit distance."""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from rapidfuzz.distance import Levenshtein

from synthrl_jax.credit.assignment import StepCredit
from synthrl_jax.credit.example import Example, PairRole, Response, StepValues, completion_mask


class Pair(NamedTuple):
    """A preference pair: two rows with the same pair id."""

    chosen: Example
    rejected: Example


def stable_key(*parts) -> int:
    """A 64-bit key of the parts' texts, the same in every process."""
    return int.from_bytes(hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest())


def fork_pairs(
    response: Response,
    values: StepValues,
    credit: StepCredit,
    positives: Sequence[Response] = (),
    *,
    rejected: str = "step",
    limit: int = 1,
    stop_ids: Collection[int] = (),
    meta: Mapping[str, Any] | None = None,
    pits: Sequence[int] | None = None,
    need_drop: bool = True,
    least_value: float = 0.0,
) -> list[Pair]:
    """Pairs that share the prefix before a pit (paper section 4, the form of Theorem 6.1), at most `limit` for each pit.

    chosen = prefix + a correct completion of it, rejected = prefix + the pit step (`rejected="rest"`: + the whole rest of
    the response); only tokens after the fork count. Correct completions are `values.rescues` there, then those of the
    `positives` (correct responses to the same problem) that share the prefix, as all do at the prompt. No pair where
    V(prefix) is 0 or below `least_value` or the pit is no drop (`need_drop` False: as of a pit that was not measured), and
    none with a completion that itself begins with the pit step. pits: other steps than the credit's pit.
    `stop_ids` end a sequence: the cut-off step is stripped of them.
    """
    _check_positives(response, positives)
    if rejected not in ("step", "rest"):
        raise ValueError(f"rejected must be 'step' or 'rest', not {rejected!r}")
    pairs: list[Pair] = []
    for pit in [credit.pit] if pits is None else pits:
        if not _is_usable(credit, pit, need_drop, least_value):
            continue
        start, end = (int(place) for place in values.spans[pit])
        prefix, step = response.tokens[:start], _without_stops(response.tokens[start:end], stop_ids)
        shared = [p for p in positives if len(p.tokens) > start and np.array_equal(p.tokens[:start], prefix)]
        completions = _distinct([*values.rescues[pit], *(p.tokens[start:] for p in shared)])
        worse = response.tokens[start:] if rejected == "rest" else step
        about = {**_about("fork", response, credit, values, pit), **(meta or {})}
        better = [c for c in completions if len(step) and not _begins_with(c, step)][:limit]
        for completion in better:
            name = f"fork:{response.id}:{len(pairs)}"
            pairs.append(_pair(name, np.concatenate([prefix, completion]), [*prefix, *worse], start, about))
    return pairs


def solution_pairs(
    response: Response,
    values: StepValues,
    credit: StepCredit,
    positives: Sequence[Response],
    *,
    limit: int = 1,
    seed: int = 0,
    stop_ids: Collection[int] = (),
    meta: Mapping[str, Any] | None = None,
    need_drop: bool = True,
    least_value: float = 0.0,
) -> list[Pair]:
    """Pairs of a correct response and the wrong one cut after its pit (paper Algorithm 1), at most `limit`.

    All tokens after the prompt count. The cut response gets no end-of-sequence token (`stop_ids` are stripped). No pair
    where the pit is no drop or V(prefix) is below `least_value`, and none with a positive that begins with all of the cut
    response; `need_drop` False: a pair needs V(prefix) > 0 in place of a drop.
    """
    _check_positives(response, positives)
    if not _is_usable(credit, credit.pit, need_drop, least_value):
        return []
    cut = _without_stops(response.tokens[: values.spans[credit.pit][1]], stop_ids)
    if len(cut) <= response.prompt_len:
        return []
    usable = [p for p in positives if not _begins_with(p.tokens, cut)]
    about = {**_about("solution", response, credit, values, credit.pit), **(meta or {})}
    return _with_positives("solution", response, cut, _by_key(usable, response, seed)[:limit], about)


def outcome_pairs(
    response: Response,
    positives: Sequence[Response],
    *,
    limit: int = 1,
    seed: int = 0,
    meta: Mapping[str, Any] | None = None,
) -> list[Pair]:
    """Standard DPO's pairs: the wrong response against arbitrary correct ones, chosen by a stable key of ids and seed."""
    _check_positives(response, positives)
    about = {**_about("outcome", response), **(meta or {})}
    return _with_positives("outcome", response, response.tokens, _by_key(positives, response, seed)[:limit], about)


def edit_distance_pairs(
    response: Response, positives: Sequence[Response], *, limit: int = 1, meta: Mapping[str, Any] | None = None
) -> list[Pair]:
    """The wrong response against the correct ones farthest from it in edit distance over tokens, per longer length."""
    _check_positives(response, positives)
    about = {**_about("edit_distance", response), **(meta or {})}
    farthest = sorted(positives, key=lambda p: (-edit_distance(p.completion, response.completion), p.id))
    return _with_positives("edit_distance", response, response.tokens, farthest[:limit], about)


def cap_pairs(pairs: Iterable[Pair], cap: int, seed: int = 0) -> list[Pair]:
    """At most `cap` pairs of each problem, chosen by a stable key and left in their order."""
    pairs = list(pairs)
    by_problem: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_problem.setdefault(pair.chosen.meta["problem_id"], []).append(pair)
    kept = set()
    for group in by_problem.values():
        ids = sorted((pair.chosen.pair.id for pair in group), key=lambda name: (stable_key(seed, name), name))
        kept.update(ids[:cap])
    return [pair for pair in pairs if pair.chosen.pair.id in kept]


def weigh_pairs(pairs: Sequence[Pair], by: str = "value_before") -> list[Pair]:
    """The pairs with weights in proportion to a number of their `meta`, of mean 1 over the data set.

    The weight is `meta["pair_weight"]` of both rows, which batches hand to the losses. ValueError where the numbers are
    negative or all 0.
    """
    numbers = np.array([pair.chosen.meta[by] for pair in pairs], float)
    if len(pairs) and ((numbers < 0).any() or not numbers.sum() > 0):
        raise ValueError(f"pairs cannot be weighted by {by}: it must not be negative, nor 0 everywhere")
    weights = numbers / numbers.mean() if len(pairs) else numbers
    return [
        Pair(*(replace(row, meta={**row.meta, "pair_weight": float(weight)}) for row in pair))
        for pair, weight in zip(pairs, weights)
    ]


def edit_distance(a, b) -> float:
    """Levenshtein distance of two token sequences over the length of the longer: 0 equal, 1 nothing in common."""
    return Levenshtein.normalized_distance(np.asarray(a).tolist(), np.asarray(b).tolist())


def _pair(pair_id: str, chosen, rejected, start: int, about: Mapping[str, Any]) -> Pair:
    rows = (np.asarray(chosen, np.int32), np.asarray(rejected, np.int32))
    return Pair(
        *(
            Example(row, completion_mask(len(row), start), pair=PairRole(pair_id, role), meta=about)
            for row, role in zip(rows, ("chosen", "rejected"))
        )
    )


def _with_positives(kind: str, response: Response, rejected, positives: Sequence[Response], about) -> list[Pair]:
    """Pairs of whole responses; positives come in the order of preference."""
    return [
        _pair(
            f"{kind}:{response.id}:{n}",
            positive.tokens,
            rejected,
            response.prompt_len,
            {**about, "chosen_id": positive.id},
        )
        for n, positive in enumerate(positives)
    ]


def _about(
    kind: str, response: Response, credit: StepCredit | None = None, values: StepValues | None = None, pit: int = -1
) -> dict:
    about = {"kind": kind, "problem_id": response.problem_id, "response_id": response.id}
    if credit is None:
        return about
    return about | {
        "pit": pit,
        "value_before": credit.value_before(pit),
        "advantage": float(credit.advantage[pit]),
        "successes": int(values.successes[pit]),
        "attempts": int(values.attempts[pit]),
    }


def _check_positives(response: Response, positives: Sequence[Response]) -> None:
    for positive in positives:
        if positive.problem_id != response.problem_id or positive.outcome != "correct":
            raise ValueError(
                f"{positive.id} ({positive.outcome}, problem {positive.problem_id}) is no correct response to "
                f"{response.problem_id}, the problem of {response.id}"
            )


def _is_usable(credit: StepCredit, pit: int, need_drop: bool, least_value: float) -> bool:
    """Whether a pair can be made at the step: it has a value, something was left to lose, and (if need be) it was lost."""
    if pit < 0 or not credit.mask[pit] or (need_drop and not credit.advantage[pit] < 0):
        return False
    value = credit.value_before(pit)
    return value > 0 and value >= least_value


def _by_key(positives: Sequence[Response], response: Response, seed: int) -> list[Response]:
    return sorted(positives, key=lambda p: (stable_key(seed, response.id, p.id), p.id))


def _begins_with(tokens: np.ndarray, start: np.ndarray) -> bool:
    return np.array_equal(tokens[: len(start)], start)


def _without_stops(tokens: np.ndarray, stop_ids: Collection[int]) -> np.ndarray:
    end = len(tokens)
    while end and int(tokens[end - 1]) in stop_ids:
        end -= 1
    return tokens[:end]


def _distinct(rows: Iterable[np.ndarray]) -> list[np.ndarray]:
    return list({row.tobytes(): row for row in reversed(list(rows))}.values())[::-1]
