"""Plain numbers, exactly: integers, decimals, thousands separators, scientific notation, simple fractions."""

import re
from fractions import Fraction
from typing import NamedTuple

from synthrl_jax.grading import limits

_THOUSANDS = r"[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])"
_PLAIN = re.compile(
    rf"""\s*(?P<sign>[-+]?)\s*(?:\\?\$)?\s*(?P<sign2>[-+]?)
    (?:(?P<whole>{_THOUSANDS}|[0-9]+)(?:\.(?P<part>[0-9]*))?|\.(?P<only>[0-9]+))
    (?:[eE](?P<exp>[-+]?[0-9]{{1,6}}))?
    (?:/(?P<den>[0-9]+))?
    \s*(?:\\?%|\\?\$)?\s*\.?\s*\Z""",
    re.VERBOSE,
)


class Number(NamedTuple):
    """An exact value; `decimals` is how many digits it was given to after the point, None for integers and fractions."""

    value: Fraction
    decimals: int | None


def literal(whole: str, part: str, exponent: int = 0) -> Number:
    """The number written `whole.part` times ten to `exponent`; BeyondLimits for absurd sizes."""
    if len(whole) + len(part) > limits.DIGITS:
        raise limits.BeyondLimits("too many digits")
    if abs(exponent) > limits.EXPONENT:
        raise limits.BeyondLimits("exponent of a literal")
    scale = exponent - len(part)
    digits = int((whole + part) or "0")
    value = Fraction(digits * 10**scale) if scale >= 0 else Fraction(digits, 10**-scale)
    return Number(value, None if not part and exponent >= 0 else max(0, -scale))


def plain(text: str) -> Number | None:
    """The exact value of a text that is nothing but one number, else None (also where it is beyond the limits).

    A currency sign, a percent sign and a full stop are dropped: `$1,234.50`, `50%`, `-3/4`, `1e-3`.
    """
    if len(text) > limits.DIGITS:
        return None
    found = _PLAIN.match(text)
    if found is None:
        return None
    sign, sign2, whole, part, only, exp, den = found.groups()
    if (sign and sign2) or (den is not None and (part is not None or only or exp or "," in whole)):
        return None
    if abs(int(exp or 0)) > limits.EXPONENT:
        return None
    number = literal((whole or "").replace(",", ""), part or only or "", int(exp or 0))
    if den is not None:
        if not int(den):
            return None
        number = Number(number.value / int(den), None)
    if "-" in (sign, sign2):
        number = Number(-number.value, number.decimals)
    return number


ENOUGH_DECIMALS = 6


def rounds_to(decimal: Number, exact: Fraction) -> bool:
    """Whether `decimal` is `exact` to the digits given: at least six after the point, and never for an integer."""
    if decimal.decimals is None or decimal.decimals < ENOUGH_DECIMALS or exact.denominator == 1:
        return False
    return abs(decimal.value - exact) * 2 * 10**decimal.decimals <= 1


def same_number(a: Number, b: Number) -> bool:
    """Exact equality, or a decimal against a fraction to the digits given."""
    if a.value == b.value:
        return True
    if (a.decimals is None) == (b.decimals is None):
        return False
    return rounds_to(a, b.value) if b.decimals is None else rounds_to(b, a.value)
