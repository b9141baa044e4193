"""Whether two parsed answers say the same: lists, tuples, intervals, sets, relations, matrices, values, words."""

from fractions import Fraction

from synthrl_jax.grading import limits, realset, words
from synthrl_jax.grading.identity import (
    is_closed,
    is_value,
    matching,
    names,
    proportional,
    same_value,
    unordered,
)
from synthrl_jax.grading.nodes import Node, table

_ORDER = {"<": 1, "<=": 1, ">": -1, ">=": -1}
_BASES = "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen".split()
_SETS = frozenset(("union", "inter", "minus", "builder"))


def same(a: Node, b: Node, budget: limits.Budget) -> bool:
    """Whether two nodes are the same answer; symmetric. BeyondLimits when that costs too much."""
    budget.spend()
    if a == b:
        return True
    a, b = spread(peeled(a)), spread(peeled(b))
    if a == b:
        return True

    def equal(x: Node, y: Node) -> bool:
        return same(x, y, budget)

    if a[0] == "rel" or b[0] == "rel":
        return _same_relations(a, b, budget)
    if a[0] in _SETS or b[0] in _SETS or _is_whole_set(a) or _is_whole_set(b):
        return _same_real_sets(a, b, budget)
    if _is_list(a) or _is_list(b):
        return _same_lists(a, b, budget)
    if a[0] == "seq" and b[0] == "seq":
        return _same_brackets(a, b) and len(a[3]) == len(b[3]) and all(map(equal, a[3], b[3]))
    if a[0] == "matrix" and b[0] == "matrix":
        return len(a[1]) == len(b[1]) and all(len(p) == len(q) and all(map(equal, p, q)) for p, q in zip(a[1], b[1]))
    if a[0] == "seq" or b[0] == "seq":
        matrix, row = (a, b) if b[0] == "seq" else (b, a)
        if matrix[0] == "matrix":
            return _is_vector(matrix, row, equal)
        rows = table(row)
        return rows is not None and is_value(matrix) and same_value(matrix, rows, budget)
    if a[0] == "text" or b[0] == "text":
        return a[0] == b[0] and words.pieces(a[1]) == words.pieces(b[1])
    if a[0] == "based" or b[0] == "based":
        return _same_based(a, b)
    if a[0] == "ratio" and b[0] == "ratio" and len(a[1]) == len(b[1]) > 2:
        return all(equal(("div", x, a[1][0]), ("div", y, b[1][0])) for x, y in zip(a[1][1:], b[1][1:]))
    return is_value(a) and is_value(b) and same_value(a, b, budget)


def peeled(node: Node) -> Node:
    """What stands inside brackets, braces or `x in` that change nothing."""
    while True:
        if node[0] in ("set", "group") and len(node[1]) == 1 and not _is_set(node[1][0]):
            node = node[1][0]
        elif node[0] == "seq" and len(node[3]) == 1 and node[1:3] in (("[", "]"), ("(", ")")):
            node = node[3][0]
        elif node[0] == "rel" and node[2] == ["in"]:
            node = node[1][1]
        else:
            return node


def _plus_minus(node) -> Node | None:
    """The first plus-minus in a node."""
    if isinstance(node, tuple) and node and node[0] == "pm":
        return node
    if isinstance(node, tuple) and node and node[0] in ("number", "text"):
        return None
    if isinstance(node, (tuple, list)):
        for part in node:
            if (found := _plus_minus(part)) is not None:
                return found
    return None


def _signed(node, sign: int):
    if isinstance(node, list):
        return [_signed(item, sign) for item in node]
    if not isinstance(node, tuple) or (node and node[0] in ("number", "text")):
        return node
    if node and node[0] == "pm":
        term = _signed(node[2], sign)
        if sign * node[3] < 0:
            term = ("neg", term)
        return term if node[1] is None else ("add", [_signed(node[1], sign), term])
    return tuple(_signed(part, sign) for part in node)


def spread(node: Node) -> Node:
    """An answer with plus-minus signs as the list of what it stands for, item by item."""
    if _plus_minus(node) is None:
        return node
    if node[0] in ("list", "set", "group"):
        items = []
        for item in node[1]:
            item = spread(item)
            items.extend(item[1] if item[0] == "list" else [item])
        return (node[0], items, *node[2:])
    return ("list", [_signed(node, 1), _signed(node, -1)], ",")


def _is_list(node: Node) -> bool:
    return node[0] in ("list", "group", "set")


def _is_set(node: Node) -> bool:
    """Whether a node is in set braces: a set of sets is none of its members."""
    return node[0] == "set" and len(node[1]) != 1


