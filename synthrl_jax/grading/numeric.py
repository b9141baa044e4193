"""Values to fifty digits: constants, and identities with roots and transcendental functions tested at points."""

import threading
from collections.abc import Mapping
from fractions import Fraction
from types import MappingProxyType
from typing import NamedTuple

from synthrl_jax.grading import limits
from synthrl_jax.grading.modular import NotRational, Undefined, exact, fingerprint
from synthrl_jax.grading.nodes import Node

DIGITS = 50
MORE_DIGITS = 160
_contexts = threading.local()


def context(digits: int = DIGITS):
    """This thread's own mpmath context of a precision (mpmath's default one is shared and not thread-safe)."""
    known = _contexts.__dict__.setdefault("known", {})
    if digits not in known:
        from mpmath.ctx_mp import MPContext

        known[digits] = MPContext()
        known[digits].dps = digits
    return known[digits]


_REAL_ONLY = {"floor": "floor", "ceil": "ceil"}
_PLAIN = {
    **{name: name for name in "sin cos tan cot sec csc sinh cosh tanh coth asin acos atan acot asec acsc".split()},
    **{name: name for name in "asinh acosh atanh exp".split()},
}
_PERIODIC = frozenset("sin cos tan cot sec csc".split())
_GROWING = frozenset("sinh cosh exp tanh coth".split())
_STRETCH = ((3, 7), (19, 8), (5, 9), (41, 16))
POINTS = range(len(_STRETCH))


class Point(NamedTuple):
    """Where names stand: a place near one by their spelling and `which`, below zero if in `negative`, or as `at` says."""

    which: int = 0
    negative: frozenset = frozenset()
    at: Mapping[str, Fraction] = MappingProxyType({})
    scale: Fraction = Fraction(1)  # of indexed names and values of functions


HERE = Point()


