r"""What the commands of the grammar read: fractions, roots, functions, matrices, sums."""

from synthrl_jax.grading import atoms, limits
from synthrl_jax.grading.nodes import Node, Unreadable, number_node, table, times

_MATRICES = frozenset("matrix pmatrix bmatrix Bmatrix vmatrix Vmatrix smallmatrix array".split())
_LAYOUTS = frozenset("aligned align align* gathered split equation equation* eqnarray displaymath math".split())

_ONE_WORD_SETS = {"R": "reals", "Z": "integers", "N": "naturals", "Q": "rationals", "C": "complexes"}


def frac(parser) -> Node:
    """Two arguments."""
    over = parser.argument()
    return ("div", over, parser.argument())


def sqrt(parser) -> Node:
    r"""`\sqrt{x}`, `\sqrt[n]{x}`, `\sqrt2`, `\sqrt{}{3}`, `sqrt(x)`."""
    index = None
    if parser.peek().kind == "[":
        parser.take()
        index = parser.listed(";")
        parser.take("]")
    if parser.peek().kind == "number":
        inner = atoms.number(parser)
    else:
        inner = parser.argument() if parser.peek().kind != "function" else parser.factor()
        if inner == ("text", ""):
            inner = parser.argument()
    return ("root", index or number_node("2"), inner)


def binom(parser) -> Node:
    over = parser.argument()
    return ("call", "binomial", [over, parser.argument()])


def pair(parser) -> Node:
    r"""`\choose{n}{k}` in front."""
    return binom(parser)


def _closed_by(closer: str, name: str):
    def read(parser) -> Node:
        bars, parser.bars = parser.bars, 0
        node = parser.sum()
        parser.take(closer)
        parser.bars = bars
        return ("call", name, [node])

    return read


def _dressed(name: str):
    def read(parser) -> Node:
        return ("opaque", name, [parser.argument()])

    return read


def _figure(name: str):
    def read(parser) -> Node:
        parts = [parser.primary()]
        while parser.peek().kind == "name":
            parts.append(parser.primary())
        return ("opaque", name, parts)

    return read


def _unwrapped(parser) -> Node:
    return parser.argument()


def infinite_set(parser) -> Node:
    r"""`\mathbb{R}` and its like; other letters are names."""
    node = parser.argument()
    if node[0] == "name" and node[1] in _ONE_WORD_SETS:
        while parser.peek().kind == "^" and parser.peek(1).kind in ("+", "-"):
            parser.at += 2
            return ("opaque", _ONE_WORD_SETS[node[1]] + "+", [])
        return ("opaque", _ONE_WORD_SETS[node[1]], [])
    return node


def _empty(parser) -> Node:
    return ("set", [])


def _dots(parser) -> Node:
    return ("opaque", "dots", [])


def _differential(parser) -> Node:
    inner = parser.primary()
    return ("opaque", "differential", [inner])


def bigop(name: str):
    r"""`\sum_{k=1}^{n} body`: the body reaches over the products that follow."""

    def read(parser) -> Node:
        low = high = None
        variable = ""
        while parser.peek().kind in ("_", "^"):
            if parser.take().kind == "^":
                high = parser.braced() if parser.peek().kind == "{" else parser.argument()
                continue
            low = parser.braced() if parser.peek().kind == "{" else parser.argument()
            if low[0] == "rel" and low[2] in (["="], ["to"]) and low[1][0][0] in ("name", "constant"):
                variable, low = str(low[1][0][1]), low[1][1]
        if name == "int":
            body = parser.sum()
        elif parser.peek().kind in ("(", "["):
            body = parser.product(parser.factor())
        else:
            body = parser.product(parser.signed())
        return ("big", name, variable, low, high, body)

    return read


def begin(parser) -> Node:
    """A matrix, or the first formula of a layout environment."""
    name = _environment(parser)
    if name in _LAYOUTS:
        node = parser.listed(";")
        _end(parser, name)
        return node
    if name == "array":
        if parser.peek().kind == "{":
            while parser.take().kind != "}":
                pass
        if parser.peek().kind == "[":
            raise Unreadable("an option of array")
    if name not in (*_MATRICES, "cases"):
        raise Unreadable(f"environment {name}")
    rows: list[list[Node]] = [[]]
    cells = 0
    while parser.peek().kind != "end" or parser.at >= len(parser.tokens):
        if parser.skip("\\\\"):
            rows.append([])
        elif parser.peek().kind in ("&", ",") or (parser.peek().kind == "name" and parser.peek().text == "hline"):
            parser.take()
        else:
            rows[-1].append(parser.item())
            cells += 1
            if cells > limits.ITEMS:
                raise limits.BeyondLimits("a huge matrix")
    _end(parser, name)
    rows = [row for row in rows if row]
    if name == "cases" and rows and all(len(row) == 1 and row[0][0] == "rel" for row in rows):
        return ("list", [row[0] for row in rows], "and")  # a system of equations
    if name == "cases":
        return ("opaque", "cases", [cell for row in rows for cell in row])
    if not rows or len({len(row) for row in rows}) != 1:
        raise Unreadable("a matrix of uneven rows")
    node = ("matrix", rows)
    return ("call", "det", [node]) if name in ("vmatrix", "Vmatrix") else node


