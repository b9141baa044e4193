"""Hostile texts run no code, stay within their limits, never raise, and leave the honest rows around them alone."""

import ast
import itertools
import json
import random
import time
from pathlib import Path

import hostile_kinds
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shared_data import shared

from synthrl_jax import grading
from synthrl_jax.grading import KINDS, OUTCOMES, equivalent, grade, grade_many

SIZES = [
    pytest.param(2_000, id="quick"),
    pytest.param(100_000, id="full", marks=[pytest.mark.long, pytest.mark.timeout(3_600)]),
]
WRAPPED = {
    "boxed": "\\boxed{{{}}}",
    "gsm8k_hash": "#### {}",
    "a_colon": "A: {}",
    "answer_is": "The answer is {}",
    "delimited": "{}",
    "free_text": "{}",
    "math_fallback": "{}",
    "boxed_multi": "\\boxed{{{}}}",
    "boxed_lenient": "\\boxed{{{}}}",
    "boxed_last": "\\boxed{{{}}}",
    "boxed_last_normalised": "\\boxed{{{}}}",
    "last_number": "{}",
}
SECONDS = 2.0  # of any one text, on a slow and busy machine
HONEST = [("\\boxed{42}", "42", "correct"), ("\\boxed{\\frac{2}{4}}", "0.5", "correct"), ("\\boxed{7}", "8", "wrong")]
HONEST += [
    ("\\boxed{\\sqrt{8}}", "2\\sqrt{2}", "correct"),
    ("\\boxed{x+1}", "x+2", "wrong"),
    ("nothing", "1", "no_answer"),
]


@pytest.fixture
def canary(tmp_path, monkeypatch) -> Path:
    """A file that hostile text tries to make; it must not exist afterwards, nor may the process have opened anything."""
    monkeypatch.chdir(tmp_path)
    hostile_kinds.warm_up()
    hostile_kinds.EVENTS.clear()
    path = tmp_path / hostile_kinds.CANARY
    yield path
    assert not path.exists()
    assert list(tmp_path.iterdir()) == []
    assert hostile_kinds.EVENTS == []


def test_there_are_over_two_hundred_kinds():
    assert len(hostile_kinds.kinds()) >= 200
    assert len(set(hostile_kinds.kinds().values())) >= 200


CONVENTIONS = [pytest.param(2, id="quick"), pytest.param(len(WRAPPED), id="full", marks=pytest.mark.long)]


@pytest.mark.parametrize("conventions", CONVENTIONS)
@pytest.mark.parametrize("gold", ["42", "\\sqrt{2}+x"])
def test_hostile_answers_are_never_right_and_soon_decided(canary, gold, conventions):
    turning = itertools.cycle(WRAPPED.items())
    for name, text in hostile_kinds.kinds(str(canary)).items():
        for kind, wrapper in itertools.islice(turning, conventions):
            start = time.process_time()
            verdict = hostile_kinds.watched(grade, wrapper.format(text), gold, kind)
            assert verdict.outcome in OUTCOMES
            if "41" not in text and kind not in ("last_number", "math_fallback", "free_text"):
                assert verdict.outcome != "correct", (name, kind)
            assert time.process_time() - start < SECONDS, (name, kind)


def test_hostile_golds_and_pairs_never_raise(canary):
    texts = list(hostile_kinds.kinds(str(canary)).values())
    rng = random.Random(0)
    for text in texts:
        other = rng.choice(texts)
        assert hostile_kinds.watched(equivalent, text, text)
        assert hostile_kinds.watched(equivalent, text, other) == hostile_kinds.watched(equivalent, other, text)
        assert hostile_kinds.watched(grade, "\\boxed{1}", text, "boxed").outcome in OUTCOMES


def test_the_audit_hook_sees_what_it_watches(canary):
    hostile_kinds.watched(lambda: Path("/dev/null").open().close())
    assert hostile_kinds.EVENTS
    hostile_kinds.EVENTS.clear()
    hostile_kinds.watched(eval, "1")
    assert hostile_kinds.EVENTS
    hostile_kinds.EVENTS.clear()


