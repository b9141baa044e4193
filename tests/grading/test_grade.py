"""The four outcomes, golds in every form, and the agreement with labels on model outputs."""

import json

import pytest
from shared_data import shared

from synthrl_jax import grading
from synthrl_jax.grading import equivalent, extract, grade


@pytest.mark.parametrize(
    ("text", "gold", "kind", "outcome", "extracted"),
    [
        ("#### 42", "42", "gsm8k_hash", "correct", "42"),
        ("#### 42", "so 6 * 7 = <<6*7=42>>42\n#### 42", "gsm8k_hash", "correct", "42"),
        ("#### 1,000 dollars", "1000", "gsm8k_hash", "correct", "1000 dollars"),
        ("#### 41", "42", "gsm8k_hash", "wrong", "41"),
        ("no marker, 42", "42", "gsm8k_hash", "no_answer", None),
        ("A: 1/2", "0.5", "a_colon", "correct", "1/2"),
        ("\\boxed{1} and \\boxed{-2}", "$-2, 1$", "boxed", "correct", ["1", "-2"]),
        ("\\boxed{9**9**9**9}", "42", "boxed", "grader_error", "9**9**9**9"),
        ("\\boxed{5}", "", "boxed", "grader_error", "5"),
        ("\\boxed{5", "5", "boxed", "no_answer", None),
        ("odd $n$", "odd $n$", "free_text", "correct", "n"),
        (None, "5", "boxed", "no_answer", None),
        ("The answer is 5.", 5, "answer_is", "correct", "5"),
    ],
)
def test_outcomes(text, gold, kind, outcome, extracted):
    verdict = grade(text, gold, kind)
    assert (verdict.outcome, verdict.extracted) == (outcome, extracted)
    assert verdict.reason


@pytest.mark.parametrize(
    ("text", "gold", "kind", "outcome"),
    [
        ("\\frac{1}{2}", "2", "free_text", "wrong"),
        ("\\frac{1}{2}", "0.5", "free_text", "correct"),
        ("The value is 3/4", "4", "free_text", "wrong"),
        ("The value is 3/4", "0.75", "free_text", "correct"),
        ("Yes", "yes", "free_text", "correct"),
        ("Yes", "No", "free_text", "wrong"),
        ("The answer is $3$ and $4$.", "3", "answer_is", "wrong"),
        ("The answer is $3$ and $4$.", "3, 4", "answer_is", "correct"),
        ("The answer is $\\$5$", "5", "answer_is", "correct"),
        ("The answer is $x$ = 5", "5", "answer_is", "correct"),
        ("#### 5</s>", "5", "gsm8k_hash", "correct"),
        ("The answer is (1,2)", "(1,2)", "free_text", "correct"),
        ("x = 5", "5", "free_text", "correct"),
    ],
)
def test_the_whole_answer_is_read(text, gold, kind, outcome):
    assert grade(text, gold, kind).outcome == outcome


def test_an_unknown_kind_is_an_error_at_once():
    with pytest.raises(ValueError, match="boxed_last"):
        grade("5", "5", "box")
    with pytest.raises(ValueError, match="boxed_last"):
        grading.grade_many([("5", "5", "delimited"), ("5", "5", "box")])


def test_gsm8k_example_solutions_agree_with_their_labels():
    total = differences = 0
    with shared("data/gsm8k/example_model_solutions.jsonl").open() as lines:
        for row in map(json.loads, lines):
            gold = extract(row["ground_truth"], "a_colon")
            for solution in row.values():
                if isinstance(solution, dict):
                    total += 1
                    verdict = grade(solution["solution"], gold, "a_colon")
                    differences += (verdict.outcome == "correct") != solution["is_correct"]
                    assert verdict.outcome != "grader_error"
    assert total == 5276
    assert differences / total <= 0.001


def test_labels_of_graded_outputs_agree():
    with shared("data/grading/graded_outputs.jsonl").open() as lines:
        rows = [row for row in map(json.loads, lines) if not row.get("dubious")]
    agreed = sum(equivalent(row["gold"], row["extracted"]) == row["label"] for row in rows)
    assert agreed / len(rows) >= 0.997


def test_gold_answers_of_gsm8k_are_right_by_their_own_convention():
    with shared("data/gsm8k/test.jsonl").open() as lines:
        rows = [json.loads(line) for line in lines]
    assert all(grade(row["answer"], row["answer"], "gsm8k_hash").outcome == "correct" for row in rows)
