r"""Nodes of parsed answers, tuples `(op, ...)`, and how the plain ones are built.

number(value, decimals, text) · name(n) · constant(c) · text(s) · add(items) · neg(x) · mul(items) · div(a, b) · pow(a, b) ·
root(n, x) · pm(a, b, sign) · call(f, args) · sub(name, index) · based(digits, base) · matrix(rows) ·
big(name, variable, low, high, body) · opaque(name, args) · ratio(items) · seq(open, close, items) · set(items) ·
group(items) · list(items, joint) · rel(sides, ops) · union / inter / minus(a, b) · builder(x, condition) ·
where(x, condition).
"""

from fractions import Fraction

from synthrl_jax.grading import limits, numbers

Node = tuple
CLOSERS = frozenset((")", "]", "\\}", "}", "rfloor", "rceil", "end", "|", "&", "\\\\"))
STOPS = CLOSERS - {"|"}
_BETWEEN = "+ - pm mp relation , ; and or * / : cup cap setminus bmod pmod choose over ^ _ ! '".split()
ENDS_FACTOR = STOPS | frozenset(_BETWEEN)


class Unreadable(ValueError):
    """The text is no formula of this grammar."""


def added(items: list[Node]) -> Node:
    """The sum of some terms."""
    return items[0] if len(items) == 1 else ("add", items)


def times(a: Node, b: Node) -> Node:
    """The product of two factors, flat."""
    if a[0] == "mul":
        return ("mul", [*a[1], b])
    return ("mul", [a, b])


def number_node(text: str) -> Node:
    """The node of a number literal; BeyondLimits for absurd sizes."""
    mantissa, _, exponent = text.lower().partition("e")
    whole, _, part = mantissa.partition(".")
    if len(exponent) > 8:
        raise limits.BeyondLimits("exponent of a literal")
    value, decimals = numbers.literal(whole, part, int(exponent or 0))
    return ("number", value, decimals, text)


def repeating(text: str, digits: str) -> Node:
    """The node of a decimal whose last `digits` repeat."""
    whole, _, part = text.partition(".")
    if len(text) + len(digits) > limits.DIGITS:
        raise limits.BeyondLimits("too many digits")
    value = Fraction(int((whole + part) or "0")) + Fraction(int(digits), 10 ** len(digits) - 1)
    return ("number", value / 10 ** len(part), None, text + digits)


def is_proper(over: Node, under: Node) -> bool:
    """Whether over / under is a fraction of whole numbers below one."""
    return (
        over[0] == "number" == under[0] and over[1].denominator == 1 == under[1].denominator and 0 <= over[1] < under[1]
    )


def table(node: Node) -> Node | None:
    """The matrix that a list of equally long lists is."""
    rows = node[3] if node[0] == "seq" else []
    if not rows or any(row[0] != "seq" for row in rows) or len({len(row[3]) for row in rows}) != 1:
        return None
    return ("matrix", [row[3] for row in rows])
