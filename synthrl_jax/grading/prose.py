"""Values that stand bare in prose, without delimiters: fractions, tuples and formulas are read whole."""

import re

from synthrl_jax.grading import grammar, limits
from synthrl_jax.grading.nodes import Unreadable
from synthrl_jax.grading.tidy import tidy
from synthrl_jax.grading.tokens import FUNCTIONS, tokens

_LONGEST = 200  # characters of a bare value
_REACH = 8  # pieces between spaces, on either side of the last number
_WORD = re.compile(r"(?<![\\A-Za-z0-9_^{)])[A-Za-z]{2,}")
_LONE_WORD = re.compile(r"\s*[*_\"']*([A-Za-z]{1,20})[*_\"']*[.!]?\s*")
_DELIMITERS = re.compile(r"\$|\\[(\[]|<<|>>")
_OPERATION = re.compile(r"[=<>+*/^≤≥−-]|\\(?:le|ge|in|cdot|times|cup)")
_CALCULATION = re.compile(r"[0-9\s+\-−*/×÷().,]*=\s*(?=[^=]*\Z)")
_DIGIT = re.compile(r"[0-9]")


def whole(text: str) -> str | None:
    """A text that is one word or one formula and nothing else."""
    if (lone := _LONE_WORD.fullmatch(text)) is not None:
        return lone.group(1)
    text = text.strip()
    return text if "\n" not in text and _reads(text) else None


def last_value(text: str) -> str | None:
    """The longest formula around the last number of a text; None where only the number itself can be read."""
    line = next((line for line in reversed(text.splitlines()) if _DIGIT.search(line)), "")
    pieces = line[-4 * _LONGEST :].split()
    at = next((i for i in range(len(pieces) - 1, -1, -1) if _DIGIT.search(pieces[i])), None)
    if at is None or _is_prose(pieces[at]):
        return None
    first, last = at, at
    while (
        first > max(0, at - _REACH) and not _is_prose(pieces[first - 1]) and not pieces[first - 1].endswith((".", ":"))
    ):
        first -= 1
    while (
        last < min(len(pieces) - 1, at + _REACH) and not _is_prose(pieces[last + 1]) and pieces[last][-1] not in ".!?"
    ):
        last += 1
    for end in range(last, at - 1, -1):
        for start in range(first, at + 1):
            is_letter = start < end and len(pieces[start]) == 1 and pieces[start].isalpha()
            if is_letter and not _OPERATION.match(pieces[start + 1]):  # "a 5", but "x = 5"
                continue
            found = _CALCULATION.sub("", " ".join(pieces[start : end + 1]).strip("*_`\"'").rstrip(".,;:!?*"))
            if _reads(found):
                return found
    return None


def _is_prose(piece: str) -> bool:
    return any(word not in FUNCTIONS and word != "pi" for word in _WORD.findall(piece))


def _reads(text: str) -> bool:
    """Whether a text is a formula without words."""
    if not text or len(text) > _LONGEST or _DELIMITERS.search(text):
        return False
    try:
        text = tidy(text)
        if any(token.kind in ("word", "text") for token in tokens(text)):
            return False
        return grammar.parse(text)[0] != "text"
    except (Unreadable, ValueError, limits.BeyondLimits, RecursionError):
        return False