def _is_infinite(node: Node) -> bool:
    return node == ("constant", "inf") or (node[0] == "neg" and _is_infinite(node[1]))


def _is_whole_set(node: Node) -> bool:
    return node[0] == "opaque" and node[1] == "reals"


def _same_brackets(a: Node, b: Node) -> bool:
    return a[1:3] == b[1:3] or (len(a[3]) != 2 and {a[1], b[1]} <= {"(", "["} and {a[2], b[2]} <= {")", "]"})


def _is_vector(matrix: Node, row: Node, equal) -> bool:
    """Whether a matrix of one column or row holds the members of a tuple, or its rows those of a tuple of tuples."""
    rows = matrix[1]
    if all(len(line) == 1 for line in rows):
        cells = [line[0] for line in rows]
    elif len(rows) == 1:
        cells = rows[0]
    else:
        lines = row[3]
        return len(lines) == len(rows) and all(
            line[0] == "seq" and len(line[3]) == len(cells) and all(map(equal, line[3], cells))
            for line, cells in zip(lines, rows)
        )
    members = row[3]
    if len(members) == len(cells) and all(m[0] == "seq" and len(m[3]) == 1 for m in members):
        members = [m[3][0] for m in members]
    return len(members) == len(cells) and all(map(equal, members, cells))


def _same_real_sets(a: Node, b: Node, budget: limits.Budget) -> bool:
    first, second = (
        realset.pieces(("set", [x]) if is_value(x) and not _is_whole_set(x) else x, budget) for x in (a, b)
    )
    if first is not None and second is not None:
        return realset.equal(first, second)
    if a[0] == b[0] and a[0] in ("union", "inter"):
        return matching(_parts(a, a[0]), _parts(b, b[0]), lambda x, y: same(x, y, budget))
    return a[0] == b[0] and a[0] in ("minus", "builder") and all(same(x, y, budget) for x, y in zip(a[1:], b[1:]))


def _parts(node: Node, op: str) -> list[Node]:
    return _parts(node[1], op) + _parts(node[2], op) if node[0] == op else [node]


def _members(node: Node) -> list[Node]:
    return node[1] if _is_list(node) else node[3] if node[0] == "seq" else [node]


def _assignments(items: list[Node]) -> dict | None:
    """{name: value} where every item is a named value."""
    found = {}
    for item in items:
        pair = assigned(item) if item[0] == "rel" else None
        if pair is None or pair[0] is None or repr(pair[0]) in found:
            return None
        found[repr(pair[0])] = pair[1]
    return found


def _same_lists(a: Node, b: Node, budget: limits.Budget) -> bool:
    def equal(x: Node, y: Node) -> bool:
        return same(x, y, budget)

    if any(x[0] == "list" and (x[2] == "or" or x[1][0][0] == "rel") for x in (a, b)):
        first, second = realset.pieces(a, budget), realset.pieces(b, budget)
        if first is not None and second is not None and realset.equal(first, second):
            return True
    xs, ys = _members(a), _members(b)
    if max(len(xs), len(ys)) > limits.ITEMS:
        raise limits.BeyondLimits("too many items")
    first, second = _assignments(xs), _assignments(ys)
    if first is not None and second is not None and set(first) == set(second):
        return all(equal(first[name], second[name]) for name in first)
    if a[0] == "seq" or b[0] == "seq":
        bracketed, bare = (a, b) if a[0] == "seq" else (b, a)
        if bare[0] == "list" and bare[2] == "or":  # alternatives are no point
            return False
        if len(bracketed[3]) == 2 and (bracketed[1:3] != ("(", ")") or any(map(_is_infinite, bracketed[3]))):
            return False  # an interval
        return bare[0] != "set" and len(xs) == len(ys) and all(map(equal, xs, ys))
    if a[0] == "matrix" or b[0] == "matrix":
        return False
    if "set" in (a[0], b[0]):
        return unordered(xs, ys, equal)
    return matching(xs, ys, equal)


# -- relations -----------------------------------------------------------------------------------------------------------


def _is_named(node: Node) -> bool:
    """Whether a side of an equation is what is asked for: a name, f(x), |AB|, an angle, A:B, words."""
    op = node[0]
    if op in ("name", "sub", "text", "opaque"):
        return True
    if op == "mul" and len(node[1]) == 2 and node[1][0][0] == "name":  # f(2), P(X = 3)
        inside = node[1][1]
        if inside[0] in ("rel", "union", "inter") or (inside[0] == "seq" and all(map(is_closed, inside[3]))):
            return True
    if op in ("mul", "ratio", "list", "group"):
        return all(_is_named(item) for item in node[1])
    if op == "seq":
        return all(_is_named(item) for item in node[3])
    if op == "matrix":
        return all(_is_named(cell) for row in node[1] for cell in row)
    if op == "div":
        return _is_named(node[1]) and _is_named(node[2])
    if op == "pow":  # an inverse function: f^{-1}(x)
        return _is_named(node[1]) and node[2][0] == "neg"
    if op == "call":
        return node[1] in ("abs", "sin", "cos", "tan", "cot", "det") and all(_is_named(arg) for arg in node[2])
    return node == ("constant", "e") or node == ("constant", "i")


