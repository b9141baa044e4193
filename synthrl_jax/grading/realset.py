"""Sets of real numbers as unions of intervals, exactly where their ends are rational."""

from fractions import Fraction
from functools import total_ordering

from synthrl_jax.grading import limits
from synthrl_jax.grading.evaluate import Matrix, NoValue, evaluate
from synthrl_jax.grading.identity import is_closed, is_value, names
from synthrl_jax.grading.modular import NotRational, Undefined, exact
from synthrl_jax.grading.nodes import Node, number_node
from synthrl_jax.grading.numeric import Numeric, context


@total_ordering
class End:
    """A real number or an infinity, compared exactly between rationals and to forty digits otherwise."""

    def __init__(self, rational: Fraction | None, value=None):
        self.rational = rational
        self.value = value

    def _difference(self, other):
        if self.rational is not None and other.rational is not None:
            return self.rational - other.rational
        if self.value == other.value:
            return 0
        gap = self.value - other.value
        return 0 if abs(gap) < 1e-40 else gap

    def __eq__(self, other):
        return self._difference(other) == 0

    def __lt__(self, other):
        return self._difference(other) < 0

    __hash__ = None


def end(node: Node, budget: limits.Budget) -> End | None:
    """The end that a closed real expression is, else None."""
    if not is_closed(node):
        return None
    field = Numeric(budget)
    try:
        rational = exact(node, budget)
        return End(rational, field.number(rational))
    except (NotRational, Undefined):
        pass
    try:
        value = evaluate(node, field)
    except (NoValue, NotRational, Undefined):
        return None
    if isinstance(value, Matrix) or value.imag != 0:
        return None
    return End(None, value.real)


Piece = tuple  # (low end, whether closed there, high end, whether closed there)


def _ends() -> tuple[End, End]:
    return End(None, context().ninf), End(None, context().inf)


def merged(pieces: list[Piece]) -> list[Piece]:
    """The same set as disjoint pieces in order."""
    pieces = [p for p in pieces if p[0] < p[2] or (p[0] == p[2] and p[1] and p[3])]
    pieces.sort(key=lambda p: (p[0], not p[1]))
    result: list[Piece] = []
    for piece in pieces:
        if result:
            low, low_in, high, high_in = result[-1]
            if piece[0] < high or (piece[0] == high and (piece[1] or high_in)):
                if high < piece[2] or (high == piece[2] and piece[3]):
                    result[-1] = (low, low_in, piece[2], piece[3])
                continue
        result.append(piece)
    return result


def complement(pieces: list[Piece]) -> list[Piece]:
    """All real numbers that are in no piece."""
    low, top = _ends()
    low_in = False
    result = []
    for piece in merged(pieces):
        result.append((low, low_in, piece[0], not piece[1] and not _is_infinite(piece[0])))
        low, low_in = piece[2], not piece[3] and not _is_infinite(piece[2])
    result.append((low, low_in, top, False))
    return merged(result)


def _zero() -> End:
    return End(Fraction(0), context().zero)


def _is_infinite(point: End) -> bool:
    return point in _ends()


def intersection(a: list[Piece], b: list[Piece]) -> list[Piece]:
    """What is in both."""
    return complement(complement(a) + complement(b))


def equal(a: list[Piece], b: list[Piece]) -> bool:
    """Whether two sets have the same members."""
    a, b = merged(a), merged(b)
    return len(a) == len(b) and all(p == q for p, q in zip(a, b))


FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "!=": "!=", "=": "="}


def half_line(op: str, point: End) -> list[Piece]:
    """{x: x op point}."""
    low, top = _ends()
    if op in ("<", "<="):
        return [(low, False, point, op == "<=")]
    if op in (">", ">="):
        return [(point, op == ">=", top, False)]
    single = [(point, True, point, True)]
    return complement(single) if op == "!=" else single


def pieces(node: Node, budget: limits.Budget) -> list[Piece] | None:
    """The set of reals that a node describes (interval, finite set, union, inequality ...), else None."""
    budget.spend()
    op = node[0]
    if op == "seq":
        if len(node[3]) != 2 or node[1] not in ("(", "[") or node[2] not in (")", "]"):
            return None
        low, high = end(node[3][0], budget), end(node[3][1], budget)
        if low is None or high is None or high < low:
            return None
        return [(low, node[1] == "[" and not _is_infinite(low), high, node[2] == "]" and not _is_infinite(high))]
    if op in ("set", "group"):
        points = [end(item, budget) for item in node[1]]
        return None if any(point is None for point in points) else [(point, True, point, True) for point in points]
    if op == "opaque" and node[1] == "reals":
        low, high = _ends()
        return [(low, False, high, False)]
    if op in ("union", "inter", "minus"):
        a, b = pieces(node[1], budget), pieces(node[2], budget)
        if a is None or b is None:
            return None
        budget.spend(len(a) + len(b))
        return a + b if op == "union" else intersection(a, b if op == "inter" else complement(b))
    if op == "rel":
        return _relation(node, budget)
    if op == "builder":
        conditions = node[2][1] if node[2][0] == "list" else [node[2]]
        if node[1][0] == "rel":
            conditions = [node[1], *conditions]
        return _combined(conditions, "and", budget)
    if op == "list" and node[2] == "or":
        return _combined(node[1], "or", budget)
    if op == "list" and all(item[0] == "rel" and "=" not in item[2] for item in node[1]):
        return _combined(node[1], "and", budget)
    return None


