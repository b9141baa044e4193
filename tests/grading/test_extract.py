"""Extraction by convention: what each kind finds, and that it finds nothing where nothing is marked."""

import json

import pytest
from shared_data import shared

from synthrl_jax.grading import KINDS, extract


def test_shared_extraction_cases_all_agree():
    with shared("data/grading/extraction_cases.jsonl").open() as lines:
        rows = [json.loads(line) for line in lines]
    assert [row["id"] for row in rows if extract(row["text"], row["kind"]) != row["expected"]] == []


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("gsm8k_hash", "so 5\n#### 1,234", "1234"),
        ("gsm8k_hash", "#### $1,234.50", "1234.50"),
        ("gsm8k_hash", "####: -3\nthanks", "-3"),
        ("gsm8k_hash", "#### 7\n#### ", "7"),
        ("gsm8k_hash", "### 7", None),
        ("a_colon", "Step 1\nA: 42", "42"),
        ("a_colon", "A: 1\nA: $2", "$2"),
        ("a_colon", "DNA: 5", None),
        ("a_colon", "A: ", None),
        ("answer_is", "The answer is 42 because geometry proves it.", "42"),
        ("answer_is", "The answer is 3. No: the final answer is $\\frac{1}{2}$.", "\\frac{1}{2}"),
        ("answer_is", "**Final Answer:** 3.5\n", "3.5"),
        ("answer_is", "the answer is:\n\\[ x = 5 \\]", "x = 5"),
        ("answer_is", "The answer is 1,000. I hope it is correct.", "1,000"),
        ("answer_is", "answers vary", None),
        ("boxed_last", "\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("boxed_last", "\\boxed{1}, then \\fbox{2}", "2"),
        ("boxed_last", "\\boxed{1} and \\boxed{2", "1"),
        ("boxed_last", "\\boxed{1} and \\boxed{}", "1"),
        ("boxed_last", "\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("boxed_last", "\\boxed {42}", "42"),
        ("boxed_last", "\\boxed 7 it is", "7"),
        ("boxed_last", "\\boxed{{{}", None),
        ("boxed_last", "boxed(3)", None),
        ("boxed_lenient", "\\boxed{1} but boxed[2]", "2"),
        ("boxed", "\\boxed{1} and \\boxed{2}", ["1", "2"]),
        ("boxed", "$\\boxed{1}$, $\\boxed{2}$, and $\\boxed{3}$", ["1", "2", "3"]),
        ("boxed", "first \\boxed{1}; we go on to \\boxed{2}", "2"),
        ("boxed_last_normalised", "\\boxed{\\$\\dfrac{1}{2}}", "\\frac{1}{2}"),
        ("boxed_last_normalised", "\\boxed{5\\text{ cm}}", "5 cm"),
        ("boxed_multi", "\\boxed{1, 2 and 3}", ["1", "2", "3"]),
        ("boxed_multi", "\\boxed{(1, 2), (3, 4)}", ["(1, 2)", "(3, 4)"]),
        ("boxed_multi", "\\boxed{1,234}", ["1,234"]),
        ("last_number", "from 10 to 1,234.5 dollars", "1234.5"),
        ("last_number", "5-3", "3"),
        ("last_number", "x = -3.", "-3"),
        ("last_number", "the pair (1,2)", "2"),
        ("math_fallback", "\\boxed{1} and the answer is 2", "1"),
        ("math_fallback", "it costs 3 or 4", "4"),
        ("delimited", "$\\frac{1}{2}$", "\\frac{1}{2}"),
        ("delimited", "<think>\\boxed{3}</think> \\boxed{4}", "4"),
        ("delimited", "<answer>2x + 3</answer>", "2x + 3"),
        ("free_text", "We find $x = 3$ and so $y = 4$.", "y = 4"),
        ("free_text", "First 6*7.\n42", "42"),
        ("free_text", "He pays $20 - $14 = $6 in total.", "6"),
        ("free_text", "each costs $3, so he pays 2 * $3 = $6\nA: 6", "6"),
        ("free_text", "... = 6.\n#### 6", "6"),
        ("free_text", "no idea", None),
        ("answer_is", "The answer is 5. I checked that this answer is correct.", "5"),
        ("answer_is", '{"steps": "...", "answer": "$350"}', "$350"),
        ("free_text", "\\frac{1}{2}", "\\frac{1}{2}"),
        ("free_text", "The value is 3/4", "3/4"),
        ("free_text", "(1,2)", "(1,2)"),
        ("free_text", "Yes", "Yes"),
        ("free_text", "No.", "No"),
        ("free_text", "B", "B"),
        ("free_text", "So we obtain 3\\sqrt{2}.", "3\\sqrt{2}"),
        ("free_text", "The point is (1, 2).", "(1, 2)"),
        ("free_text", "x = 5", "x = 5"),
        ("free_text", "[0, 1)", "[0, 1)"),
        ("free_text", "I got a 5", "5"),
        ("free_text", "Each of the 3 boys has 4.", "4"),
        ("free_text", "-7", "-7"),
        ("free_text", "It takes 2 1/2 hours", "2 1/2"),
        ("free_text", "we get 2x + 3", "2x + 3"),
        ("free_text", "5 cm", "5"),
        ("free_text", "\\left(1,2\\right)", "\\left(1,2\\right)"),
        ("free_text", "He has 3/4 of it", "3/4"),
        ("answer_is", "The answer is $3$ and $4$.", "$3$ and $4$"),
        ("answer_is", "The answer is $\\$5$.", "\\$5"),
        ("answer_is", "The answer is $x$ = 5.", "$x$ = 5"),
        ("answer_is", "The answer is $5$ dollars and he has 3 left.", "5"),
        ("answer_is", "The answer is $3$, because I say.", "3"),
        ("answer_is", "The answer is $3$", "3"),
        ("answer_is", "The answer is $x=1$, $y=2$.", "$x=1$, $y=2$"),
        ("answer_is", "the answer is \\(3\\) or \\(4\\).", "\\(3\\) or \\(4\\)"),
        ("answer_is", "The answer is $5</s>", "$5"),
        ("answer_is", "The answer is 5<|im_end|>", "5"),
        ("gsm8k_hash", "#### 5</s>", "5"),
        ("gsm8k_hash", "#### 5<|endoftext|>\n", "5"),
        ("a_colon", "A: 5</s></s>", "5"),
        ("boxed", "\\boxed{5}</s>", "5"),
        ("boxed", "\\boxed{1} or \\boxed{2}", "2"),
        ("boxed", "\\boxed{1}; \\boxed{2}", "2"),
        ("boxed", "\\boxed{1} and \\boxed{2}", ["1", "2"]),
        ("boxed", "\\boxed{1} & \\boxed{2}", "2"),
    ],
)
def test_conventions(kind, text, expected):
    assert extract(text, kind) == expected


def test_unknown_kind_names_the_known_ones():
    with pytest.raises(ValueError, match="gsm8k_hash"):
        extract("#### 1", "gsm9k")


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_end_of_a_long_text_counts(kind):
    text = "filler 1 " * 50_000 + "\nA: 7 and the answer is $\\boxed{7}$\n#### 7"
    assert extract(text, kind) is not None
    assert extract("", kind) is None
