"""The conventions of equivalence, fact by fact, both ways round; and the agreement with public graders' cases."""

import json
import subprocess
import sys

import pytest
from shared_data import shared

from synthrl_jax.grading import equivalent, grade

SAME = r"""
1,234 | 1234
1\,234 | 1234
14{,}916 | 14,916
007 | 7
42. | 42
.5 | 1/2
3 1/3 | \frac{10}{3}
2\frac58 | 2.625
3.54e-07 | 3.54 \times 10^{-7}
3 million | 3000000
0.\overline{3} | \frac13
2.1\overline{6} | \frac{13}{6}
2^{100} | 1267650600228229401496703205376
50% | 50
50\% | 50
\$5.00 | 5
50 dollars | 50
10 cm | 10
5\text{ m/s}^2 | 5
25^\circ\text{C} | 25
45° | 45
x = 5 | 5
5 = x | 5
f(x) = 2x+1 | 1+2x
\angle ABC = 30^\circ | 30
(p,q)=(3,2) | (3,2)
x=1, y=2 | y=2, x=1
\frac{1}{12} | 0.0833333333333333
\frac{2}{3} | 0.666667
\sqrt{2} | 1.41421356
\frac{\sqrt3}{2} | \cos 30^\circ
\sqrt{5+2\sqrt6} | \sqrt2+\sqrt3
e^{i\pi} | -1
\frac{1}{1+i} | \frac{1-i}{2}
(x+1)(x-1) | x^2-1
\frac{x^2-1}{x-1} | x+1
\tan^2 y + 1 | \sec^2 y
\ln(ab) | \ln a + \ln b
a^{m+n} | a^m a^n
\sqrt{x^2} | |x|
\sqrt[3]{-8} | -2
\frac{100!}{98!} | 9900
\sum_{k=1}^{10} k | 55
F_n = \sum_{k=0}^{n-1} F_k F_{n-k-1} | F_n = \sum_{j=0}^{n-1} F_{n-j-1} F_j
\{1,2\} | \{2,1\}
1, 3, 2 | 1, 2, 3
\pm 2 | -2, 2
1 \pm \sqrt{19} | 1+\sqrt{19}, 1-\sqrt{19}
x = 1 \text{ or } x = 2 | 1, 2
[0,1)\cup[1,2] | [0,2]
\mathbb{R}\setminus\{0\} | (-\infty,0)\cup(0,\infty)
-2 \le x \le 7 | [-2,7]
x < -1 \text{ or } x > 3 | (-\infty,-1)\cup(3,\infty)
x \neq 1 | (-\infty,1)\cup(1,\infty)
\{x \mid x > 2\} | (2,\infty)
x \le 1 | -x \ge -1
y = 2x+1 | 2x - y + 1 = 0
x^2/4 + y^2/3 = 1 | x^2/16 + y^2/12 = 1/4
\begin{pmatrix}1/2&2\\3&4\end{pmatrix} | \begin{bmatrix}0.5&2\\3&4\end{bmatrix}
\frac12\begin{pmatrix}2\\4\end{pmatrix} | \begin{pmatrix}1\\2\end{pmatrix}
\begin{vmatrix}1&2\\3&4\end{vmatrix} | -2
7:32 | \frac{7}{32}
2:3:5 | 4:6:10
4210_7 | 4210_{7}
\text{Even} | even
(C) | \text{C}
(B) 12 | B
4:30 p.m. | 4:30 \text{ pm}
\emptyset | \varnothing
π/2 | \frac{\pi}{2}
x² + 1 | x^{2}+1
−5 | -5
"""