class Numeric:
    """Real and complex values with names at a point; NotRational for a name where the node is said to be closed."""

    def __init__(self, budget: limits.Budget, point: Point = HERE, digits: int = DIGITS, is_closed: bool = False):
        self.ctx = context(digits)
        self.digits = digits
        self.budget = budget
        self.point = point
        self.is_closed = is_closed
        self.branched = False  # whether a root or a logarithm of a negative number was taken
        self.largest = self.ctx.zero  # the largest that was added, 1 after a function: errors are in proportion to it

    def number(self, value) -> object:
        value = Fraction(value)
        return self.ctx.mpf(value.numerator) / value.denominator

    def constant(self, name: str):
        return {"pi": self.ctx.pi, "e": self.ctx.e, "i": self.ctx.j, "inf": self.ctx.inf}[name] * self.ctx.one

    def name(self, text: str):
        if self.is_closed:
            raise NotRational
        which, negative, at, _ = self.point
        if text in at:
            return self.number(at[text])
        spread = Fraction(fingerprint(text, which) % 10**12, 10**12)
        over, under = _STRETCH[which % len(_STRETCH)]
        if text in negative:
            over = -over
        return self.number(Fraction(over, under) * (Fraction(1, 2) + spread))

    def opaque(self, name: str, args: list):
        if self.is_closed:
            raise NotRational
        seen = [self._rounded(arg) for arg in args]
        value = Fraction(1 + fingerprint(name, seen, self.point.which) % 10**12, 10**12)
        return self.number(self.point.scale * value)

    def _rounded(self, value):
        if isinstance(value, list):
            return [self._rounded(item) for item in value]
        if isinstance(value, str) or value is None:
            return value
        return self.ctx.nstr(value, 20)

    def finite(self, value):
        """`value`, or Undefined where it is none."""
        if self.ctx.isnan(value):
            raise Undefined
        return value

    def add(self, a, b):
        self.largest = max(self.largest, abs(a), abs(b))
        return self.finite(a + b)

    def mul(self, a, b):
        return self.finite(a * b)

    def neg(self, a):
        return -a

    def conjugate(self, a):
        return self.ctx.conj(a)

    def invert(self, a):
        if self.is_zero(a):
            raise Undefined
        return 1 / a

    def is_zero(self, a) -> bool:
        return not self.ctx.isinf(a) and abs(a) < self.ctx.mpf(10) ** (8 - self.digits)

    def power(self, base, exponent: Node):
        try:
            n = exact(exponent, self.budget)
        except (NotRational, Undefined):
            from synthrl_jax.grading.evaluate import NoValue, evaluate

            value = evaluate(exponent, self)
            if not hasattr(value, "real"):
                raise NoValue("a matrix as an exponent") from None
            return self._power(base, value)
        if n.denominator % 2 and n.denominator > 1 and self._is_real(base) and self.ctx.re(base) < 0:
            root = -self._power(-self.ctx.re(base), self.number(Fraction(1, n.denominator)))
            return self._power(root, self.number(n.numerator))
        if n.denominator == 1:
            return self._power(base, int(n))
        return self._power(base, self.number(n))

    def _power(self, base, exponent):
        if base == 0:
            real = self.ctx.re(exponent)
            if real <= 0:
                raise Undefined
            return self.ctx.zero
        if not self.ctx.isinf(base) and not self.ctx.isinf(exponent):
            size = abs(self.ctx.log(base)) * abs(exponent)
            if size > limits.MAGNITUDE:
                raise limits.BeyondLimits("a power of this magnitude")
        value = self.finite(self.ctx.power(base, exponent))
        self.branched = self.branched or (value.imag != 0 and base.imag == 0)
        return value

    def root(self, index: Node, value: Node, evaluate):
        base = evaluate(value, self)
        if not hasattr(base, "real"):
            raise Undefined
        return self.power(base, ("div", ("number", Fraction(1), None, "1"), index))

    def _is_real(self, value) -> bool:
        return self.ctx.im(value) == 0

    def call(self, name: str, nodes: list[Node], evaluate):
        ctx = self.ctx
        args = [evaluate(node, self) for node in nodes]
        if not all(hasattr(arg, "real") for arg in args) or any(ctx.isinf(arg) for arg in args):
            raise NotRational
        self.largest = max(self.largest, self.ctx.one)
        if name in ("min", "max") and args and all(self._is_real(arg) for arg in args):
            return min(args) if name == "min" else max(args)
        if name == "binomial" and len(args) == 2:
            return self._binomial(nodes, args)
        if name == "mod" and len(args) == 2 and all(self._is_real(arg) for arg in args):
            if self.is_zero(args[1]):
                raise Undefined
            return args[0] - args[1] * ctx.floor(args[0] / args[1])
        if len(args) != 1:
            raise NotRational
        (x,) = args
        if name in _PERIODIC and abs(x) > limits.MAGNITUDE:
            raise limits.BeyondLimits("a trigonometric function of this magnitude")
        if name in _GROWING and abs(x) > limits.MAGNITUDE:
            raise limits.BeyondLimits("an exponential of this magnitude")
        try:
            return self._one(name, x)
        except (ZeroDivisionError, ValueError):
            raise Undefined from None

    def _one(self, name: str, x):
        ctx = self.ctx
        if name in _PLAIN:
            if name in ("tan", "sec") and self.is_zero(ctx.cos(x)):
                raise Undefined
            if name in ("cot", "csc") and self.is_zero(ctx.sin(x)):
                raise Undefined
            return self.finite(getattr(ctx, name)(x))
        if name == "ln":
            if self.is_zero(x):
                raise Undefined
            self.branched = self.branched or (x.imag == 0 and x.real < 0)
            return ctx.log(x)
        if name == "abs":
            return abs(x)
        if name in _REAL_ONLY and self._is_real(x):
            return self._stepped(name, ctx.re(x))
        if name == "factorial":
            if abs(x) > limits.FACTORIAL:
                raise limits.BeyondLimits("a factorial")
            return ctx.gamma(x + 1)
        if name in ("re", "im", "conj"):
            return getattr(ctx, name)(x)
        if name == "erf" and abs(x) < 100:
            return ctx.erf(x)
        raise NotRational

    def _stepped(self, name: str, x):
        near = self.ctx.nint(x)
        if abs(x - near) < self.ctx.mpf(10) ** (12 - self.digits) * max(1, abs(x)):
            return near
        return self.ctx.floor(x) if name == "floor" else self.ctx.ceil(x)

    def _binomial(self, nodes, args):
        if any(abs(arg) > limits.FACTORIAL for arg in args):
            raise limits.BeyondLimits("a binomial")
        try:
            return self.number(exact(("call", "binomial", nodes), self.budget))
        except (NotRational, Undefined):
            return self.ctx.binomial(*args)
