"""Answers as models and public graders write them, family by family: what is the same, what differs, what is found."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthrl_jax.grading import equivalent, extract, grade

HERE = Path(__file__).parent


def pairs(name: str) -> list[tuple[str, str]]:
    """The pairs `a @@ b` of a table beside this file, one a line."""
    return [tuple(line.split(" @@ ")) for line in (HERE / name).read_text().splitlines()]


SAME, DIFFERENT = pairs("same_answers.txt"), pairs("different_answers.txt")

EXTRACTED = [
    ("gsm8k_hash", "#### $1,234.00", "1234.00"),
    ("gsm8k_hash", "He earns 5*3=<<5*3=15>>15\n#### 15", "15"),
    ("gsm8k_hash", "#### 12\n\nQuestion: another\n#### 13", "13"),
    ("gsm8k_hash", "####42", "42"),
    ("gsm8k_hash", "#### -7.", "-7"),
    ("gsm8k_hash", "#### 1,000,000", "1000000"),
    ("gsm8k_hash", "#### \\$20", "20"),
    ("gsm8k_hash", "The answer is 4", None),
    ("gsm8k_hash", "", None),
    ("gsm8k_hash", "####", None),
    ("gsm8k_hash", "#### 3/4", "3/4"),
    ("gsm8k_hash", "#### **18**", "18"),
    ("gsm8k_hash", "#### 5 apples", "5 apples"),
    ("gsm8k_hash", "text #### 9 \r\nmore", "9"),
    ("a_colon", "Q: how many?\nA: 5 apples", "5 apples"),
    ("a_colon", "A:7", "7"),
    ("a_colon", "A: 1,234\n", "1,234"),
    ("a_colon", "Q: x\nA: 3\nQ: y\nA: 4", "4"),
    ("a_colon", "A: \nA: 3", "3"),
    ("a_colon", "A: 3\nA: ", "3"),
    ("a_colon", "USA: 3", None),
    ("a_colon", "answer 3", None),
    ("a_colon", "A: **12**", "12"),
    ("a_colon", "A: $3.50", "$3.50"),
    ("answer_is", "So the answer is: \\(x=3\\)", "x=3"),
    ("answer_is", "The final answer is $\\frac{1}{2}$. I hope it is correct.", "\\frac{1}{2}"),
    ("answer_is", "Final Answer: The final answer is $24$. I hope it is correct.", "24"),
    ("answer_is", "The answer is 18.", "18"),
    ("answer_is", "the answer is 3.5.", "3.5"),
    ("answer_is", "The answer is $18.00.", "$18.00"),
    ("answer_is", "The answer is -3, because 2 - 5 = -3.", "-3"),
    ("answer_is", "Answer: 12", "12"),
    ("answer_is", "ANSWER: 12", "12"),
    ("answer_is", "Answer: (C)", "(C)"),
    ("answer_is", "The correct answer is (B).", "(B)"),
    ("answer_is", "The answer is A.", "A"),
    ("answer_is", "Therefore, the answer is \\boxed{7}.", "7"),
    ("answer_is", "**Answer:** $\\sqrt{2}$", "\\sqrt{2}"),
    ("answer_is", "The answer is\n42", "42"),
    ("answer_is", "The answer is (1, 2).", "(1, 2)"),
    ("answer_is", "The answer is \\[\\frac{3}{4}\\]", "\\frac{3}{4}"),
    ("answer_is", "the final answer is therefore 9.", "9"),
    ("answer_is", "The answer is 1. Wait, the answer is 2.", "2"),
    ("answer_is", "I do not know.", None),
    ("answer_is", "42", None),
    ("answer_is", "The answer to the question is 6.", "6"),
    ("answer_is", "The result is 1,234.", "1,234"),
    ("answer_is", "the answer is −5.", "−5"),
    ("answer_is", "The answer is x = 5 or x = 7.", "x = 5 or x = 7"),
    ("answer_is", "The answer is 5!", "5"),
    ("boxed_last", "\\boxed{42}", "42"),
    ("boxed_last", "$\\boxed{\\text{(A)}}$", "\\text{(A)}"),
    ("boxed_last", "\\boxed{\\frac{1}{\\sqrt{2}}}", "\\frac{1}{\\sqrt{2}}"),
    ("boxed_last", "\\boxed{1}\\boxed{2}", "2"),
    ("boxed_last", "so \\boxed{12", None),
    ("boxed_last", "\\boxed{7} and later \\boxed{\\frac{1}{2", "7"),
    ("boxed_last", "\\boxed{ 5 }", "5"),
    ("boxed_last", "\\boxed{\n5\n}", "5"),
    ("boxed_last", "\\boxed{\\begin{pmatrix}1\\\\2\\end{pmatrix}}", "\\begin{pmatrix}1\\\\2\\end{pmatrix}"),
    ("boxed_last", "\\fbox{3}", "3"),
    ("boxed_last", "\\boxed{}", None),
    ("boxed_last", "\\boxed{\\}}", "\\}"),
    ("boxed_last", "\\boxed{x=3}.", "x=3"),
    ("boxed_last", "no box 5", None),
    ("boxed_last", "\\boxed 5", "5"),
    ("boxed_last", "$\\boxed 5$", "5"),
    ("boxed_last", "\\boxed\\frac12", "\\frac12"),
    ("boxed_last", "\\boxed{1,000}", "1,000"),
    ("boxed_last", "\\boxed{\\$5}", "\\$5"),
    ("boxed_last", "\\boxed{a}} extra", "a"),
    ("boxed_last", "\\boxed{{1}}", "{1}"),
    ("boxed", "\\boxed{1}, \\boxed{2}", ["1", "2"]),
    ("boxed", "\\boxed{1}, \\boxed{2}, \\boxed{3}.", ["1", "2", "3"]),
    ("boxed", "\\boxed{1} and $\\boxed{2}$", ["1", "2"]),
    ("boxed", "$x=\\boxed{1}$ and $y=\\boxed{2}$", ["1", "2"]),
    ("boxed", "\\boxed{1}. Hmm, no: \\boxed{2}", "2"),
    ("boxed", "\\boxed{1}\n\n\\boxed{2}", "2"),
    ("boxed", "We get \\boxed{5}. Checking: 5 works.", "5"),
    ("boxed", "\\[\\boxed{1}\\text{ and }\\boxed{2}\\]", ["1", "2"]),
    ("boxed_last_normalised", "\\boxed{\\dfrac{3}{4}}", "\\frac{3}{4}"),
    ("boxed_last_normalised", "\\boxed{\\text{yes}}", "yes"),
    ("boxed_last_normalised", "\\boxed{\\$12}", "12"),
    ("boxed_last_normalised", "\\boxed{\\tfrac{1}{2}}", "\\frac{1}{2}"),
    ("boxed_last_normalised", "none", None),
    ("boxed_lenient", "boxed(42)", "42"),
    ("boxed_lenient", "boxed[42]", "42"),
    ("boxed_lenient", "\\boxed{42}", "42"),
    ("boxed_lenient", "boxed(f(x))", "f(x)"),
    ("boxed_lenient", "unboxed 3", None),
    ("boxed_multi", "\\boxed{1, 2, 3}", ["1", "2", "3"]),
    ("boxed_multi", "\\boxed{1 or 2}", ["1", "2"]),
    ("boxed_multi", "\\boxed{1 \\text{ and } 2}", ["1", "2"]),
    ("boxed_multi", "\\boxed{5}", ["5"]),
    ("boxed_multi", "\\boxed{\\{1, 2\\}, 3}", ["\\{1, 2\\}", "3"]),
    ("boxed_multi", "\\boxed{1,2,3}", ["1,2,3"]),
    ("boxed_multi", "nothing", None),
    ("last_number", "It costs $1,234.50 in total", "1234.50"),
    ("last_number", "from 3 to 4.", "4"),
    ("last_number", "about -7 degrees", "-7"),
    ("last_number", "no numbers", None),
    ("last_number", "3 + 4 = 7 apples", "7"),
    ("last_number", "1/2", "2"),
    ("last_number", "10%", "10"),
    ("last_number", "version 2.0.", "2.0"),
    ("last_number", "x=.5", ".5"),
    ("last_number", "1,2,3", "3"),
    ("last_number", "temperature is −7", "-7"),
    ("math_fallback", "\\boxed{3} 4", "3"),
    ("math_fallback", "The answer is 3, out of 4", "3"),
    ("math_fallback", "I count 3 then 4", "4"),
    ("math_fallback", "nothing at all", None),
    ("delimited", "$5$", "5"),
    ("delimited", "\\(x+1\\)", "x+1"),
    ("delimited", "\\[x+1\\]", "x+1"),
    ("delimited", "$$x+1$$", "x+1"),
    ("delimited", "\\boxed{5}", "5"),
    ("delimited", "5", "5"),
    ("delimited", "<answer>5</answer>", "5"),
    ("delimited", "  ", None),
    ("delimited", "\\boxed{1}, \\boxed{2}", ["1", "2"]),
    ("free_text", "So the area is $12\\pi$.", "12\\pi"),
    ("free_text", "The total is 12 apples", "12"),
    ("free_text", "Answer: \\boxed{x^2}", "x^2"),
    ("free_text", "#### 5", "5"),
    ("free_text", "The final answer is $\\frac{1}{2}$. I hope it is correct.", "\\frac{1}{2}"),
    ("free_text", "<think>maybe 5</think>The answer is 6.", "6"),
    ("free_text", "<answer> 7 </answer>", "7"),
    ("free_text", "", None),
]

GRADED = [
    ("free_text", "The final answer is $\\frac{1}{2}$. I hope it is correct.", "0.5", "correct"),
    ("free_text", "So $x = 3$.\nFinal Answer: The final answer is $x = 3$. I hope it is correct.", "3", "correct"),
    ("free_text", "so we get \\boxed{\\text{(B)}}", "B", "correct"),
    ("free_text", "It is about 5 or 6.", "7", "wrong"),
    ("boxed", "Thus \\boxed{\\dfrac{1}{2}}.", "\\frac12", "correct"),
    ("boxed", "\\boxed{3} and \\boxed{5}", "5, 3", "correct"),
    ("boxed", "\\boxed{3}. No, \\boxed{5}", "3", "wrong"),
    ("boxed", "the answer is 5", "5", "no_answer"),
    ("boxed_last", "\\boxed{[0, 1)}", "0 \\le x < 1", "correct"),
    ("boxed_last", "\\boxed{[0, 1]}", "[0,1)", "wrong"),
    ("gsm8k_hash", "#### $1,234.00", "1234", "correct"),
    ("gsm8k_hash", "#### 1233.9999999", "1234", "wrong"),
    ("a_colon", "A: 5 apples", "5", "correct"),
    ("a_colon", "A: five", "5", "correct"),
    ("answer_is", "So the answer is: \\(x=3\\)", "3", "correct"),
    ("last_number", "it falls to −7", "-7", "correct"),
    ("boxed", "\\boxed{10^{10^{10}}!}", "7", "grader_error"),
]


@pytest.mark.parametrize(("expected", "table"), [(True, SAME), (False, DIFFERENT)], ids=["same", "different"])
def test_pairs(expected, table):
    wrong = [pair for pair in table if equivalent(*pair) != expected or equivalent(*pair[::-1]) != expected]
    assert wrong == []


def test_every_answer_is_itself():
    assert [side for pair in SAME + DIFFERENT for side in pair if not equivalent(side, side + " ")] == []


def test_extraction():
    found = [(kind, text, expected, extract(text, kind)) for kind, text, expected in EXTRACTED]
    assert [case for case in found if case[2] != case[3]] == []


@pytest.mark.parametrize(("kind", "text", "gold", "outcome"), GRADED)
def test_outcomes_of_texts(kind, text, gold, outcome):
    assert grade(text, gold, kind).outcome == outcome


def test_any_two_answers_are_judged_alike_both_ways_and_a_box_changes_nothing():
    answers = sorted({side for pair in SAME + DIFFERENT for side in pair})

    @settings(max_examples=400, deadline=None, database=None)
    @given(st.sampled_from(answers), st.sampled_from(answers))
    def check(a, b):
        verdict = equivalent(a, b)
        assert equivalent(b, a) == verdict
        assert equivalent(f"\\boxed{{{b}}}", a) == verdict

    check()
