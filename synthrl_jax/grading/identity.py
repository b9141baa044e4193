"""Whether two expressions are the same: exactly where they are rational, to fifty digits and more where not."""

import functools
import itertools
from collections.abc import Iterable, Iterator

from synthrl_jax.grading import limits, numbers, points
from synthrl_jax.grading.evaluate import Matrix, NoValue, evaluate
from synthrl_jax.grading.modular import PRIMES, Modular, NotRational, Undefined, exact
from synthrl_jax.grading.nodes import Node
from synthrl_jax.grading.numeric import MORE_DIGITS, POINTS, Numeric, Point, context

_TRUSTED = 10**15  # sums of larger terms, far out, are too rough to tell two formulas apart
_ROUGH = 20  # digits to which values must agree before more of them are computed


def names(node) -> Iterator[str]:
    """Names that stand free in a node."""
    stack = [node]
    while stack:
        at = stack.pop()
        if isinstance(at, list):
            stack.extend(at)
        elif isinstance(at, tuple) and at:
            if at[0] == "name":
                yield at[1]
            elif at[0] in ("sub", "opaque", "big"):
                yield str(at[1])
                stack.extend(at[2:])
            elif at[0] not in ("number", "text", "constant"):
                stack.extend(at[1:])


def is_closed(node: Node) -> bool:
    """Whether a node holds no names."""
    return next(names(node), None) is None


def is_value(node: Node) -> bool:
    """Whether a node is an expression: no set, tuple, relation or word at its top."""
    return node[0] in (
        "number name constant add neg mul div pow root call sub opaque big where ratio matrix pm".split()
    )


def decimal(node: Node) -> numbers.Number | None:
    """The literal that a node is, with its sign."""
    if node[0] == "number":
        return numbers.Number(node[1], node[2])
    if node[0] == "neg" and node[1][0] == "number":
        return numbers.Number(-node[1][1], node[1][2])
    return None


def same_value(a: Node, b: Node, budget: limits.Budget) -> bool:
    """Whether two expressions agree wherever both have a value; BeyondLimits when that costs too much."""
    try:
        verdict = _modular(a, b, budget)
        if verdict:
            return True
        if verdict is None:
            verdict = _numeric(a, b, budget)
    except NoValue:
        return False
    except Undefined:
        return False
    except NotRational:
        return False
    return verdict or _rounded(a, b, budget) or _rounded(b, a, budget)


def _modular(a: Node, b: Node, budget: limits.Budget) -> bool | None:
    """None where the two are not both rational expressions."""
    for p in PRIMES:
        try:
            field = Modular(p, budget)
            same = _alike(evaluate(a, field), evaluate(b, field), lambda x, y: x == y)
        except NotRational:
            return None
        if not same:
            return False
    return True


def _alike(x, y, equal) -> bool:
    if isinstance(x, Matrix) != isinstance(y, Matrix):
        return False
    if not isinstance(x, Matrix):
        return equal(x, y)
    return x.shape == y.shape and all(equal(p, q) for r, s in zip(x.rows, y.rows) for p, q in zip(r, s))


def _gap(x, y, ctx) -> tuple:
    if ctx.isinf(x) or ctx.isinf(y):
        return (ctx.zero if x == y else ctx.inf), ctx.one
    return abs(x - y), max(abs(x), abs(y))


def _agree(x, y, ctx, kept: int, least=1) -> bool:
    """Whether two values differ by less than 10^-kept of the larger one, or of `least` where that is larger."""
    gap, scale = _gap(x, y, ctx)
    return gap <= max(scale, least) * ctx.mpf(10) ** -kept


def _values(a: Node, b: Node, fields: Iterable[Numeric]) -> Iterator[tuple]:
    """(field, value of a, value of b) where both have one; far from zero a value of too great a size counts as none."""
    for field in fields:
        try:
            yield field, evaluate(a, field), evaluate(b, field)
        except Undefined:
            continue
        except limits.BeyondLimits:
            if not field.point.at:
                raise
            field.budget.spend()


def _compared(a: Node, b: Node, fields: Iterable[Numeric], kept: int) -> Iterator[tuple[Numeric, bool]]:
    """(field, whether the two agree there); a difference of terms may be as rough as its terms, up to one."""
    for field, x, y in _values(a, b, fields):
        agree = functools.partial(_agree, ctx=field.ctx, kept=kept, least=min(field.largest, 1))
        yield field, _alike(x, y, agree)


def _numeric(a: Node, b: Node, budget: limits.Budget) -> bool:
    if is_closed(a) and is_closed(b):
        return _agree_closed(a, b, budget)
    known = sorted({*names(a), *names(b)})
    fields = (Numeric(budget, point) for point in points.ordinary(known))
    compared, held_back = 0, []
    for field, alike in _compared(a, b, fields, 30):
        if field.branched:  # principal values of roots and logarithms: conventions differ
            held_back += [] if field.point.negative else [alike]
        elif not alike:
            return False
        else:
            compared += 1
    if not compared and not (held_back and all(held_back)):
        return False
    budget.spend(100)
    closer = [Numeric(budget, digits=MORE_DIGITS)]
    if any(not alike for field, alike in _compared(a, b, closer, MORE_DIGITS - 2 * _ROUGH) if not field.branched):
        return False
    for field, alike in _compared(a, b, _elsewhere(a, b, known, budget), 30):
        if not alike and not field.branched and field.largest < _TRUSTED:
            return False
    return True


