"""Exact arithmetic: values of closed expressions, and identities tested at random points modulo primes.

Two rational expressions that agree at a random point modulo two 61-bit primes are the same but for a chance of about
degree / 2^122 (Schwartz 1980, Zippel 1979); where they differ they are different. No expression is ever expanded.
"""

import hashlib
import math
from fractions import Fraction

from synthrl_jax.grading import limits
from synthrl_jax.grading.nodes import Node

# primes just below 2^61 that leave 1 when divided by 4: there -1 has a square root, the imaginary unit
PRIMES = (2305843009213693921, 2305843009213693693)


class NotRational(Exception):
    """The expression has roots, transcendental functions or symbolic exponents."""


class Undefined(Exception):
    """Division by zero."""


def _root_of_minus_one(p: int) -> int:
    for base in range(2, 100):
        root = pow(base, (p - 1) // 4, p)
        if root * root % p == p - 1:
            return root
    raise ArithmeticError(p)


_UNITS = {p: _root_of_minus_one(p) for p in PRIMES}


def fingerprint(*parts: object) -> int:
    """A stable 64-bit number for a name or a tuple of values."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode("utf-8", "replace"), digest_size=8).digest(), "big")


def exact(node: Node, budget: limits.Budget) -> Fraction:
    """Value of a closed rational expression; NotRational, Undefined or BeyondLimits."""
    budget.spend()
    op = node[0]
    if op == "number":
        return node[1]
    if op == "neg":
        return -exact(node[1], budget)
    if op == "add":
        return _bounded(sum((exact(item, budget) for item in node[1]), Fraction(0)))
    if op == "mul":
        value = Fraction(1)
        for item in node[1]:
            value = _bounded(value * exact(item, budget))
        return value
    if op == "div":
        under = exact(node[2], budget)
        if not under:
            raise Undefined
        return _bounded(exact(node[1], budget) / under)
    if op == "pow":
        value = power(exact(node[1], budget), exact(node[2], budget))
        budget.spend(value.numerator.bit_length() // 64)
        return value
    if op == "root":
        index = exact(node[1], budget)
        if index.denominator != 1 or not 0 < index <= 64:
            raise NotRational
        return exact_root(exact(node[2], budget), int(index))
    if op == "ratio" and len(node[1]) == 2:
        return exact(("div", *node[1]), budget)
    if op in ("group", "set", "seq") and len(node[-1]) == 1:
        return exact(node[-1][0], budget)
    if op == "call":
        return _call(node[1], [exact(arg, budget) for arg in node[2]])
    raise NotRational


def _bounded(value: Fraction) -> Fraction:
    if value.numerator.bit_length() > limits.BITS or value.denominator.bit_length() > limits.BITS:
        raise limits.BeyondLimits("a number of too many digits")
    return value


def power(base: Fraction, exponent: Fraction) -> Fraction:
    """base ** exponent where that is rational."""
    if exponent.denominator != 1:
        if exponent.denominator > 64:
            raise NotRational
        base, exponent = exact_root(base, exponent.denominator), Fraction(exponent.numerator)
    n = exponent.numerator
    if base == 0 and n <= 0:
        raise Undefined
    if base in (0, 1):
        return base
    if base == -1:
        return Fraction(-1 if n % 2 else 1)
    if abs(n) * max(base.numerator.bit_length(), base.denominator.bit_length()) > limits.BITS:
        raise limits.BeyondLimits("a power of too many digits")
    return base**n


def exact_root(value: Fraction, index: int) -> Fraction:
    """The real root where it is rational; NotRational otherwise."""
    if index == 1:
        return value
    if value < 0:
        if index % 2 == 0:
            raise NotRational
        return -exact_root(-value, index)
    parts = []
    for part in (value.numerator, value.denominator):
        root = math.isqrt(part) if index == 2 else _integer_root(part, index)
        if root**index != part:
            raise NotRational
        parts.append(root)
    return Fraction(*parts)


def _integer_root(value: int, index: int) -> int:
    low, high = 0, 1 << (value.bit_length() // index + 1)
    while low < high:
        middle = (low + high + 1) // 2
        if middle**index <= value:
            low = middle
        else:
            high = middle - 1
    return low


def _call(name: str, args: list[Fraction]) -> Fraction:
    whole = all(arg.denominator == 1 for arg in args)
    if name == "factorial" and len(args) == 1 and whole and args[0] >= 0:
        if args[0] > limits.FACTORIAL // 5:
            raise limits.BeyondLimits("a factorial")
        return Fraction(math.factorial(int(args[0])))
    if name == "binomial" and len(args) == 2 and whole and min(args) >= 0:
        if max(args) > limits.FACTORIAL // 5:
            raise limits.BeyondLimits("a binomial")
        return Fraction(math.comb(int(args[0]), int(args[1])))
    if name in ("gcd", "lcm") and args and whole:
        return Fraction(getattr(math, name)(*(int(arg) for arg in args)))
    if name in ("min", "max") and args:
        return min(args) if name == "min" else max(args)
    if name == "mod" and len(args) == 2 and args[1]:
        return args[0] - args[1] * (args[0] / args[1]).__floor__()
    if name == "abs" and len(args) == 1:
        return abs(args[0])
    if name in ("floor", "ceil") and len(args) == 1:
        return Fraction(args[0].__floor__() if name == "floor" else args[0].__ceil__())
    raise NotRational


class Modular:
    """Values of rational expressions modulo a prime, names at points that their spelling fixes."""

    def __init__(self, p: int, budget: limits.Budget, salt: int = 0):
        self.p = p
        self.budget = budget
        self.salt = salt

    def constant(self, name: str) -> int:
        if name == "i":
            return _UNITS[self.p]
        raise NotRational

    def number(self, value: Fraction) -> int:
        under = value.denominator % self.p
        return value.numerator * pow(under, -1, self.p) % self.p

    def name(self, text: str) -> int:
        return fingerprint("name", text, self.p, self.salt) % self.p

    def opaque(self, name: str, args: list[int]) -> int:
        return fingerprint("opaque", name, args, self.p, self.salt) % self.p

    def conjugate(self, a: int) -> int:
        raise NotRational

    def add(self, a: int, b: int) -> int:
        return (a + b) % self.p

    def mul(self, a: int, b: int) -> int:
        return a * b % self.p

    def neg(self, a: int) -> int:
        return -a % self.p

    def invert(self, a: int) -> int:
        if a % self.p == 0:
            raise Undefined
        return pow(a, -1, self.p)

    def is_zero(self, a: int) -> bool:
        return a % self.p == 0

    def power(self, base: int, exponent: Node) -> int:
        n = exact(exponent, self.budget)
        if n.denominator != 1:
            raise NotRational
        if base == 0 and n <= 0:
            raise Undefined
        self.budget.spend(n.numerator.bit_length() // 16)
        return pow(base, int(n), self.p)

    def root(self, index: Node, value: Node, evaluate) -> int:
        return self.number(exact(("root", index, value), self.budget))

    def call(self, name: str, nodes: list[Node], evaluate) -> int:
        if name == "factorial" and len(nodes) == 1:
            return self._factorial(exact(nodes[0], self.budget))
        return self.number(exact(("call", name, nodes), self.budget))

    def _factorial(self, n: Fraction) -> int:
        if n.denominator != 1 or n < 0:
            raise NotRational
        if n > limits.FACTORIAL:
            raise limits.BeyondLimits("a factorial")
        self.budget.spend(int(n) // 8)
        value = 1
        for k in range(2, int(n) + 1):
            value = value * k % self.p
        return value