def assigned(node: Node) -> tuple[Node | None, Node] | None:
    """(what is named, its value) of an equation that says a value, else None; no name in a finished calculation."""
    _, sides, ops = node
    if any(op != "=" for op in ops):
        return None
    first, last = sides[0], sides[-1]
    if _is_named(first) and first != last:
        return (
            (last, first) if _is_named(last) and not _is_named_alone(first) and _is_named_alone(last) else (first, last)
        )
    if _is_named(last):
        return last, first
    if len(sides) > 2 or (is_closed(first) and is_closed(last)):
        return None, last
    return None


def _is_named_alone(node: Node) -> bool:
    return node[0] in ("name", "sub")


def _same_relations(a: Node, b: Node, budget: limits.Budget) -> bool:
    if a[0] != "rel" or b[0] != "rel":
        relation, other = (a, b) if a[0] == "rel" else (b, a)
        pair = assigned(relation)
        if pair is not None:
            return same(pair[1], other, budget)
        first, second = realset.pieces(relation, budget), realset.pieces(other, budget)
        return first is not None and second is not None and realset.equal(first, second)
    if len(a[2]) == len(b[2]) == 1 and _same_single(a, b, budget):
        return True
    for other in (b, _turned(b)):
        if a[2] == other[2] and all(same(x, y, budget) for x, y in zip(a[1], other[1])):
            return True
    first, second = assigned(a), assigned(b)
    if first is not None and second is not None:
        return _same_target(first, second) and same(first[1], second[1], budget)
    return _same_inequalities(a, b, budget)


def _turned(node: Node) -> Node:
    """A chain of inequalities read from its end: `A > B > C` is `C < B < A`."""
    if len(node[2]) < 2 or any(op not in _ORDER for op in node[2]):
        return node
    return ("rel", node[1][::-1], [realset.FLIPPED[op] for op in node[2][::-1]])


def _same_target(first: tuple, second: tuple) -> bool:
    """Whether two assignments can be about the same thing: `y = 2x` and `f(x) = 2x`, but not `x = 5` and `y = 5`."""
    if None in (first[0], second[0]) or first[0] == second[0]:
        return True
    if first[0][0] == "mul" == second[0][0]:  # f(2) and f(3), AB and AC
        return sorted(map(repr, first[0][1])) == sorted(map(repr, second[0][1]))
    if "call" in (first[0][0], second[0][0]) and set(names(first[0])) & set(names(second[0])):  # |x| = 1, x = 1
        return False
    return not (_is_named_alone(first[0]) and _is_named_alone(second[0]))


def _difference(node: Node) -> Node:
    return ("add", [node[1][0], ("neg", node[1][1])])


def _same_single(a: Node, b: Node, budget: limits.Budget) -> bool:
    p, q = a[2][0], b[2][0]
    if not all(is_value(side) for side in (*a[1], *b[1])) or set(names(a)) != set(names(b)):
        return False
    f, g = _difference(a), _difference(b)
    if p == q and p in ("=", "!="):
        return not is_closed(a) and proportional(f, g, budget)
    if p in _ORDER and q in _ORDER and ("=" in p) == ("=" in q):
        return proportional(f, g, budget, sign=_ORDER[p] * _ORDER[q])
    return False


def _same_inequalities(a: Node, b: Node, budget: limits.Budget) -> bool:
    first, second = realset.subject(a), realset.subject(b)
    if first is None or second is None or not same(first, second, budget):
        return False
    x, y = realset.pieces(a, budget), realset.pieces(b, budget)
    return x is not None and y is not None and realset.equal(x, y)


def _same_based(a: Node, b: Node) -> bool:
    """`664_7` = `664_{7}` = `664_{seven}`; against a plain number the digits count."""
    based, other = (a, b) if a[0] == "based" else (b, a)
    if other[0] == "based":
        return based[1] == other[1] and _base(based[2]) == _base(other[2])
    return other[0] == "number" and other[1] == Fraction(int(based[1])) if based[1].isdigit() else False


def _base(text: str) -> str:
    return str(_BASES.index(text) + 2) if text in _BASES else text
