"""Find the final answer in a text, by the convention that the data set uses."""

import re

from synthrl_jax.grading import prose
from synthrl_jax.grading.boxes import TAIL, boxes, joined

_THOUSANDS = re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))")
_NUMBER = re.compile(
    r"""(?:(?<![\w)\]}.])[-+−]|(?<=[-+*/=(\s])[-−])?
        (?:[0-9]+(?:,[0-9]{3}(?![0-9]))*(?:\.[0-9]+)?|(?<![0-9])\.[0-9]+)(?:[eE][-+]?[0-9]+)?""",
    re.VERBOSE,
)
_LEAD = re.compile(
    r"""(?:\b(?:answer|result|solution)s?\b["'*_\s]*
        (?:(?:to|of|for)\s+(?:the|this|your)\s+[a-z]+\s+)?
        (?:(?:is|are|was|equals|would\s+be|should\s+be|must\s+be|will\s+be|comes\s+(?:out\s+)?to)\b|[:=])
        |\#\#\#\#)
        [\s:*_"']*+(?:(?:therefore|thus|hence|then|simply|just|indeed|equal\s+to)\b[\s,:]*+)*+
        (?!(?:as\s+follows|to|that|found|given|obtained|correct|incorrect|wrong|right|not|verified)\b)""",
    re.VERBOSE | re.IGNORECASE,
)
_TAG = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL | re.IGNORECASE)
_MATH = re.compile(
    r"""\$\$(?P<a>[^$]+?)\$\$ | \\\[(?P<b>(?:(?!\\\[).)*?)\\\] | \\\((?P<c>(?:(?!\\\().)*?)\\\)
        | (?<!\\)\$(?P<d>(?:\\.|[^$\\])+?)\$""",
    re.VERBOSE | re.DOTALL,
)
_OPENERS = (("$$", "$$"), ("\\[", "\\]"), ("\\(", "\\)"), ("$", "$"))
_STOP = re.compile(
    r"""\.(?=\s|$|["'*)]) | [,;]?\s+(?:because|since|which|where|so|as|when|hence|therefore|I\s+hope|[iI]t\s+is\s+correct)\b
        | ,\s+(?:I|we|it|this|that|he|she|they|but|if|out\s+of)\b | \s+\(\s*(?=[a-z]{2})
        | "\s*(?=[,}\n]|$) | \n | </ | [!?]\s*$ """,
    re.VERBOSE,
)
_AND = re.compile(
    r",\s*(?:\\text\s*\{\s*)?(?:and|or)\b\s*\}?|(?:\\text\s*\{\s*)?\b(?:and|or)\b\s*\}?|,\s+|,\s*\\[ ;,]\s*"
)


def _hash(text: str) -> str | None:
    """What follows the last `####` on its line, without currency signs and thousands commas."""
    end = len(text)
    while (at := text.rfind("####", 0, end)) >= 0:
        line = text[at + 4 : end].lstrip("#").split("\n", 1)[0].strip().lstrip(":").strip()
        if line := _clean_number(line):
            return line
        end = at
    return None


def _clean_number(line: str) -> str:
    line = line.replace("\\$", "").replace("$", "")
    line = _THOUSANDS.sub("", line) if "," in line else line
    return line.strip().strip("*").rstrip(".").strip()


def _colon(text: str) -> str | None:
    """What follows the last `A:` on its line."""
    end = len(text)
    while (at := text.rfind("A:", 0, end)) >= 0:
        if at == 0 or not (text[at - 1].isalnum() or text[at - 1] in "_.'"):
            line = text[at + 2 : end].split("\n", 1)[0].strip().strip("*").strip()
            if line:
                return line
        end = at
    return None


def _boxed(text: str) -> str | None:
    found = boxes(text)
    return found[-1].content if found else None


_TEXT = re.compile(r"\\(?:text|textbf|textrm|textit|mbox|mathrm)\s*\{([^{}]*)\}")


