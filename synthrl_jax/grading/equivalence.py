"""Whether two final answers are the same: strings, plain numbers, words, then formulas by a grammar of our own.

No text ever becomes code: it is cut into tokens (`tokens`), read by a recursive-descent grammar (`grammar`), and two
expressions are compared exactly modulo primes where they are rational (`modular`) and to 50 and 160 digits elsewhere
(`numeric`). Nothing is simplified or solved, so the work is bounded by the size of the text and by `limits`.
"""

import functools
import re

from synthrl_jax.grading import answers, extract, grammar, limits, numbers, numerals, words
from synthrl_jax.grading.boxes import boxes, joined
from synthrl_jax.grading.nodes import Node, Unreadable
from synthrl_jax.grading.tidy import tidy

_TAGS = re.compile(r"</?(?:answer|think)>|\\f?boxed\b|\\fbox\b")
_SAID = re.compile(r"(?:\b(?:is|are|equals|was|gives|get|it's|that's)\b|=|:)\s*([-+$\\({\[|.0-9][^=:]*?)\s*\.?\s*\Z")
_CHOICE = re.compile(r"(?:\\text(?:bf)?\s*\{\s*)?\(?([A-Ja-j])(?:\)|[.:])[)}]?[\s~\\}].*", re.DOTALL)
_LETTER = re.compile(r"(?:\\(?:text(?:bf)?|mathrm|mathbf)\s*\{\s*)?\(?([A-Ja-j])\)?\s*\}?\.?")
_SENTENCE = re.compile(r"(\S.{0,200}?)[.!]\s+[A-Z]\w*[ ,]")
_FORMAL = re.compile(r"[0-9\\=]")
_WORD = re.compile(r"(?<![\\a-zA-Z{])[A-Za-z']{2,}")


def quick(gold: str, prediction: str) -> bool | None:
    """The verdict where two strings are identical or both plain numbers; None where that does not decide."""
    if gold == prediction:
        return True
    a = numbers.plain(gold)
    if a is None:
        return None
    b = numbers.plain(prediction)
    return None if b is None else numbers.same_number(a, b)


def equivalent(gold: str, prediction: str) -> bool:
    """Whether two final answers are the same; symmetric and reflexive, never raises on text.

    Percent signs, currency and units are dropped (50% = 50, 10 cm = 10); `x = 5` equals `5`; order counts in tuples and
    intervals, not in sets and bare lists; open and closed ends of intervals differ; a decimal equals a fraction (or an
    irrational number) when it is that number rounded to at least six digits after the point, and never an integer that
    it merely rounds to. What is beyond the limits is not equivalent: `decide` tells it apart.
    """
    try:
        return decide(gold, prediction)
    except limits.BeyondLimits:
        return False


def decide(gold: str, prediction: str) -> bool:
    """`equivalent`, but BeyondLimits where the limits keep it from a verdict."""
    gold, prediction = gold.strip(), prediction.strip()
    verdict = quick(gold, prediction)
    if verdict is not None:
        return verdict
    if not gold or not prediction:
        return False
    a, b = _uncovered(gold), _uncovered(prediction)
    verdict = quick(a, b)
    if verdict is not None:
        return verdict
    try:
        return _decide(a, b)
    except RecursionError:
        raise limits.BeyondLimits("nested too deeply") from None
    except (MemoryError, OverflowError) as error:
        raise limits.BeyondLimits(type(error).__name__) from None


def _uncovered(text: str) -> str:
    """The answer inside boxes, tags and delimiters."""
    if len(text) > limits.LENGTH:
        raise limits.BeyondLimits(f"an answer of {len(text)} characters")
    if _TAGS.search(text):
        text = extract._shown(text)
        found = boxes(text)
        if found:
            return ", ".join(joined(text, found))
    return text


def _decide(a: str, b: str) -> bool:
    a, b = tidy(a), tidy(b)
    verdict = True if a == b and a else quick(a, b)
    if verdict is not None:
        return verdict
    if words.same_words(a, b) or _same_choice(a, b) or _same_choice(b, a):
        return True
    first, second = _node(numerals.rewritten(a) or a), _node(numerals.rewritten(b) or b)
    if first is None or second is None:
        return False
    return answers.same(first, second, limits.Budget())


def _same_choice(letter: str, labelled: str) -> bool:
    """Whether `(B) 12`, `B. twelve` is the choice that a lone letter names."""
    lone = _LETTER.fullmatch(letter)
    choice = _CHOICE.fullmatch(labelled) if lone else None
    return choice is not None and choice.group(1).lower() == lone.group(1).lower()


@functools.lru_cache(maxsize=4096)
def _node(text: str) -> Node | None:
    """The formula that a tidied text is, or that its last clause says; None for neither."""
    sentence = _SENTENCE.match(text)
    if sentence and _FORMAL.search(sentence.group(1)) and len(_WORD.findall(text)) > 2:
        text = spoken(text) or text
    try:
        node = grammar.parse(text)
        if node[0] != "text" and not (node[0] == "mul" and len(_WORD.findall(text)) > 3):
            return node
    except Unreadable:
        node = None
    said = spoken(text)
    if said is not None:
        try:
            return grammar.parse(said)
        except Unreadable:
            return None
    return node


def spoken(text: str) -> str | None:
    """The value that a sentence ends with: "The answer is 42", "Final answer: 42"."""
    if len(_WORD.findall(text)) < 2:
        return None
    first = _SENTENCE.match(text)
    if first and not _FORMAL.search(first.group(1)):  # "Mr. Smith ..."
        first = None
    if first:  # "42. I hope it is correct"
        text = first.group(1)
        if len(_WORD.findall(text)) < 2:
            return text
    found = _SAID.search(text)
    return found.group(1) if found else text if first else None
