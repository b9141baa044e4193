"""Points at which expressions are compared: ordinary ones, and far and near ones where an expression is made of pieces."""

from collections.abc import Iterator
from fractions import Fraction

from synthrl_jax.grading import limits
from synthrl_jax.grading.evaluate import Matrix, NoValue, evaluate
from synthrl_jax.grading.modular import NotRational, Undefined, fingerprint
from synthrl_jax.grading.nodes import Node
from synthrl_jax.grading.numeric import POINTS, Numeric, Point

_PIECEWISE = frozenset("abs min max floor ceil mod".split())
_SCALES = (10, 100, 1000)
_NEAR = Fraction(1, 1009)
_ENDS = 16  # places where pieces may meet that are looked at
_NAMES = 4  # names that are moved one by one


def ordinary(known: list[str]) -> list[Point]:
    """Points near one: all names above zero, all below, and each of the first four alone below."""
    points = [Point(which) for which in POINTS] + [Point(1, frozenset(known))]
    return points + [Point(2, frozenset([name])) for name in known[:_NAMES] if len(known) > 1]


def is_piecewise(node) -> bool:
    """Whether a node holds an absolute value, a minimum, a floor or an even root: one formula here, another there."""
    stack = [node]
    while stack:
        at = stack.pop()
        if isinstance(at, list):
            stack.extend(at)
        elif isinstance(at, tuple) and at:
            if at[0] == "call" and at[1] in _PIECEWISE:
                return True
            if at[0] == "root" and not _is_odd(at[1]):
                return True
            if at[0] == "pow" and _is_half(at[2]):
                return True
            if at[0] not in ("number", "text", "name", "constant"):
                stack.extend(at[1:])
    return False


def _is_odd(index: Node) -> bool:
    return index[0] == "number" and index[1].denominator == 1 and index[1] % 2 == 1


def _is_half(exponent: Node) -> bool:
    """Whether an exponent is a fraction of even denominator."""
    if exponent[0] == "neg":
        return _is_half(exponent[1])
    if exponent[0] == "number":
        return exponent[1].denominator % 2 == 0
    if exponent[0] == "div" and exponent[1][0] == "number" == exponent[2][0] and exponent[2][1]:
        return (exponent[1][1] / exponent[2][1]).denominator % 2 == 0
    return exponent[0] == "div"


def far(known: list[str]) -> Iterator[Point]:
    """All names at about 10, 100 and 1000, above and below zero."""
    for which, scale in enumerate(_SCALES, len(POINTS)):
        for sign in (1, -1):
            at = {name: sign * scale * _spread(name, which + sign) for name in known}
            yield Point(which, frozenset(), at, Fraction(-sign * scale))


def near(a: Node, b: Node, known: list[str], budget: limits.Budget) -> Iterator[Point]:
    """Each name alone far out, and beside every closed value in `a` and `b`, their quotients, and what is opposite."""
    which = len(POINTS) + len(_SCALES)
    ends = _ends(a, b, budget)
    for name in known[:_NAMES]:
        alone = [sign * scale * _spread(name, which) for scale in _SCALES for sign in (1, -1)]
        beside = [sign * end + side for end in ends for sign in (1, -1) for side in (_NEAR, -_NEAR)]
        for value in (alone if len(known) > 1 else []) + beside:
            which += 1
            yield Point(which, frozenset(), {name: value}, Fraction(5 if which % 2 else -5))


def _spread(name: str, which: int) -> Fraction:
    return Fraction(1, 2) + Fraction(fingerprint(name, which) % 10**12, 10**12)


def _ends(a: Node, b: Node, budget: limits.Budget) -> list[Fraction]:
    """Sizes of the closed parts of two nodes and their quotients: the same list whichever comes first."""
    found: set[Fraction] = set()
    stack: list = [a, b]
    while stack and len(found) < 4 * _ENDS:
        at = stack.pop()
        if isinstance(at, list):
            stack.extend(at)
        elif isinstance(at, tuple) and at and at[0] not in ("text", "name", "constant"):
            size = _size(at, budget)
            if size is None:
                stack.extend(at[1:] if at[0] != "number" else ())
            else:
                found.add(size)
    single = sorted(found)[:_ENDS]
    ratios = {x / y for x in single[:6] for y in single[:6] if y} - set(single)
    return single + sorted(ratios)[:_ENDS]


def _size(node: Node, budget: limits.Budget) -> Fraction | None:
    """|value| of a closed real node, to twelve digits."""
    field = Numeric(budget, is_closed=True)
    try:
        value = evaluate(node, field)
    except (NoValue, NotRational, Undefined, limits.BeyondLimits, ValueError, TypeError, IndexError):
        budget.spend()  # ends the comparison where the budget is what was spent
        return None
    if isinstance(value, Matrix) or field.ctx.isinf(value) or value.imag != 0 or abs(value) > 10**9:
        return None
    return Fraction(int(field.ctx.nint(abs(value) * 10**12)), 10**12)
