"""Walk a node with an arithmetic: numbers modulo a prime, or real and complex numbers of many digits; matrices over both."""

from synthrl_jax.grading import limits
from synthrl_jax.grading.modular import NotRational, Undefined, exact
from synthrl_jax.grading.nodes import Node


class Matrix:
    """Rows of field values."""

    def __init__(self, rows: list[list]):
        self.rows = rows

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.rows), len(self.rows[0])


class NoValue(Exception):
    """The node is no scalar or matrix expression (a set, a tuple, a relation, words)."""


def evaluate(node: Node, field):
    """Value of `node` in `field`: a scalar or a Matrix.

    NoValue, NotRational, Undefined, BeyondLimits.
    """
    field.budget.spend()
    op = node[0]
    if op == "number":
        return field.number(node[1])
    if op == "name":
        return field.name(node[1])
    if op == "constant":
        return field.constant(node[1])
    if op == "neg":
        return _scaled(field, field.neg(field.number(1)), evaluate(node[1], field))
    if op == "add":
        value = evaluate(node[1][0], field)
        for item in node[1][1:]:
            value = _added(field, value, evaluate(item, field))
        return value
    if op == "mul":
        value = evaluate(node[1][0], field)
        for item in node[1][1:]:
            value = _times(field, value, evaluate(item, field))
        return value
    if op in ("div", "ratio"):
        if op == "ratio" and len(node[1]) != 2:
            raise NoValue(op)
        over, under = node[1:] if op == "div" else node[1]
        value = evaluate(under, field)
        if isinstance(value, Matrix):
            raise NoValue("division by a matrix")
        return _scaled(field, field.invert(value), evaluate(over, field))
    if op == "pow":
        base = evaluate(node[1], field)
        return _matrix_power(field, base, node[2]) if isinstance(base, Matrix) else field.power(base, node[2])
    if op == "root":
        return field.root(node[1], node[2], evaluate)
    if op == "matrix":
        return Matrix([[_scalar(evaluate(cell, field)) for cell in row] for row in node[1]])
    if op == "sub":
        return field.opaque("sub " + node[1], [_index(node[2], field)])
    if op == "opaque":
        return field.opaque(node[1], [_index(arg, field) for arg in node[2]])
    if op == "call":
        return _call(node[1], node[2], field)
    if op == "big":
        return _big(node, field)
    if op == "where":
        return _where(node, field)
    if op in ("set", "group") and len(node[1]) == 1:  # braces and brackets as parentheses
        return evaluate(node[1][0], field)
    if op == "seq" and len(node[3]) == 1:
        return evaluate(node[3][0], field)
    raise NoValue(op)


def _index(node: Node, field):
    """A value for what stands in a subscript or under an accent; words and lists there are names."""
    if node[0] == "text":
        return "".join(node[1].split()).lower()
    if node[0] in ("list", "group", "set"):
        return [_index(item, field) for item in node[1]]
    if node[0] == "rel":
        return [_index(item, field) for item in node[1]] + list(node[2])
    if node[0] == "seq":
        return [node[1], node[2], *(_index(item, field) for item in node[3])]
    return evaluate(node, field)


def _scalar(value):
    if isinstance(value, Matrix):
        raise NoValue("a matrix where a number belongs")
    return value


def _added(field, a, b):
    if isinstance(a, Matrix) != isinstance(b, Matrix):
        raise NoValue("a number plus a matrix")
    if not isinstance(a, Matrix):
        return field.add(a, b)
    if a.shape != b.shape:
        raise NoValue("shapes")
    return Matrix([[field.add(x, y) for x, y in zip(p, q)] for p, q in zip(a.rows, b.rows)])


def _scaled(field, factor, value):
    if isinstance(value, Matrix):
        return Matrix([[field.mul(factor, x) for x in row] for row in value.rows])
    return field.mul(factor, value)


def _times(field, a, b):
    if not isinstance(a, Matrix):
        return _scaled(field, a, b)
    if not isinstance(b, Matrix):
        return _scaled(field, b, a)
    if a.shape[1] != b.shape[0]:
        raise NoValue("shapes")
    field.budget.spend(a.shape[0] * a.shape[1] * b.shape[1])
    columns = list(zip(*b.rows))
    return Matrix([[_dot(field, row, column) for column in columns] for row in a.rows])


def _dot(field, row, column):
    total = field.mul(row[0], column[0])
    for x, y in zip(row[1:], column[1:]):
        total = field.add(total, field.mul(x, y))
    return total