def _elsewhere(a: Node, b: Node, known: list[str], budget: limits.Budget) -> Iterator[Numeric]:
    """Fields at far and near points where one of two expressions is made of pieces; half the budget goes there."""
    if not (points.is_piecewise(a) or points.is_piecewise(b)):
        return
    for point in points.far(known):
        yield Numeric(budget, point)
    least = budget.steps // 2
    for point in points.near(a, b, known, budget):
        if budget.steps < least:
            return
        yield Numeric(budget, point)


def _is_real(x) -> bool:
    if isinstance(x, Matrix):
        return all(_is_real(cell) for row in x.rows for cell in row)
    return x.imag == 0


def _agree_closed(a: Node, b: Node, budget: limits.Budget) -> bool:
    field = Numeric(budget)
    if not all(alike for _, alike in _compared(a, b, [field], _ROUGH)):
        return False
    budget.spend(500)
    digits = _enough(field, evaluate(a, field))
    closer = list(_compared(a, b, [Numeric(budget, digits=digits)], digits - 2 * _ROUGH))
    return bool(closer) and closer[0][1]


def _enough(field: Numeric, value) -> int:
    """Digits that tell a value from its neighbours: e^1000 has 435 before the point. BeyondLimits where it has too many."""
    cells = [cell for row in value.rows for cell in row] if isinstance(value, Matrix) else [value]
    sizes = [abs(cell) for cell in [*cells, field.largest] if not field.ctx.isinf(cell)]
    before = int(field.ctx.log10(max([field.ctx.one, *sizes])))
    for digits in (MORE_DIGITS, 2 * MORE_DIGITS, 4 * MORE_DIGITS, 8 * MORE_DIGITS):
        if before + MORE_DIGITS // 2 + _ROUGH <= digits:
            return digits
    raise limits.BeyondLimits("a value of too many digits")


def _rounded(a: Node, b: Node, budget: limits.Budget) -> bool:
    """Whether the literal `a` is the closed, irrational or fractional `b` to the digits given."""
    given = decimal(a)
    if given is None or given.decimals is None or given.decimals < numbers.ENOUGH_DECIMALS:
        return False
    literal = decimal(b)
    if (literal is not None and literal.decimals is not None) or not is_closed(b):
        return False
    try:
        return numbers.rounds_to(given, exact(b, budget))
    except (NotRational, Undefined):
        pass
    try:
        field = Numeric(budget)
        value = evaluate(b, field)
    except (NoValue, NotRational, Undefined):
        return False
    if isinstance(value, Matrix) or field.ctx.isinf(value) or value.imag != 0:
        return False
    if _agree(value, field.ctx.nint(value), field.ctx, 30):
        return False
    return abs(field.number(given.value) - value) * 2 * field.number(10) ** given.decimals <= 1


def proportional(f: Node, g: Node, budget: limits.Budget, sign: int = 0) -> bool:
    """Whether f = c g for one constant c other than 0, of the sign that `sign` asks for (0: any)."""
    try:
        pairs = _modular_pairs(f, g, budget)
        if pairs is None:
            pairs = _numeric_pairs(f, g, budget)
        if not pairs:
            return False
        return not sign or _sign_of_ratio(f, g, budget) == sign
    except (NoValue, Undefined, NotRational):
        return False


def _modular_pairs(f: Node, g: Node, budget: limits.Budget) -> bool | None:
    for p in PRIMES:
        first = None
        for salt in range(3):
            try:
                field = Modular(p, budget, salt)
                x, y = evaluate(f, field), evaluate(g, field)
            except NotRational:
                return None
            if isinstance(x, Matrix) or isinstance(y, Matrix) or (x == 0) != (y == 0):
                return False
            if first is not None and (first[0] * y - first[1] * x) % p:
                return False
            first = first or (x, y)
    return True


def _numeric_pairs(f: Node, g: Node, budget: limits.Budget) -> bool:
    ratios = []
    known = sorted({*names(f), *names(g)})
    ordinary = [*map(Point, POINTS), Point(1, frozenset(known))]
    fields = itertools.chain((Numeric(budget, point) for point in ordinary), _elsewhere(f, g, known, budget))
    for field, x, y in _values(f, g, fields):
        if field.branched and (field.point.negative or field.point.at):
            continue
        if field.point.at and field.largest > _TRUSTED:
            continue
        if isinstance(x, Matrix) or isinstance(y, Matrix) or field.ctx.isinf(x) or field.ctx.isinf(y):
            return False
        if field.is_zero(x) or field.is_zero(y):
            if field.is_zero(x) != field.is_zero(y):
                return False
            continue
        ratios.append(x / y)
    return len(ratios) > 1 and all(_agree(ratio, ratios[0], context(), 30) for ratio in ratios)


def _sign_of_ratio(f: Node, g: Node, budget: limits.Budget) -> int:
    for which in POINTS:
        field = Numeric(budget, Point(which))
        x, y = evaluate(f, field), evaluate(g, field)
        if not field.is_zero(x) and not field.is_zero(y) and _is_real(x) and _is_real(y):
            return 1 if (x > 0) == (y > 0) else -1
    return 0


def unordered(a: list, b: list, same) -> bool:
    """Whether every member of each has its like in the other."""
    return _covers(a, b, same) and _covers(b, a, same)


def _covers(a: Iterable, b: list, same) -> bool:
    return all(any(same(x, y) for y in b) for x in a)


def matching(a: list, b: list, same) -> bool:
    """Whether the members of two lists are the same one by one, in some order."""
    if len(a) != len(b):
        return False
    left = list(b)
    for x in a:
        at = next((i for i, y in enumerate(left) if same(x, y)), None)
        if at is None:
            return False
        del left[at]
    return True