def test_the_pool_grades_the_honest_rows_between_hostile_ones(canary):
    rows, expected = [], []
    for number, text in enumerate(hostile_kinds.kinds(str(canary)).values()):
        rows.append((f"\\boxed{{{text}}}", "\\sqrt{3}+y", "boxed"))
        expected.append(None)
        text, gold, outcome = HONEST[number % len(HONEST)]
        rows.append((text, gold, "boxed"))
        expected.append(outcome)
    verdicts = grade_many(rows, workers=2, seconds=20, memory_mb=512, grader="hostile_kinds:compare")
    for row, verdict, outcome in zip(rows, verdicts, expected):
        assert "EVENTS" not in verdict.reason, row
        if outcome is not None:
            assert verdict.outcome == outcome, row
        else:
            assert verdict.outcome != "correct", row
            # the grader's own limits decide, not the killing of a worker
            assert "no verdict in" not in verdict.reason and "died" not in verdict.reason, row


ATOMS = [
    *"0 1 2 7 10 x y n e i + - * / ^ _ ! ! | , ; : = < > . ( ) [ ] { } % $ & ' \" ~ # @ \\ \n".split(" "),
    *"\\frac \\sqrt \\{ \\} \\le \\pm \\cup \\in \\sin \\log \\ln \\pi \\infty \\binom \\left( \\right) \\\\ \\, \\circ".split(),
    *"\\text{ \\boxed{ \\begin{pmatrix} \\end{pmatrix} \\sum_{k=1}^{n} \\int \\lim \\overline{ \\mathbb{R} \\cdot".split(),
    *"9**9 1e99 factorial and or cm the_answer_is #### A: sin( max( mod det eval( __import__ \x00 \ud800 ½ ² ∞ π ٣ é".split(),
    "{10^{10}}",
    "<answer>",
    "</think>",
    "The answer is ",
]
SOUP = st.lists(st.sampled_from(ATOMS), max_size=30).map("".join)
TEXTS = st.one_of(SOUP, SOUP, st.text(max_size=60), st.binary(max_size=40).map(lambda b: b.decode("latin-1")))


def mutated(draw_from: list[str]):
    """Real answers with pieces cut out, doubled and put in."""

    def mutate(drawn):
        text, cuts = drawn
        for at, length, piece in cuts:
            at %= len(text) + 1
            text = text[:at] + piece + text[at + length :]
        return text

    cut = st.tuples(st.integers(0, 400), st.integers(0, 6), st.sampled_from(["", *ATOMS]))
    return st.tuples(st.sampled_from(draw_from), st.lists(cut, min_size=1, max_size=4)).map(mutate)


def answers() -> list[str]:
    with shared("data/grading/grader_cases.jsonl").open() as lines:
        rows = [json.loads(line) for line in lines]
    return [text for row in rows for text in (row["gold"], row["prediction"]) if text]


@pytest.mark.parametrize("size", SIZES)
def test_fuzzed_texts(canary, size):
    known = answers()

    def check(drawn):
        text, gold, kind = drawn
        start = time.process_time()
        verdict = hostile_kinds.watched(grade, WRAPPED[kind].format(text), gold, kind)
        assert verdict.outcome in OUTCOMES
        assert "Error" not in verdict.reason, verdict
        assert hostile_kinds.watched(equivalent, text, text)
        assert time.process_time() - start < SECONDS
        assert hostile_kinds.EVENTS == []

    rows = st.tuples(st.one_of(TEXTS, mutated(known)), st.sampled_from(known), st.sampled_from(sorted(KINDS)))
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
    settings(max_examples=size, deadline=None, database=None, suppress_health_check=quiet)(given(rows)(check))()


def test_no_module_of_the_room_holds_a_way_to_run_text():
    room = Path(grading.__file__).parent
    for path in room.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                assert not any(name.split(".")[0] in ("sympy", "pickle", "ast", "shelve") for name in names), path
            if isinstance(node, ast.Call):
                called = getattr(node.func, "id", None) or getattr(node.func, "attr", "")
                assert called not in ("eval", "exec", "sympify", "parse_expr", "literal_eval", "mpmathify"), path
                assert called != "compile" or getattr(node.func.value, "id", "") == "re", path
