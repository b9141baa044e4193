"""Pairs, rows and positives from one small response worked by hand."""

import subprocess
import sys

import numpy as np
import pytest

from synthrl_jax.credit.assignment import assign
from synthrl_jax.credit.example import Response, StepValues
from synthrl_jax.credit.pairs import (
    cap_pairs,
    edit_distance_pairs,
    fork_pairs,
    outcome_pairs,
    solution_pairs,
    stable_key,
)
from synthrl_jax.credit.positives import select
from synthrl_jax.credit.weighted import advantage_example, filtered_example

EOS = 2
PROMPT = [90, 91]
# Steps [10 11] [20 21] [30] [40 EOS]; Q falls at the second, so that it is the pit.
WRONG = Response("w", "p", [*PROMPT, 10, 11, 20, 21, 30, 40, EOS], 2, "wrong")
RESCUE = [25, 26, EOS]


def values(successes=(8, 0, 0, 0), rescues=((), ([20, 21, 50, EOS], RESCUE, RESCUE), (), ()), attempts=(8,) * 4):
    return StepValues("w", [(2, 4), (4, 6), (6, 7), (7, 9)], successes, attempts, rescues)


def correct(name, *completion, problem="p"):
    return Response(name, problem, [*PROMPT, *completion], 2, "correct")


def rows(pair):
    return pair.chosen.tokens.tolist(), pair.rejected.tokens.tolist()


def test_fork_pair_branches_at_the_pit():
    credit = assign(values(), prompt_value=0.75, k=5)
    assert (credit.pit, credit.value_before(1)) == (1, 1.0)
    (pair,) = fork_pairs(WRONG, values(), credit, limit=4, meta={"seed": 7})
    # The rescue that begins with the pit step itself is no evidence against it, and the same rescue makes one pair.
    assert rows(pair) == ([90, 91, 10, 11, 25, 26, EOS], [90, 91, 10, 11, 20, 21])
    assert pair.chosen.mask.tolist() == [False] * 4 + [True] * 3
    assert pair.rejected.mask.tolist() == [False] * 4 + [True] * 2
    assert pair.chosen.pair.id == pair.rejected.pair.id
    assert (pair.chosen.pair.role, pair.rejected.pair.role) == ("chosen", "rejected")
    meta = {"problem_id": "p", "pit": 1, "value_before": 1.0, "advantage": -1.0, "attempts": 8, "seed": 7}
    assert meta.items() <= pair.rejected.meta.items()


def test_fork_pair_can_reject_the_whole_rest():
    (pair,) = fork_pairs(WRONG, values(), assign(values(), 0.75, 5), rejected="rest")
    assert pair.rejected.tokens.tolist() == WRONG.tokens.tolist()
    assert pair.rejected.mask.tolist() == [False] * 4 + [True] * 5
    with pytest.raises(ValueError, match="rejected"):
        fork_pairs(WRONG, values(), assign(values(), 0.75, 5), rejected="all")


def test_positives_rescue_where_they_share_the_prefix():
    bare = values(rescues=((),) * 4)
    credit = assign(bare, 0.75, 5)
    elsewhere, shares = correct("c0", 12, 13, EOS), correct("c1", 10, 11, 27, EOS)
    (pair,) = fork_pairs(WRONG, bare, credit, [elsewhere, shares], limit=4)
    assert rows(pair) == ([90, 91, 10, 11, 27, EOS], [90, 91, 10, 11, 20, 21])
    at_prompt = values(successes=(0, 0, 0, 0), rescues=((),) * 4)
    pairs = fork_pairs(WRONG, at_prompt, assign(at_prompt, 0.75, 5), [elsewhere, shares], limit=4)
    assert [rows(pair) for pair in pairs] == [([90, 91, 12, 13, EOS], [90, 91, 10, 11])]


@pytest.mark.parametrize(
    "successes, prompt_value, why",
    [
        ((0, 0, 0, 0), 0.0, "V of the prefix is 0"),
        ((0, 4, 0, 0), 0.0, "no drop at the first lowest step"),
        ((8, 8, 8, 8), 1.0, "nothing falls"),
    ],
)
def test_no_fork_pair_without_a_drop_from_a_live_prefix(successes, prompt_value, why):
    found = values(successes, rescues=((RESCUE,),) * 4)
    assert fork_pairs(WRONG, found, assign(found, prompt_value, 5)) == [], why