def _boxed_normalised(text: str) -> str | None:
    content = _boxed(text)
    if content is None:
        return None
    content = re.sub(r"\\[dtc]frac(?![a-zA-Z])", r"\\frac", content).replace("\\$", "")
    return _TEXT.sub(lambda unwrapped: unwrapped.group(1), content).strip() or None


def _boxed_lenient(text: str) -> str | None:
    found = boxes(text, lenient=True)
    return found[-1].content if found else None


def split_list(content: str) -> list[str]:
    """Parts between `, `, `and`, `or` that stand outside all brackets."""
    parts, depth, start = [], 0, 0
    marks = {mark.start(): mark.end() for mark in _AND.finditer(content)}
    i = 0
    while i < len(content):
        c = content[i]
        if depth == 0 and i in marks:
            parts.append(content[start:i])
            i = start = marks[i]
            continue
        if c == "\\" and content[i + 1 : i + 2] not in ("{", "}"):
            i += 1
        elif c in "([{":
            depth += 1
        elif c in ")]}":
            depth = max(0, depth - 1)
        i += 1
    parts.append(content[start:])
    return [part.strip() for part in parts if part.strip()]


def _boxed_multi(text: str) -> list[str] | None:
    content = _boxed(text)
    return split_list(content) if content else None


def _one_or_list(parts: list[str]) -> str | list[str]:
    return parts[0] if len(parts) == 1 else parts


def _boxed_joined(text: str) -> str | list[str] | None:
    found = boxes(text)
    return _one_or_list(joined(text, found)) if found else None


def _last_number(text: str) -> str | None:
    found = [number.group() for number in _NUMBER.finditer(text[-4_000:])]
    return found[-1].replace(",", "").replace("−", "-").lstrip("+") if found else None


_CLOSERS = {
    opener: re.compile(r"(?<!\\)" + re.escape(closer) if "$" in closer else re.escape(closer))
    for opener, closer in _OPENERS
}
# what makes a formula a part of the answer only: "$3$ and $4$", "$x$ = 5"
_GOES_ON = re.compile(r"\s*(?:[=<>≤≥]|(?:,|,?\s*\b(?:and|or)\b)\s*(?:[-−]?[0-9]|\\?\$|\\[(\[]))")


def _phrase(rest: str) -> str | None:
    """The answer at the start of what follows `the answer is`: a formula between delimiters, or up to the clause's end."""
    rest = rest.strip()
    for opener, closer in _CLOSERS.items():
        if rest.startswith(opener):
            end = closer.search(rest, len(opener))
            if end and rest[: end.start()].count("\n") <= 3 and not _GOES_ON.match(rest, end.end()):
                return rest[len(opener) : end.start()].strip() or None
            break
    stop = _STOP.search(rest)
    answer = (rest[: stop.start()] if stop else rest).strip().strip("*").rstrip(".,;:").strip()
    if len(answer) > 1 and answer[0] == answer[-1] and answer[0] in "\"'`$" and answer[0] not in answer[1:-1]:
        answer = answer[1:-1].strip()
    return answer or None


def _answer_is(text: str) -> str | None:
    """X of the last `the answer is X` or one of its usual variants (`Final answer: X`, `the result equals X`)."""
    text = text[-TAIL:]
    for lead in reversed(list(_LEAD.finditer(text))):
        answer = _phrase(text[lead.end() : lead.end() + 2_000])
        if answer is not None:
            return _boxed(answer) or answer
    return None


def _math_fallback(text: str) -> str | None:
    return _boxed(text) or _answer_is(text) or _last_number(text)


def _shown(text: str) -> str:
    """The text after a block of thoughts, and inside the last `<answer>` tag if there is one."""
    text = text.rsplit("</think>", 1)[-1]
    tags = _TAG.findall(text)
    return tags[-1].strip() if tags and tags[-1].strip() else text


def _delimited(text: str) -> str | list[str] | None:
    text = _shown(text)
    found = boxes(text)
    if found:
        return _one_or_list(joined(text, found))
    text = text.strip()
    for opener, closer in _OPENERS:
        inner = text.rstrip(".").rstrip()
        if inner.startswith(opener) and inner.endswith(closer) and len(inner) > len(opener) + len(closer):
            inner = inner[len(opener) : -len(closer)]
            if opener not in inner:
                return inner.strip() or None
    return text or None


