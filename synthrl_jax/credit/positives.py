"""RFT's choice among a problem's correct responses: no near-duplicates, and those that differ most."""

from collections.abc import Iterable

from synthrl_jax.credit.example import Response
from synthrl_jax.credit.pairs import edit_distance


def select(positives: Iterable[Response], cap: int, min_distance: float = 0.1) -> list[Response]:
    """At most `cap` correct responses of each problem, chosen farthest first in edit distance over tokens.

    The first is the one of smallest id; each next one is the farthest from those chosen so far (ties: smallest id). It
    stops where the farthest is a duplicate or nearer than `min_distance` (of the longer one's length, 0 to 1). Problems
    come in the order of their first response; the result does not hang on the order within a problem. ValueError for a
    response that is not correct. The paper drops near-duplicates; the threshold is our own stand-in.
    """
    if cap < 0:
        raise ValueError(f"cap must not be negative, got {cap}")
    by_problem: dict[str, list[Response]] = {}
    for response in positives:
        if response.outcome != "correct":
            raise ValueError(f"{response.id} is {response.outcome}, not correct")
        by_problem.setdefault(response.problem_id, []).append(response)
    return [kept for group in by_problem.values() for kept in _farthest_first(group, cap, min_distance)]


def _farthest_first(group: list[Response], cap: int, min_distance: float) -> list[Response]:
    distinct: dict[bytes, Response] = {}
    for response in sorted(group, key=lambda response: response.id):
        distinct.setdefault(response.completion.tobytes(), response)
    left = list(distinct.values())
    chosen = left[:1] if cap else []
    left = left[1:]
    nearest = [1.0] * len(left)
    while left and len(chosen) < cap:
        distances = [edit_distance(response.completion, chosen[-1].completion) for response in left]
        nearest = [min(old, new) for old, new in zip(nearest, distances)]
        best = max(range(len(left)), key=lambda place: (nearest[place], -place))
        if nearest[best] < min_distance:
            break
        chosen.append(left.pop(best))
        nearest.pop(best)
    return chosen
