"""Numbers in words: `twenty-five`, `two thirds`, `minus five point two`, `2 and a half`."""

from fractions import Fraction

from synthrl_jax.grading import words

_SCALES = {word: n for word, n in words.MULTIPLES.items() if n >= 1000}
_MOST = 24  # words of an answer that is a number in words


def rewritten(text: str) -> str | None:
    """An answer with the number words that it begins with as digits: `two thirds` is `2/3`, `five cm` is `5 cm`."""
    said = _spoken(text)
    if not said or len(said) > _MOST:
        return None
    sign = "-" if said[0].lower() in words.SIGNS else ""
    said = said[1:] if sign else said
    found = _value([word.lower() for word in said])
    if found is None:
        return None
    value, end = found
    rest = said[end:]
    if rest and (not rest[0][0].islower() or rest[0] in words.NUMERALS or rest[0] in words.MULTIPLES):
        return None
    return " ".join([sign + value, *rest])


def _spoken(text: str) -> list[str]:
    text = words.unwrapped(text)
    found: list[str] = []
    for word in text.replace("~", " ").split():
        parts = word.split("-")
        known = len(parts) > 1 and all(part.lower() in _KNOWN for part in parts)
        found.extend(parts if known else [word])
    return [] if "\\" in text else found


def _value(said: list[str]) -> tuple[str, int] | None:
    """(the number that some words begin with, how many words it takes)."""
    if not said:
        return None
    if len(said) < 3 and (said[-1] in words.PARTS) and said[:-1] in ([], ["a"], ["an"]):  # "half", "a third"
        return f"1/{words.PARTS[said[-1]]}", len(said)
    found = (int(said[0]), 1) if said[0].isdecimal() and said[0].isascii() and len(said[0]) < 16 else _cardinal(said)
    if found is None:
        return None
    whole, at = found
    if at < len(said) and said[at] == "and" and (part := _part(said, at + 1)):  # "two and a half"
        value = whole + part[0]
        return f"{value.numerator}/{value.denominator}", part[1]
    if said[0].isdecimal():
        return None
    if part := _part(said, 0, (whole, at)):
        return f"{part[0].numerator}/{part[0].denominator}", part[1]
    digits = [str(words.NUMERALS[word]) for word in said[at + 1 :] if words.NUMERALS.get(word, 10) < 10]
    if said[at : at + 1] == ["point"] and digits and len(digits) == len(said) - at - 1:
        return f"{whole}.{''.join(digits)}", len(said)
    return str(whole), at


def _part(said: list[str], at: int, count: tuple[int, int] | None = None) -> tuple[Fraction, int] | None:
    """(`a half`, `three quarters`, where it ends)."""
    if count is None:
        count = (1, at + 1) if said[at : at + 1] in (["a"], ["an"]) else _below_hundred(said, at)
    if count is None or count[1] >= len(said):
        return None
    many, end = count
    under = words.PARTS.get(said[end]) if many == 1 else words.parts(said[end])
    return None if under is None else (Fraction(many, under), end + 1)


def _cardinal(said: list[str]) -> tuple[int, int] | None:
    total, at, below = 0, 0, 10**15
    while True:
        start = at + (at > 0 and said[at : at + 1] == ["and"])
        group = _below_thousand(said, start)
        if group is None:
            return (total, at) if at else None
        value, end = group
        scale = _SCALES.get(said[end], 0) if end < len(said) else 0
        if not scale:
            return (total + value, end) if value < below else None
        if scale >= below:
            return None
        total, at, below = total + value * scale, end + 1, scale


def _below_thousand(said: list[str], at: int) -> tuple[int, int] | None:
    if said[at : at + 1] == ["a"] and said[at + 1 : at + 2] and said[at + 1] in ("hundred", *_SCALES):
        found = (1, at + 1)
    else:
        found = _below_hundred(said, at)
    if found is None or said[found[1] : found[1] + 1] != ["hundred"] or not found[0]:
        return found
    value, at = 100 * found[0], found[1] + 1
    rest = _below_hundred(said, at + (said[at : at + 1] == ["and"]))
    return (value + rest[0], rest[1]) if rest else (value, at)


def _below_hundred(said: list[str], at: int) -> tuple[int, int] | None:
    value = words.NUMERALS.get(said[at]) if at < len(said) else None
    if value is None:
        return None
    unit = words.NUMERALS.get(said[at + 1], 0) if at + 1 < len(said) and value >= 20 else 0
    return (value + unit, at + 2) if 0 < unit < 10 else (value, at + 1)


_KNOWN = frozenset((*words.NUMERALS, *words.MULTIPLES, *words.PARTS, *(word + "s" for word in words.PARTS), "halves"))