DIFFERENT = r"""
0.33 | 1/3
0.3333 | \frac13
0.1666666 | \frac16
9999.9999999 | 10000
0.9999999999 | 1
2.9999999999999996 | 3
3.14159 | \pi
1.41421357 | \sqrt2
0.1 | 10%
3 million | 3
32, 349 | 32349
9007199254740993 | 9007199254740992
3^{2025} | 2^{2025}
100000000001000000000 | 100000000000000000000
(1,2) | (2,1)
(1,2) | [1,2]
(1,2) | (1,2]
[1,2] | \{1,2\}
\{1,2\} | \{1,2,3\}
1, 2 | 1
(0,1)\cup(1,2) | (0,2)
x > 3 | x \ge 3
x > 3 | x < 3
x = 5 | y = 5
x=1, y=2 | x=2, y=1
7 = 11a+c | 11a+c
a^2 + b = 0 | 0
15n=75 | 7
x | X
A | B
x_1 | x_2
x' | x
even | neve
p - q | q - p
x\sqrt{y} | \sqrt{x^2y}
\sqrt{x^2} | x
3+4i | 3-4i
-\infty | \infty
2/0 | 1/0
4:30 a.m. | 4:30 p.m.
2516_8 | 683_{8}
\begin{pmatrix}1&2\\3&4\end{pmatrix} | \begin{pmatrix}1&2\\3&5\end{pmatrix}
\begin{pmatrix}1&2\end{pmatrix} | \begin{pmatrix}1\\2\end{pmatrix}
1 hour 30 minutes | 1
5 | five percent of 7
\frac12 | eval("1")
"""


def pairs(table: str) -> list[tuple[str, str]]:
    return [tuple(line.split(" | ")) for line in table.strip().splitlines()]


@pytest.mark.parametrize(("a", "b"), pairs(SAME))
def test_same(a, b):
    assert equivalent(a, b)
    assert equivalent(b, a)


@pytest.mark.parametrize(("a", "b"), pairs(DIFFERENT))
def test_different(a, b):
    assert not equivalent(a, b)
    assert not equivalent(b, a)


@pytest.mark.parametrize(("a", "b"), pairs(SAME) + pairs(DIFFERENT))
def test_wrapping_changes_no_verdict(a, b):
    verdict = equivalent(a, b)
    for wrapped in (f"${b}$", f"\\boxed{{{b}}}", f"\\( {b} \\)", f" {b}\n", b.replace("\\frac", "\\dfrac")):
        assert equivalent(a, wrapped) == verdict
    assert equivalent(a, a)


def cases() -> list[dict]:
    with shared("data/grading/grader_cases.jsonl").open() as lines:
        return [row for row in map(json.loads, lines) if not row.get("dubious")]


def case_verdict(row: dict) -> bool:
    if row["kind"] in ("delimited", "free_text"):
        return grade(row["prediction"], row["gold"], row["kind"]).outcome == "correct"
    return equivalent(row["gold"], row["prediction"])


def test_public_graders_cases_agree():
    rows = [row for row in cases() if row["kind"] != "latex_vs_sympy_str"]
    agreed = sum(case_verdict(row) == row["expected_equal"] for row in rows)
    assert agreed / len(rows) >= 0.985


def test_text_forms_of_sympy_are_read():
    rows = [row for row in cases() if row["kind"] == "latex_vs_sympy_str"]
    assert sum(case_verdict(row) == row["expected_equal"] for row in rows) / len(rows) >= 0.9


def test_it_is_symmetric_and_reflexive_on_all_cases():
    for row in cases():
        gold, prediction = row["gold"], row["prediction"]
        assert equivalent(gold, prediction) == equivalent(prediction, gold)
        assert equivalent(gold, gold)
        assert equivalent(prediction, prediction)


def test_importing_the_room_is_cheap_and_plain_numbers_load_no_mathematics():
    code = (
        "import sys\nfrom synthrl_jax import grading\n"
        "assert grading.equivalent('1,000', '1000')\n"
        "heavy = {'sympy', 'mpmath', 'numpy', 'jax'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert grading.equivalent(r'\\sqrt{8}', r'2\\sqrt2')\n"
        "assert 'jax' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
