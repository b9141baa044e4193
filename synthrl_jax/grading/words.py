r"""Answers that are words, and the words that stand around numbers."""

import re

UNITS = frozenset(
    """cm mm km dm nm ft yd mi mph kph kg mg lb lbs oz ml mL kL cl sec secs min mins hr hrs wk wks yr yrs am pm Hz kHz kJ kW
    kN Pa kPa rad deg degs gal qt pt cc sq cu USD EUR GBP usd dollars dollar cents cent bucks inch inches feet foot units
    unit pct rev rpm th st nd rd""".split()
)
LONE_UNITS = frozenset("m s g h L l".split())  # only after a gap: "5 m", and before a power: "5 m^2"
UPRIGHT_UNITS = frozenset("N J W V K ms".split())  # only as \\text{ N} or \\mathrm{N} after a value
FUNCTION_LETTERS = frozenset("f g h p q r E F G H L P Q R S T V".split())  # f(2) is a value, x(2) a product
MULTIPLES = {
    "dozen": 12,
    "hundred": 10**2,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
}
# words after a number that change what it says: the text is then no number with a unit
TURNING = frozenset(
    """less more than not no squared cubed half over plus minus times divided between to through except least most below
    above under greater fewer or and cannot isn isnt never am pm a.m p.m noon midnight wrong incorrect false
    point""".split()
)
# words before a number that change what it says: "not 5", "at least 5", "half of 5"
BOUNDING = frozenset(
    """not isn never cannot least most more less fewer greater than except under over above below without before after
    half third quarter twice thrice double triple square squared cube cubed root log logarithm reciprocal inverse opposite
    multiple multiples factor factors divisor divisors divisible power times plus point per by""".split()
)
# "a total of 5" is 5; other words and "of" are not
_SUMMED = frozenset("total value amount answer cost price length area volume distance speed".split())
SIGNS = frozenset(("negative", "minus"))
SHORT = frozenset("is in on at to of no or so if it be by an as we he my up do go us am".split())
_SMALL = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
eighteen nineteen""".split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
NUMERALS = {word: n for n, word in enumerate(_SMALL)} | {word: 10 * n for n, word in enumerate(_TENS, 2)}
# names of the parts of a whole, in the singular; no "second", which is a unit of time
PARTS = {"half": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "eighth": 8, "ninth": 9, "twelfth": 12}
PARTS |= {word + "th": n for n, word in enumerate(_SMALL) if n in (6, 7, 10, 11, 16)}
PARTS |= {"twentieth": 20, "hundredth": 10**2, "thousandth": 10**3, "millionth": 10**6}

_PIECES = re.compile(r"[^\W\d_]+|[0-9]+(?:\.[0-9]+)?|[^\s\w]|_")
_WRAPPED = re.compile(
    r"\\(?:text(?:bf|rm|it|tt|sf|normal)?|mathrm|mathbf|mathit|mathsf|mbox|operatorname)\s*\{([^{}]*)\}"
)
_COMMAND = re.compile(r"\\([a-zA-Z]+)")
_LETTERS = re.compile(r"[^\W\d_]{3,}")
_HALF_OF_DAY = re.compile(r"\b([ap])\.\s?m\b\.?", re.IGNORECASE)
_CLOCK = re.compile(r"[0-9]\s*[ap]\.?m\b", re.IGNORECASE)
_SILENT = frozenset("$\"'`.,;:?~\\")
_LONE = re.compile(r"\(?([A-Za-z])\)?\.?")


def parts(word: str) -> int | None:
    """Into how many parts `thirds`, `hundredths` divide a whole; None for another word."""
    return 2 if word == "halves" else PARTS.get(word[:-1]) if word.endswith("s") else None


def turns(text: str) -> bool:
    """Whether words before a number change what it says: `half of 5`, `five point 5`, but not `a total of 5`."""
    said = [word.strip(".,;:()") for word in text.lower().replace("~", " ").split()]
    if any(word in BOUNDING or word in NUMERALS or word in MULTIPLES or word in PARTS for word in said):
        return True
    return said[-1:] == ["of"] and said[-2:-1] not in [[word] for word in _SUMMED]


def unwrapped(text: str) -> str:
    r"""A text with what stands in `\text{...}` and its like as plain words."""
    return _WRAPPED.sub(r" \1 ", text)


def is_worded(text: str) -> bool:
    r"""Whether a text says that it is words: `\text{...}`, a run of three letters that is no command, a time of day."""
    return bool(_WRAPPED.search(text) or _LETTERS.search(_COMMAND.sub(" ", text)) or _CLOCK.search(text))


def pieces(text: str) -> tuple[str, ...]:
    """Words, numbers and signs of a text without wrapping, quotes, punctuation, case and spaces."""
    text = _HALF_OF_DAY.sub(r"\1m", _WRAPPED.sub(r" \1 ", text)).strip(" .")
    if text.startswith("{") and text.endswith("}"):
        text = text[1:-1]
    found: list[str] = []
    for piece in _PIECES.findall(text.casefold()):
        if found and piece.isalpha() and found[-1].isalpha():
            found[-1] += piece  # some data sets drop the spaces between words
        elif piece not in _SILENT:
            found.append(piece)
    if len(found) > 2 and found[0] == "(" and found[-1] == ")":
        found = found[1:-1]
    return tuple(found)


def same_words(a: str, b: str) -> bool:
    r"""Whether two answers are the same words; case counts only where neither side says that it is text.

    `\text{Even}` = `even`, `(C)` = `\text{C}`, but the symbols `x` and `X` differ.
    """
    if not (is_worded(a) or is_worded(b)):
        return False
    found = pieces(a)
    return bool(found) and found == pieces(b)
