import numpy as np
import pytest

from synthrl_jax.analysis.spurious import GAPS, line_counts, share_difference, step_ratios, step_shares


def rows(*pairs):
    return [{"id": str(i), "outcome": outcome, "greedy": greedy} for i, (outcome, greedy) in enumerate(pairs)]


FEW = rows(
    ("correct", {"needed": 4}),
    ("correct", {"needed": 3, "leap": 1, "wrong value": 1}),
    ("wrong", {"needed": 2, "needless": 1, "not ready": 2, "unparsable": 1}),
    ("no_answer", {"wrong relation": 1}),
)


def test_shares_of_hand_counted_lines():
    ratios = step_ratios([FEW])
    # 16 lines: 9 needed, 1 leap, 1 needless, 5 wrong; two right answers, one of which holds a wrong line
    assert ratios == {"wrong_steps": 5 / 16, "needless_steps": 1 / 16, "leaps": 1 / 16, "right_with_wrong_step": 1 / 2}


def test_a_leap_and_a_needless_line_are_never_wrong():
    only = rows(("correct", {"leap": 2, "needless": 3}))
    assert step_ratios([only])["wrong_steps"] == 0
    assert line_counts(only)["right_with_wrong"].tolist() == [0]


def test_seeds_are_pooled():
    other = rows(*[("correct", {"needed": 1, "wrong value": 1})] * 4)
    assert step_ratios([FEW, other])["right_with_wrong_step"] == (1 + 4) / (2 + 4)
    assert step_ratios([FEW, other])["wrong_steps"] == (5 + 4) / (16 + 8)


def test_intervals_agree_with_a_plain_bootstrap_over_problems():
    rng = np.random.default_rng(1)
    many = rows(*[("correct" if r < 0.5 else "wrong", {"needed": int(a), "wrong value": int(b)})
                  for r, a, b in zip(rng.random(300), rng.integers(1, 6, 300), rng.integers(0, 3, 300))])  # fmt: skip
    wrong = np.array([row["greedy"]["wrong value"] for row in many])
    lines = np.array([sum(row["greedy"].values()) for row in many])
    drawn = rng.integers(0, 300, (4000, 300))
    lo, hi = np.quantile(wrong[drawn].sum(1) / lines[drawn].sum(1), [0.025, 0.975])
    share = step_shares([many])["wrong_steps"]
    assert share.value == wrong.sum() / lines.sum()
    assert share.lo == pytest.approx(lo, abs=0.004)
    assert share.hi == pytest.approx(hi, abs=0.004)


def test_a_share_of_nothing_is_left_out():
    nobody_right = rows(("wrong", {"wrong value": 1}), ("wrong", {"needed": 1}))
    assert set(step_shares([nobody_right])) == {"wrong_steps", "needless_steps", "leaps"}


def test_unknown_kinds_and_uneven_seeds_are_refused():
    with pytest.raises(ValueError, match="unknown kinds of line: mistake"):
        step_ratios([rows(("wrong", {"mistake": 1}))])
    with pytest.raises(ValueError, match="a row for each problem"):
        step_shares([FEW, FEW[:2]])


def random_rows(rng, wrong, right, count=300):
    return rows(*[("correct" if r else "wrong", {"needed": 3, "wrong value": int(w)}) for r, w in
                  zip(rng.random(count) < right, rng.random(count) < wrong)])  # fmt: skip


def test_a_difference_of_shares_agrees_with_a_plain_paired_bootstrap():
    rng = np.random.default_rng(2)
    first, second = random_rows(rng, 0.4, 0.5), random_rows(rng, 0.2, 0.6)
    columns = []
    for many in (first, second):
        right = np.array([row["outcome"] == "correct" for row in many])
        columns += [right * np.array([row["greedy"]["wrong value"] for row in many]), right]
    drawn = rng.integers(0, 300, (4000, 300))
    a, b, c, d = (column[drawn].sum(1) for column in columns)
    lo, hi = np.quantile(a / b - c / d, [0.025, 0.975])
    found = share_difference([first], [second], "right_with_wrong_step")
    shares = [step_ratios([many])["right_with_wrong_step"] for many in (first, second)]
    assert found.value == pytest.approx(shares[0] - shares[1])
    assert found.lo == pytest.approx(lo, abs=0.01) and found.hi == pytest.approx(hi, abs=0.01)


def test_a_difference_is_paired_and_undefined_without_right_answers():
    rng = np.random.default_rng(3)
    first = [random_rows(rng, 0.4, 0.5), random_rows(rng, 0.4, 0.5)]
    assert share_difference(first, first, "wrong_steps") == (0, 0, 0)
    nobody = rows(*[("wrong", {"wrong value": 1})] * 300)
    assert share_difference(first, [nobody, nobody], "right_with_wrong_step") is None
    with pytest.raises(ValueError, match="same seeds"):
        share_difference(first, first[:1], "wrong_steps")


def test_a_gap_is_a_leap_or_a_line_that_is_not_ready():
    some = rows(
        ("correct", {"needed": 3}),
        ("correct", {"needed": 2, "leap": 1}),
        ("wrong", {"needed": 1, "not ready": 2}),
        ("wrong", {"wrong value": 1}),
        ("correct", {"leap": 2, "not ready": 1}),
    )
    assert step_ratios([some], GAPS) == {"with_gap": 3 / 5, "right_without_gap": 1 / 2}
    found = step_shares([some * 40, some * 40], GAPS)
    assert set(found) == set(GAPS) and found["with_gap"].lo < 3 / 5 < found["with_gap"].hi
    difference = share_difference([some], [some[:1] * 5], "with_gap")
    assert difference.value == 3 / 5
    all_gaps = rows(("wrong", {"leap": 1}))
    assert step_ratios([all_gaps], GAPS) == {"with_gap": 1.0}  # nothing without a gap to be right
