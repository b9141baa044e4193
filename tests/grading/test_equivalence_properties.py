"""Random answers: distinct ones never pass for equal, rewritings always do. Fractions and sympy are the judges."""

import random
from decimal import Decimal
from fractions import Fraction

import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from synthrl_jax.grading import equivalent

SIZES = [pytest.param(150, id="quick"), pytest.param(3_000, id="full", marks=pytest.mark.long)]
SYMPY_SIZES = [pytest.param(40, id="quick"), pytest.param(600, id="full", marks=pytest.mark.long)]
RATIONALS = st.fractions(min_value=-1000, max_value=1000, max_denominator=500)


def spellings(value: Fraction, rng: random.Random) -> list[str]:
    """Exact ways to write a rational."""
    over, under, k = abs(value.numerator), value.denominator, rng.randint(2, 9)
    sign = "-" if value < 0 else ""
    found = [
        f"{sign}{over}/{under}",
        f"{sign}\\frac{{{over}}}{{{under}}}",
        f"\\dfrac{{{sign}{over * k}}}{{{under * k}}}",
        f"{sign}\\left(\\frac{{{over * k}}}{{{under * k}}}\\right)",
        f"\\frac{{{sign}{over}}}{{{under}}} + {k} - {k}",
    ]
    if under == 1:
        found += [f"{sign}{over:,}", f"{sign}{over}.0", f"${sign}{over}$"]
    elif over > under:
        found.append(f"{sign}{over // under}\\frac{{{over % under}}}{{{under}}}")
    rest = under
    while rest % 2 == 0:
        rest //= 2
    while rest % 5 == 0:
        rest //= 5
    if rest == 1:
        digits = Decimal(over) / Decimal(under)  # exact: the denominator divides a power of ten
        found.append(f"{sign}{digits:f}")
    return found


def run(size, strategy, check):
    settings(max_examples=size, deadline=None, database=None)(given(strategy)(check))()


@pytest.mark.parametrize("size", SIZES)
def test_rationals(size):
    def check(drawn):
        a, b, seed = drawn
        rng = random.Random(seed)
        one, other = spellings(a, rng), spellings(b, rng)
        x, y, z = rng.choice(one), rng.choice(one), rng.choice(other)
        assert equivalent(x, y) and equivalent(y, x)
        assert equivalent(x, z) == equivalent(z, x) == (a == b)

    run(size, st.tuples(RATIONALS, RATIONALS, st.integers()), check)


@pytest.mark.parametrize("size", SIZES)
def test_neighbouring_rationals_of_many_digits(size):
    def check(drawn):
        over, under = drawn
        a, b = f"\\frac{{{over}}}{{{under}}}", f"\\frac{{{over + 1}}}{{{under}}}"
        assert not equivalent(a, b)
        assert not equivalent(str(over), str(over + 1))
        assert not equivalent(f"{over}.{under}", f"{over}.{under}1")

    big = st.integers(10**30, 10**40)
    run(size, st.tuples(big, big), check)


def written_interval(low: Fraction, high: Fraction, ends: str, rng: random.Random) -> str:
    a, b = rng.choice(spellings(low, rng)[:4]), rng.choice(spellings(high, rng)[:4])
    inside = f"{ends[0]}{a}, {b}{ends[1]}"
    signs = {"(": "<", ")": "<", "[": "\\le", "]": "\\leq"}
    relation = f"{a} {signs[ends[0]]} x {signs[ends[1]]} {b}"
    return rng.choice([inside, f"\\left{inside[:-1]}\\right{ends[1]}", f"x \\in {inside}", relation])


@pytest.mark.parametrize("size", SIZES)
def test_intervals(size):
    def check(drawn):
        points, ends, seed = drawn
        rng = random.Random(seed)
        low, middle, high = sorted(points)
        first = written_interval(low, high, ends[0], rng)
        assert equivalent(first, written_interval(low, high, ends[0], rng))
        if ends[0] != ends[1]:
            assert not equivalent(first, written_interval(low, high, ends[1], rng))
        assert not equivalent(first, written_interval(low, middle, ends[0], rng))
        split = f"{ends[0][0]}{low}, {middle}] \\cup ({middle}, {high}{ends[0][1]}"
        assert equivalent(first, split) and equivalent(split, first)
        holed = f"{ends[0][0]}{low}, {middle}) \\cup ({middle}, {high}{ends[0][1]}"
        assert not equivalent(first, holed)

    ends = st.sampled_from(["()", "[]", "(]", "[)"])
    points = st.lists(RATIONALS, min_size=3, max_size=3, unique=True)
    run(size, st.tuples(points, st.tuples(ends, ends), st.integers()), check)