def _environment(parser) -> str:
    parser.take("{")
    letters = []
    while parser.peek().kind != "}":
        letters.append(parser.take().text)
    parser.take("}")
    return "".join(letters)


def _end(parser, name: str) -> None:
    parser.take("end")
    if _environment(parser) != name:
        raise Unreadable("environments cross")


def function(parser) -> Node:
    r"""`\sin x`, `sin(x)`, `\sin^2 x`, `\sin^{-1} x`, `\log_2 x`, `\max(a, b)`."""
    name = parser.take("function").text
    base = power = None
    while parser.peek().kind in ("^", "_"):
        if parser.take().kind == "_":
            base = parser.braced() if parser.peek().kind == "{" else parser.argument()
        else:
            power = parser.exponent()
    degrees = parser.degrees
    args = _arguments(parser, name)
    if not args:
        raise Unreadable(f"{name} of nothing")
    if parser.degrees > degrees and name in _TRIGONOMETRIC:
        args = [("mul", [arg, ("div", ("constant", "pi"), number_node("180"))]) for arg in args]
    if name == "Matrix":
        whole = ("seq", "[", "]", args)
        return table(args[0]) or table(whole) or ("matrix", [[arg] for arg in args])
    if name == "log" and len(args) == 2:
        args, base = args[:1], args[1]
    if name == "lg":
        name, base = "log", number_node("10")
    if name in ("ln", "log"):
        euler = base in (("name", "E"), ("constant", "e"))
        node: Node = ("call", "ln", args)
        if base is not None and not euler:
            node = ("div", node, ("call", "ln", [base]))
    elif name == "exp" and len(args) == 1:
        node = ("pow", ("constant", "e"), args[0])
    elif name == "cbrt" and len(args) == 1:
        node = ("root", number_node("3"), args[0])
    else:
        if base is not None:
            args = [*args, base]
        node = ("call", name, args)
    if power is not None:
        if power == ("neg", number_node("1")) and ("a" + name) in _INVERSES:
            return ("call", "a" + name, args)
        node = ("pow", node, power)
    return node


_TRIGONOMETRIC = frozenset("sin cos tan cot sec csc".split())
_INVERSES = frozenset("asin acos atan acot asec acsc asinh acosh atanh".split())


def _arguments(parser, name: str) -> list[Node]:
    kind = parser.peek().kind
    if kind in ("(", "["):
        node = atoms.bracketed(parser)
        return node[3] if node[0] == "seq" else [node]
    if kind == "\\{":
        node = atoms.bracketed(parser)
        return node[1] if node[0] == "set" else [node]
    if kind == "{":
        node = parser.braced()
        return node[1] if node[0] == "group" else [node]
    if kind == "|":
        return [parser.factor()]
    parser.deeper()
    sign = 1
    while parser.peek().kind in ("+", "-"):
        if parser.take().kind == "-":
            sign = -sign
    node = parser.factor()
    if node[0] != "call":  # "\sin 2x", "\log xy": what is written together
        while parser.peek().kind in ("name", "constant", "frac", "sqrt", "number", "{"):
            if parser.peek().kind == "number" and node[0] == "number":
                raise Unreadable("two numbers side by side")
            node = times(node, parser.factor())
    parser.depth -= 1
    return [node if sign > 0 else ("neg", node)]


COMMANDS = {
    "frac": frac,
    "sqrt": sqrt,
    "binom": binom,
    "choose": pair,
    "lfloor": _closed_by("rfloor", "floor"),
    "lceil": _closed_by("rceil", "ceil"),
    **{name: _dressed(name) for name in "overline bar hat vec tilde dot ddot widehat overrightarrow".split()},
    **dict.fromkeys("underline boxed variable mathcal mathfrak mathscr cancel".split(), _unwrapped),
    **{name: _figure(name) for name in ("angle", "triangle", "square")},
    "mathbb": infinite_set,
    "emptyset": _empty,
    "ldots": _dots,
    "differentialD": _differential,
    **{name: bigop(name) for name in "sum prod lim limsup liminf".split()},
    **{name: bigop("int") for name in "int iint iiint oint".split()},
    "begin": begin,
}
