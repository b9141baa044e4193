"""Grade one text against a gold answer: one of four outcomes, with the reason."""

from typing import NamedTuple

from synthrl_jax.grading import equivalence, limits
from synthrl_jax.grading.extract import GUESSES, extract, extractor

OUTCOMES = ("correct", "wrong", "no_answer", "grader_error")


class Verdict(NamedTuple):
    """`outcome` is one of OUTCOMES; `extracted` the answer found (None: nothing); `reason` says what decided."""

    outcome: str
    extracted: str | list[str] | None
    reason: str


def joint(answer: str | list[str]) -> str:
    """An extracted answer as one string."""
    return answer if isinstance(answer, str) else ", ".join(answer)


def gold_answer(gold: str, kind: str) -> str:
    """The answer of a gold text that may itself be a solution or carry delimiters."""
    find = extractor(kind)
    if kind in ("last_number",) or find is None:
        return gold
    if kind in GUESSES or kind == "answer_is":
        kind = "delimited"
    found = extract(gold, kind)
    return gold if found is None else joint(found)


def quick(text: str, gold: str, kind: str) -> tuple[Verdict | None, str | list[str] | None, str, str]:
    """(verdict where strings and plain numbers decide it, else None; extracted answer; gold answer; answer as one string)."""
    answer = extract(text, kind)
    if answer is None:
        return Verdict("no_answer", None, f"nothing found by {kind}"), None, gold, ""
    prediction = joint(answer)
    whole = kind in ("delimited", "free_text") and text.strip() == gold.strip()
    same = whole or equivalence.quick(gold, prediction)
    if same is None:
        gold = gold_answer(gold, kind)
        if not gold.strip():
            return Verdict("grader_error", answer, "the gold answer is empty"), answer, gold, prediction
        same = equivalence.quick(gold, prediction)
    if same is None:
        return None, answer, gold, prediction
    reason = "identical" if whole or gold == prediction else "numbers"
    return Verdict("correct" if same else "wrong", answer, reason), answer, gold, prediction


def compare(gold: str, prediction: str) -> tuple[str, str]:
    """(outcome, reason) for an extracted answer; never raises on text."""
    try:
        same = equivalence.decide(gold, prediction)
    except limits.BeyondLimits as error:
        return "grader_error", f"beyond the limits: {error}"
    except Exception as error:  # a verdict on hostile text must not end the run
        return "grader_error", f"{type(error).__name__}: {error}"[:200]
    return ("correct", "equivalent") if same else ("wrong", "not equivalent")


def grade(text: str, gold: str, kind: str) -> Verdict:
    """Verdict on a model's text by a convention of `extract`, in this process; never raises on text.

    A grader error says that the grader came to no verdict; it is never a wrong answer. ValueError for an unknown kind.
    """
    extractor(kind)
    text, gold = "" if text is None else str(text), "" if gold is None else str(gold)
    try:
        verdict, answer, gold, prediction = quick(text, gold, kind)
    except Exception as error:
        return Verdict("grader_error", None, f"{type(error).__name__}: {error}"[:200])
    if verdict is not None:
        return verdict
    outcome, reason = compare(gold, prediction)
    return Verdict(outcome, answer, reason)