@pytest.mark.parametrize("size", SIZES)
def test_sets_and_tuples(size):
    def check(drawn):
        members, extra, seed = drawn
        rng = random.Random(seed)

        def written(values, left, right):
            return left + ", ".join(rng.choice(spellings(v, rng)[:4]) for v in values) + right

        shuffled = rng.sample(members, len(members))
        first = written(members, "\\{", "\\}")
        assert equivalent(first, written(shuffled, "\\left\\{", "\\right\\}"))
        assert equivalent(first, written(shuffled, "", ""))
        assert equivalent(written(members, "(", ")"), written(members, "(", ")"))
        assert equivalent(written(members, "(", ")"), written(shuffled, "(", ")")) == (members == shuffled)
        changed = [*members[:-1], extra]
        if set(changed) != set(members):
            assert not equivalent(first, written(changed, "\\{", "\\}"))
            assert not equivalent(written(members, "(", ")"), written(changed, "(", ")"))
        assert not equivalent(first, written(members[:-1], "\\{", "\\}"))

    members = st.lists(RATIONALS, min_size=2, max_size=5, unique=True)
    run(size, st.tuples(members, RATIONALS, st.integers()), check)


X, Y = sympy.symbols("x y")
COEFFICIENTS = st.lists(st.integers(-9, 9), min_size=6, max_size=6)
MONOMIALS = (sympy.Integer(1), X, Y, X * Y, X**2, X**3 * Y)


def polynomial(coefficients: list[int]) -> sympy.Expr:
    return sympy.Add(*(c * m for c, m in zip(coefficients, MONOMIALS)))


def rewritings(p: sympy.Expr, k: int) -> list[str]:
    """Text and LaTeX of the same polynomial in several forms."""
    forms = [p, sympy.factor(p), sympy.horner(p, wrt=X), sympy.expand((p + k * X) * (X + 1)) / (X + 1) - k * X]
    return [write(form) for form in forms for write in (str, sympy.latex)]


@pytest.mark.parametrize("size", SYMPY_SIZES)
def test_polynomials(size):
    def check(drawn):
        first, second, k, seed = drawn
        rng = random.Random(seed)
        p, q = polynomial(first), polynomial(second)
        texts = rewritings(p, k)
        x, y, z = rng.choice(texts), rng.choice(texts), rng.choice(rewritings(q, k))
        assert equivalent(x, y) and equivalent(y, x)
        assert equivalent(x, z) == equivalent(z, x) == (sympy.expand(p - q) == 0)
        nudged = list(first)
        nudged[rng.randrange(6)] += 1
        assert not equivalent(x, rng.choice(rewritings(polynomial(nudged), k)))

    run(size, st.tuples(COEFFICIENTS, COEFFICIENTS, st.integers(1, 9), st.integers()), check)


@pytest.mark.parametrize("size", SYMPY_SIZES)
def test_surds(size):
    def check(drawn):
        a, b, n, c = drawn
        value = a + b * sympy.sqrt(n)
        inverse = f"\\frac{{1}}{{{sympy.latex(value)}}}"
        rationalised = sympy.latex(sympy.radsimp(1 / value))
        assert equivalent(inverse, rationalised)
        squared = f"\\sqrt{{{sympy.latex(sympy.expand(value**2))}}}"
        assert equivalent(squared, sympy.latex(abs(value)))
        assert not equivalent(sympy.latex(value), sympy.latex(value + sympy.Rational(1, 10**25 + c)))

    small = st.integers(-20, 20)
    run(size, st.tuples(small, st.integers(1, 20), st.sampled_from([2, 3, 5, 7, 11]), st.integers(0, 99)), check)


@pytest.mark.parametrize("size", SYMPY_SIZES)
def test_formulas_of_pieces(size):
    def check(drawn):
        p, q, scale = drawn
        low, high = sorted((p * scale, q * scale)) if p != q else (p * scale, p * scale + 1)
        a, b = f"({low})", f"({high})"
        left, right = f"|x-{a}|", f"|x-{b}|"
        assert equivalent(left, f"|{a}-x|") and equivalent(left, f"\\sqrt{{(x-{a})^2}}")
        assert equivalent(f"\\max(x,{a})", f"\\frac{{x+{a}+{left}}}{{2}}")
        assert equivalent(f"{left}+{right}", f"\\max({b}-{a},|2x-{a}-{b}|)")
        for piece in (f"x-{a}", f"{a}-x"):
            assert not equivalent(left, piece) and not equivalent(piece, f"\\sqrt{{(x-{a})^2}}")
            assert not equivalent(f"y={left}", f"y={piece}")
        assert not equivalent(f"{left}+{right}", f"{b}-{a}")
        assert not equivalent(f"\\max(x,{a})", a) and not equivalent(f"\\min(x,{b})", "x")
        assert not equivalent(left, right)

    values = st.fractions(min_value=-9, max_value=9, max_denominator=12)
    run(size, st.tuples(values, values, st.sampled_from([1, 10, 100])), check)