def test_no_fork_pair_without_a_rescue_or_a_step():
    assert fork_pairs(WRONG, values(rescues=((),) * 4), assign(values(), 0.75, 5)) == []
    unknown = values(attempts=(4, 8, 8, 8), successes=(4, 0, 0, 0))
    credit = assign(unknown, 0.75, 5)
    assert credit.pit == -1 and fork_pairs(WRONG, unknown, credit) == []
    empty = StepValues("e", [], [], [], ())
    assert assign(empty, 0.75, 5).pit == -1
    assert fork_pairs(Response("e", "p", PROMPT, 2, "wrong"), empty, assign(empty, 0.75, 5)) == []


def test_rejected_steps_lose_their_end_of_sequence():
    late = values(successes=(8, 8, 8, 0), rescues=((), (), (), ([41, EOS],)))
    credit = assign(late, 1.0, 5)
    (pair,) = fork_pairs(WRONG, late, credit, stop_ids=(EOS,))
    assert rows(pair) == ([*WRONG.tokens[:7], 41, EOS], [*WRONG.tokens[:7], 40])
    (pair,) = solution_pairs(WRONG, late, credit, [correct("c", 33, EOS)], stop_ids=(EOS,))
    assert pair.rejected.tokens.tolist() == WRONG.tokens[:8].tolist()
    stop_only = Response("s", "p", [*PROMPT, EOS], 2, "wrong")
    stop_values = StepValues("s", [(2, 3)], [0], [8], (([41, EOS],),))
    stop_credit = assign(stop_values, 1.0, 5)
    assert fork_pairs(stop_only, stop_values, stop_credit, stop_ids=(EOS,)) == []
    assert solution_pairs(stop_only, stop_values, stop_credit, [correct("c", 33)], stop_ids=(EOS,)) == []


def test_solution_pair_cuts_the_wrong_response_after_its_pit():
    credit = assign(values(), 0.75, 5)
    includes_the_cut = correct("c1", 10, 11, 20, 21, 60, EOS)
    (pair,) = solution_pairs(WRONG, values(), credit, [correct("c0", 33, EOS), includes_the_cut], limit=3)
    assert rows(pair) == ([90, 91, 33, EOS], [90, 91, 10, 11, 20, 21])
    assert pair.chosen.mask.tolist() == [False, False, True, True]
    assert pair.rejected.mask.tolist() == [False, False, True, True, True, True]


def test_outcome_pairs_do_not_hang_on_order_and_change_with_the_seed():
    positives = [correct(f"c{i}", 30 + i, EOS) for i in range(8)]
    pairs = outcome_pairs(WRONG, positives, limit=2, seed=1)
    assert [rows(p) for p in pairs] == [rows(p) for p in outcome_pairs(WRONG, positives[::-1], limit=2, seed=1)]
    assert pairs[0].rejected.tokens.tolist() == WRONG.tokens.tolist()
    first = {outcome_pairs(WRONG, positives, seed=seed)[0].chosen.meta["chosen_id"] for seed in range(12)}
    assert len(first) > 3
    assert outcome_pairs(WRONG, []) == []


def test_keys_are_the_same_in_every_process():
    program = "from synthrl_jax.credit.pairs import stable_key; print(stable_key(0, 'w', 'c1'))"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert int(out) == stable_key(0, "w", "c1") != stable_key(0, "wc", "1")


def test_edit_distance_pairs_take_the_farthest_per_length():
    near, far = correct("a", 10, 11, 20, 21, 30, 41, EOS), correct("b", 70, EOS)
    longer = correct("c", *range(100, 104), 10, 11, 20, 21, 30, 40, EOS)  # 4 edits of 11: more edits than near's 1
    (pair,) = edit_distance_pairs(WRONG, [near, longer, far])
    assert pair.chosen.meta["chosen_id"] == "b"
    order = [p.chosen.meta["chosen_id"] for p in edit_distance_pairs(WRONG, [near, longer, far], limit=3)]
    assert order == ["b", "c", "a"]


def test_positives_must_be_correct_and_of_the_problem():
    for stranger in (correct("c", 1, problem="other"), WRONG):
        with pytest.raises(ValueError, match="no correct response"):
            outcome_pairs(WRONG, [stranger])


def test_cap_keeps_so_many_pairs_of_each_problem():
    pairs = []
    for problem in ("p", "q"):
        good = [correct(f"{problem}{i}", 30 + i, problem=problem) for i in range(5)]
        bad = Response(f"w{problem}", problem, [*PROMPT, 9], 2, "wrong")
        pairs += outcome_pairs(bad, good, limit=5)
    kept = cap_pairs(pairs, 2, seed=3)
    assert [pair.chosen.meta["problem_id"] for pair in kept] == ["p", "p", "q", "q"]
    ids = {pair.chosen.pair.id for pair in kept}
    assert {pair.chosen.pair.id for pair in cap_pairs(pairs[::-1], 2, seed=3)} == ids
    assert {pair.chosen.pair.id for pair in cap_pairs(kept, 5)} == ids


