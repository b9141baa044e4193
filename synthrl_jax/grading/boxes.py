r"""The balanced `\boxed{...}` and `\fbox{...}` of a text, in one pass however deep they nest."""

import re
from typing import NamedTuple

TAIL = 20_000  # an answer stands at the end: characters of a response that are looked at

_BOX = re.compile(r"\\[fd]?(?:boxed|fbox|box)(?![a-zA-Z])")
_LENIENT = re.compile(r"(?<![\\a-zA-Z])boxed\s*(?=[\[({])|\\boxed\s*(?=[\[(])")
_BARE = re.compile(r"\s*(?:\\[a-zA-Z]+|[^\s${}\\])[^\s$]*")
_PAIRS = {"{": "}", "(": ")", "[": "]"}


class Box(NamedTuple):
    """Content of one box and where it stands."""

    start: int
    end: int
    content: str


def closing(text: str, opener: str = "{") -> dict[int, int]:
    """Position of each balanced opener -> position of its closer; escaped ones are text."""
    closer = _PAIRS[opener]
    pairs: dict[int, int] = {}
    stack: list[int] = []
    i = 0
    while i < len(text):
        c = text[i]
        if c == "\\":
            i += 1
        elif c == opener:
            stack.append(i)
        elif c == closer and stack:
            pairs[stack.pop()] = i
        i += 1
    return pairs


def boxes(text: str, lenient: bool = False) -> list[Box]:
    r"""Non-empty balanced boxes in the order of their starts; nested ones count by themselves.

    `\boxed 7` counts; with `lenient` also `boxed(7)`, `boxed[7]` and `boxed{7}`.
    """
    found = []
    braces = None
    for mark in _BOX.finditer(text):
        if braces is None:
            braces = closing(text)
        at = mark.end()
        while at < len(text) and text[at] in " \t\n":
            at += 1
        if at < len(text) and text[at] == "{":
            if at in braces:
                found.append(Box(mark.start(), braces[at] + 1, text[at + 1 : braces[at]].strip()))
            continue
        bare = _BARE.match(text, mark.end())
        if bare and at < len(text) and text[at] not in "([" and (at > mark.end() or text[at] == "\\"):
            found.append(Box(mark.start(), bare.end(), bare.group().strip().rstrip(".,;:!)")))
    if lenient:
        pairs = {opener: closing(text, opener) for opener in _PAIRS}
        for mark in _LENIENT.finditer(text):
            at = mark.end()
            end = pairs[text[at]].get(at)
            if end is not None:
                found.append(Box(mark.start(), end + 1, text[at + 1 : end].strip()))
        found.sort()
    return [box for box in found if box.content]


_JOINT = re.compile(
    r"""\s*(?:,|,?\s*\band\b)\s*(?:[a-zA-Z](?:_\{?[a-zA-Z0-9]+\}?)?\s*(?:=|\\in)\s*)?\s*\Z""", re.VERBOSE
)
_PART = re.compile(r"\s*(?:for|in|as)?\s*(?:part|case)?\s*\(?[a-z0-9]?\)?\s*(?=\band\b|,)")
_SHELL = re.compile(r"\\[(\[\])]|\$|\\q?quad\b|\\[,;:! ]|~|\\(?:text|textbf|mathrm|mbox)\s*(?=\{)|[{}]")


def joined(text: str, found: list[Box]) -> list[str]:
    """Contents of the boxes that end the text and are joined by nothing but commas or `and`; at least the last one."""
    outer: list[Box] = []
    for box in found:
        if not outer or box.start >= outer[-1].end:
            outer.append(box)
    run = [outer[-1]]
    for before, after in zip(outer[-2::-1], outer[:0:-1]):
        between = _SHELL.sub(" ", text[before.end : after.start][:200])
        part = _PART.match(between)
        if not _JOINT.match(between) and not (part and _JOINT.match(between[part.end() :])):
            break
        run.append(before)
    return [box.content for box in reversed(run)]