def _matrix_power(field, base: Matrix, exponent: Node) -> Matrix:
    n = exact(exponent, field.budget)
    if n.denominator != 1 or base.shape[0] != base.shape[1] or abs(n) > 64:
        raise NoValue("power of a matrix")
    if n < 0:
        base, n = _inverse(field, base), -n
    value = identity(field, base.shape[0])
    for _ in range(int(n)):
        value = _times(field, value, base)
    return value


def identity(field, size: int) -> Matrix:
    """The identity matrix over a field."""
    one, zero = field.number(1), field.number(0)
    return Matrix([[one if i == j else zero for j in range(size)] for i in range(size)])


def determinant(field, matrix: Matrix):
    """By elimination; Undefined never, NoValue for a matrix that is not square."""
    rows = [list(row) for row in matrix.rows]
    if len(rows) != len(rows[0]):
        raise NoValue("not square")
    field.budget.spend(len(rows) ** 3)
    value = field.number(1)
    for k in range(len(rows)):
        pivot = next((i for i in range(k, len(rows)) if not field.is_zero(rows[i][k])), None)
        if pivot is None:
            return field.number(0)
        if pivot != k:
            rows[k], rows[pivot] = rows[pivot], rows[k]
            value = field.neg(value)
        value = field.mul(value, rows[k][k])
        inverse = field.invert(rows[k][k])
        for i in range(k + 1, len(rows)):
            factor = field.neg(field.mul(rows[i][k], inverse))
            rows[i] = [field.add(x, field.mul(factor, y)) for x, y in zip(rows[i], rows[k])]
    return value


def _adjugate(field, matrix: Matrix) -> Matrix:
    size = len(matrix.rows)
    if size == 1:
        return identity(field, 1)
    minors = []
    for i in range(size):
        line = []
        for j in range(size):
            rows = [row[:i] + row[i + 1 :] for k, row in enumerate(matrix.rows) if k != j]
            minor = determinant(field, Matrix(rows))
            line.append(field.neg(minor) if (i + j) % 2 else minor)
        minors.append(line)
    return Matrix(minors)


def _inverse(field, matrix: Matrix) -> Matrix:
    value = determinant(field, matrix)
    if field.is_zero(value):
        raise Undefined
    return _scaled(field, field.invert(value), _adjugate(field, matrix))


def _call(name: str, nodes: list[Node], field):
    if len(nodes) == 1 and name in ("det", "transpose", "adjoint", "adj", "trace"):
        value = evaluate(nodes[0], field)
        if not isinstance(value, Matrix):
            return field.opaque(name, [value])
        if name == "det":
            return determinant(field, value)
        if name == "adj":
            return _adjugate(field, value)
        if name == "trace":
            total = field.number(0)
            for i in range(min(value.shape)):
                total = field.add(total, value.rows[i][i])
            return total
        if name == "adjoint":
            return Matrix([[field.conjugate(x) for x in column] for column in zip(*value.rows)])
        return Matrix([list(column) for column in zip(*value.rows)])
    try:
        return field.call(name, nodes, evaluate)
    except NotRational:
        if name not in ("gcd", "lcm", "mod", "arg"):
            raise
        return field.opaque(name, [_scalar(evaluate(node, field)) for node in nodes])


def _big(node: Node, field):
    _, name, variable, low, high, body = node
    if name in ("sum", "prod") and variable and low is not None and high is not None:
        try:
            first, last = exact(low, field.budget), exact(high, field.budget)
        except (NotRational, Undefined):
            first = last = None
        if first is not None and first.denominator == last.denominator == 1 and last - first <= limits.TERMS:
            total = field.number(0 if name == "sum" else 1)
            for k in range(int(first), int(last) + 1):
                value = evaluate(_substituted(body, variable, ("number", first.__class__(k), None, str(k))), field)
                total = _added(field, total, value) if name == "sum" else _times(field, total, value)
            return total
    bounds = [None if bound is None else _index(bound, field) for bound in (low, high)]
    inner = _substituted(body, variable, ("name", "bound variable")) if variable else body
    return field.opaque("big " + name, [*bounds, _index(inner, field)])


def _where(node: Node, field):
    target, value = node[2][1]
    if target[0] != "name":
        raise NoValue("where")
    return evaluate(_substituted(node[1], target[1], value), field)


def _substituted(node, variable: str, value: Node):
    if isinstance(node, list):
        return [_substituted(item, variable, value) for item in node]
    if not isinstance(node, tuple):
        return node
    if node[:2] in (("name", variable), ("constant", variable)):
        return value
    if node[0] in ("number", "text"):
        return node
    return tuple(_substituted(part, variable, value) for part in node)