def test_pit_rules_come_by_word_by_path_and_as_functions():
    falls = values(successes=(8, 2, 0, 0))
    by_word = {word: assign(falls, 1.0, 1, word).pit for word in ("first_pit", "least_advantage")}
    assert by_word == {"first_pit": 2, "least_advantage": 1}
    assert assign(falls, 1.0, 1, lambda q, a, mask: 3).pit == 3
    assert assign(falls, 1.0, 1, "test_pairs:last_step").pit == 3
    with pytest.raises(ValueError, match="first_pit, least_advantage"):
        assign(falls, 1.0, 1, "deepest")
    with pytest.raises(ValueError, match="step 9"):
        assign(falls, 1.0, 1, lambda q, a, mask: 9)


def last_step(q, a, mask):
    return int(mask.sum()) - 1


def test_weighted_rows_leave_out_steps_after_the_pit_and_without_values():
    example = advantage_example(WRONG, values(), assign(values(), 0.75, 5))
    assert example.arrays["step_ids"].tolist() == [-1, -1, 0, 0, 1, 1, -1, -1, -1]
    assert example.mask.tolist() == [False, False, True, True, True, True, False, False, False]
    assert example.arrays["advantage"].tolist() == [0.25, -1, 0, 0]
    right = Response("r", "p", WRONG.tokens, 2, "correct")
    short = values(attempts=(8, 8, 2, 8), successes=(8, 0, 0, 8))
    example = advantage_example(right, short, assign(short, 0.75, 5))
    assert example.arrays["step_ids"].tolist() == [-1, -1, 0, 0, 1, 1, -1, -1, -1]
    nothing = values(attempts=(0,) * 4, successes=(0,) * 4)
    assert advantage_example(right, nothing, assign(nothing, 0.75, 5)) is None


def test_filtered_rows_keep_rising_and_solved_steps():
    example = filtered_example(WRONG, values(), assign(values(), 0.75, 5))
    assert example.mask.tolist() == [False, False, True, True] + [False] * 5
    right = Response("r", "p", WRONG.tokens, 2, "correct")
    solved = values(successes=(4, 8, 8, 8))
    example = filtered_example(right, solved, assign(solved, 1.0, 1))
    assert example.mask.tolist() == [False] * 4 + [True] * 5
    assert filtered_example(WRONG, values((0, 0, 0, 0)), assign(values((0, 0, 0, 0)), 0.5, 5)) is None


def test_selection_drops_duplicates_and_keeps_the_most_diverse():
    base = list(range(20))
    group = [
        correct("a", *base),
        correct("b", *base),  # the same again
        correct("c", *base[:-1], 99),  # one token of 20 differs
        correct("d", *base[:10], *range(50, 60)),
        correct("e", *range(60, 80)),
    ]
    assert [r.id for r in select(group, 10, min_distance=0.1)] == ["a", "e", "d"]
    assert [r.id for r in select(group[::-1], 10, min_distance=0.1)] == ["a", "e", "d"]
    assert [r.id for r in select(group, 10, min_distance=0.0)] == ["a", "e", "d", "c"]
    assert [r.id for r in select(group, 2)] == ["a", "e"]
    assert [r.id for r in select(group, 1)] == ["a"] and select(group, 0) == []


def test_selection_is_per_problem_and_of_correct_responses_only():
    group = [correct("a", 1, problem="p"), correct("b", 1, problem="q"), correct("c", 1, problem="p")]
    assert [r.id for r in select(group, 4)] == ["a", "b"]
    with pytest.raises(ValueError, match="not correct"):
        select([WRONG], 4)


def test_selection_is_farthest_first():
    rng = np.random.default_rng(0)
    group = [correct(f"r{i:02}", *rng.integers(0, 4, rng.integers(3, 9))) for i in range(30)]
    kept = select(group, 6, min_distance=0.2)
    for n in range(1, len(kept)):
        nearest = {
            r.id: min(_distance(r.completion, other.completion) for other in kept[:n])
            for r in group
            if r not in kept[:n]
        }
        assert nearest[kept[n].id] == pytest.approx(max(nearest.values()))


def _distance(a, b):
    """Normalised edit distance by the textbook recurrence."""
    table = np.arange(len(b) + 1)
    for i, x in enumerate(a, 1):
        row = [i]
        for j, y in enumerate(b, 1):
            row.append(min(table[j] + 1, row[-1] + 1, table[j - 1] + (x != y)))
        table = row
    return table[-1] / max(len(a), len(b))