def _free_text(text: str) -> str | list[str] | None:
    if (shown := _shown(text)) is not text and "<answer>" in text:
        return _delimited(shown)
    text = shown
    found = boxes(text)
    if found:
        return _one_or_list(joined(text, found))
    for find in (_hash, _answer_is, _colon, _last_formula):
        if (answer := find(text)) is not None:
            return answer
    answer = prose.whole(text) or prose.last_value(text[-4_000:])
    return answer if answer and not _NUMBER.fullmatch(answer) else _last_number(text)


_PROSE = re.compile(r"(?<![\\a-zA-Z{])[A-Za-z]{4,}|<<|[-+*/=(,]\s*\Z|[a-z]\.\s|\A[.,;]")


def _last_formula(text: str) -> str | None:
    """The last formula between delimiters; what stands between two currency signs is none."""
    formulas = [formula.group(formula.lastgroup).strip() for formula in _MATH.finditer(text)]
    formulas = [formula for formula in formulas if formula and not _PROSE.search(_TEXT.sub("", formula))]
    return formulas[-1] if formulas else None


_END = re.compile(r"(?:</s>|<\|[a-zA-Z0-9_]{1,24}\|>|<(?:eos|pad|end_of_turn)>)\s*\Z")


def _unended(text: str) -> str:
    """A text without the end tokens that a tokenizer left in it."""
    text = text.rstrip()
    while text.endswith(">") and (end := _END.search(text, max(0, len(text) - 40))):
        text = text[: end.start()].rstrip()
    return text


KINDS = {
    "gsm8k_hash": _hash,
    "a_colon": _colon,
    "answer_is": _answer_is,
    "boxed": _boxed_joined,
    "boxed_last": _boxed,
    "boxed_last_normalised": _boxed_normalised,
    "boxed_lenient": _boxed_lenient,
    "boxed_multi": _boxed_multi,
    "delimited": _delimited,
    "last_number": _last_number,
    "math_fallback": _math_fallback,
    "free_text": _free_text,
}
GUESSES = frozenset({"last_number", "math_fallback", "free_text"})


def extractor(kind: str):
    """The function of a kind; ValueError names the known ones."""
    try:
        return KINDS[kind]
    except (KeyError, TypeError):
        raise ValueError(f"unknown kind of answer {kind!r}; known: {', '.join(KINDS)}") from None


def extract(text: str, kind: str) -> str | list[str] | None:
    r"""The final answer in `text`, None where there is none; a list only where the kind says so.

    Kinds, none of which guesses:
      gsm8k_hash  what follows the last `####` on its line, without currency signs and thousands commas
      a_colon  what follows the last `A:` on its line
      answer_is  X of the last "the answer is X" and its usual variants, up to the end of the clause
      boxed_last  content of the last non-empty balanced `\boxed{...}` or `\fbox{...}`
      boxed  the same; boxes joined only by commas or "and" are one list
      boxed_last_normalised  boxed_last with `\dfrac` as `\frac`, `\$` dropped and `\text{}` unwrapped
      boxed_lenient  boxed_last, and also `boxed(42)`, `boxed[42]`
      boxed_multi  the list of the last box's parts (", ", "and", "or")
      delimited  the whole text is the answer, inside `$`, `\(`, `\[`, `<answer>` or boxes (as `boxed`)
    Kinds that guess when nothing is marked:
      last_number  the last number of the text, without commas
      math_fallback  boxed_last, else answer_is, else last_number
      free_text  boxed, else gsm8k_hash, answer_is, a_colon, the last formula between delimiters, the whole text if it is
                 one word or formula, the formula around the last number, last_number
    Only the last 20,000 characters are looked at. Unknown kinds: ValueError.
    """
    find = extractor(kind)
    text = text[-TAIL:] if len(text) > TAIL else text
    return find(_unended(text) if text.rstrip().endswith(">") else text)