def _combined(nodes: list[Node], joint: str, budget: limits.Budget) -> list[Piece] | None:
    if len(set(names(nodes)) - {"reals"}) > 1:
        return None
    result = None
    for node in nodes:
        part = pieces(node, budget)
        if part is None:
            return None
        result = part if result is None else merged(result + part) if joint == "or" else intersection(result, part)
    return result


def variable(node: Node) -> Node | None:
    """The one thing that a chain of inequalities is about."""
    open_sides = [side for side in node[1] if not is_closed(side)]
    return open_sides[0] if len(open_sides) == 1 else None


def subject(node: Node) -> Node | None:
    """The name that a chain of inequalities is about: `x` of `1 < 2x < 3` and of `|x - 1| < 2`."""
    about = variable(node)
    if about is not None and about[:2] == ("call", "abs") and len(about[2]) == 1:
        about = about[2][0]
    found = None if about is None else isolated(about)
    return None if found is None else found[2]


_ONE, _NONE = number_node("1"), number_node("0")


def isolated(node: Node) -> tuple[Node, Node, Node] | None:
    """(factor, summand, name) of a node that is factor * name + summand, both closed; None for any other."""
    op = node[0]
    if _is_simple(node):
        return _ONE, _NONE, node
    if op == "neg":
        found = isolated(node[1])
        return found and (("neg", found[0]), ("neg", found[1]), found[2])
    if op == "div" and is_closed(node[2]) and is_value(node[2]):
        found = isolated(node[1])
        return found and (("div", found[0], node[2]), ("div", found[1], node[2]), found[2])
    if op not in ("add", "mul"):
        return None
    around, inside = [], []
    for item in node[1]:
        (around if is_closed(item) else inside).append(item)
    if len(inside) != 1 or not all(map(is_value, around)) or (found := isolated(inside[0])) is None:
        return None
    if op == "add":
        return found[0], ("add", [found[1], *around]), found[2]
    return ("mul", [found[0], *around]), ("mul", [found[1], *around]), found[2]


def _relation(node: Node, budget: limits.Budget) -> list[Piece] | None:
    _, sides, ops = node
    if ops == ["in"]:
        return pieces(sides[1], budget)
    if (distance := _distance(sides, ops)) is not None:
        return pieces(distance, budget)
    about = variable(node)
    if about is None or any(op not in FLIPPED for op in ops) or len(sides) > 3:
        return None
    found = isolated(about)
    factor = None if found is None else end(found[0], budget)
    if factor is None or factor == _zero() or _is_infinite(factor):
        return None
    at = next(i for i, side in enumerate(sides) if side is about)
    if found[2] is not about:
        sides = [side if side is about else ("div", ("add", [side, ("neg", found[1])]), found[0]) for side in sides]
        ops = ops if factor > _zero() else [FLIPPED[op] for op in ops]
    result = None
    for i, op in enumerate(ops):
        if at not in (i, i + 1):
            return None
        point = end(sides[i + 1] if at == i else sides[i], budget)
        if point is None:
            return None
        part = half_line(op if at == i else FLIPPED[op], point)
        result = part if result is None else intersection(result, part)
    return result


def _distance(sides: list[Node], ops: list[str]) -> Node | None:
    """`|x| < c` as `-c < x < c`, `|x| > c` as `x < -c or x > c`."""
    if len(ops) != 1 or ops[0] not in ("<", "<=", ">", ">="):
        return None
    (inside, point), op = sides, ops[0]
    if point[:2] == ("call", "abs"):
        inside, point, op = point, inside, FLIPPED[op]
    if inside[:2] != ("call", "abs") or not is_closed(point) or len(inside[2]) != 1 or isolated(inside[2][0]) is None:
        return None
    name = inside[2][0]
    if op in ("<", "<="):
        return ("rel", [("neg", point), name, point], [op, op])
    return ("list", [("rel", [name, ("neg", point)], [FLIPPED[op]]), ("rel", [name, point], [op])], "or")


def _is_simple(node: Node) -> bool:
    """A name, or a function's value: `x`, `x_1`, `f(x)`."""
    return node[0] in ("name", "sub") or (node[0] == "mul" and all(item[0] in ("name", "sub") for item in node[1]))
