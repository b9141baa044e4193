"""Kinds of text that mean harm, by name; and a grader for workers that reports what the text made the process do."""

import os
import sys
import threading

CANARY = "grading_canary"
_CALLS = [
    "__import__('os').system('touch {canary}')",
    "eval(\"open('{canary}','w')\")",
    "exec(\"open('{canary}','w')\")",
    "open('{canary}','w').write('x')",
    "().__class__.__bases__[0].__subclasses__()",
    "(lambda: open('{canary}','w'))()",
    "[x for x in (1).__class__.__base__.__subclasses__()]",
    "compile('1','','eval')",
    "globals()['__builtins__']",
    "getattr(__builtins__,'open')('{canary}','w')",
    "import os; os.system('touch {canary}')",
    "1; import subprocess; subprocess.run(['touch','{canary}'])",
    "print(open('/etc/passwd').read())",
    'sympify(\'__import__("os").system("touch {canary}")\')',
    "parse_expr('1+1')",
    'S(\'open("{canary}","w")\')',
    "Integer('1').__class__",
    "lambdify(x, 'x')",
    'f\'{open("{canary}","w")}\'',
    "@pytest.mark.skip",
    "`touch {canary}`",
    "$(touch {canary})",
    "Matrix[]",
    "sin()",
    "; touch {canary} ;",
    "| touch {canary}",
    "socket.create_connection(('127.0.0.1',9))",
    "pickle.loads(b'cos\\nsystem\\n')",
    "__loader__.load_module('os')",
    "breakpoint()",
    "input()",
    "exit()",
    "os._exit(0)",
    "while True: pass",
]
_WRAPPERS = {
    "plain": "{}",
    "text": "\\text{{{}}}",
    "operator": "\\operatorname{{{}}}",
    "fraction": "\\frac{{{}}}{{2}}",
    "index": "x_{{{}}}",
}
_TEX = [
    "\\input{/etc/passwd}",
    "\\write18{touch canary}",
    "\\immediate\\write18{id}",
    "\\openin5=/etc/passwd",
    "\\catcode`\\{=13",
    "\\def\\x{\\x\\x}\\x",
    "\\loop\\iftrue\\repeat",
    "\\csname input\\endcsname",
    "\\newcommand{\\frac}{\\x}",
    "\\usepackage{shellesc}",
    "\\directlua{os.execute('id')}",
    '\\char"000190',
    "\\verb|x|",
    "\\expandafter\\x",
]
_LARGE = {
    "sum of pieces": "+".join(f"|x-{i}|" for i in range(300)),
    "maximum of pieces": "\\max(" + ",".join(f"x-{i}" for i in range(300)) + ")",
    "pieces of many names": "+".join(f"|{c}-{i}|" for i, c in enumerate("abcdfghjklmnopqrstuvwxyz" * 3)),
    "pieces of a tower": "|2^{2^{2^x}}|",
    "digits before the point": "e^{10^8}+\\pi",
    "ends far out": "|x-10^{5000}|+|x-1e-9999|",
    "outward brackets": "]1," * 1_300,
    "units after units": "5" + "\\text{m}" * 400 + " " * 300,
    "number words": "two hundred and " * 240,
    "signs in words": "minus " * 600 + "five",
    "repeating digits": "0.(" + "3" * 3_000 + ")",
    "groups of digits": "1" + "\\;234" * 600,
    "end tokens": "5" + "</s>" * 3_000,
    "tower": "9**9**9**9",
    "tower of braces": "9^{9^{9^{9}}}",
    "long tower": "2" + "^2" * 1_500,
    "factorial of a tower": "10^{10^{10}}!",
    "factorial of a power": "factorial(10**6)",
    "factorials": "3" + "!" * 200,
    "nested factorials": "(((9!)!)!)!",
    "large factorial": "99999999!",
    "binomial": "\\binom{10^{9}}{10^{8}}",
    "binomial of factorials": "\\binom{99!}{49!}",
    "literal exponent": "1e999999999",
    "small literal exponent": "1e-999999999",
    "literal of many digits": "7" * 3_900,
    "many decimals": "0." + "3" * 3_900,
    "digits to digits": "9" * 900 + "^{" + "9" * 900 + "}",
    "symbolic power": "(x+1)^{10^{9}}",
    "power of a sum": "(a+b+c+d)^{99999}",
    "repeated squares": "(" * 20 + "x+1" + ")^2" * 20,
    "exponentials": "e^{e^{e^{e^{e}}}}",
    "sine of a tower": "\\sin(10^{10^{10}})",
    "tangent of a tower": "\\tan(9^{9^{9}})",
    "hyperbolic": "\\cosh(10^{12})",
    "logarithm of a tower": "\\ln(10^{10^{10^{10}}})",
    "root of large index": "\\sqrt[10^{9}]{2}",
    "root of index 0": "\\sqrt[0]{2}",
    "floor of a tower": "\\lfloor 10^{10^{10}} \\pi \\rfloor",
    "modulus of a tower": "9^{9^{9^{9}}} \\mod 7",
    "greatest divisor": "\\gcd(" + ",".join(["10^{900}"] * 200) + ")",
    "maximum": "\\max(" + ",".join(["\\pi"] * 800) + ")",
    "sum of many terms": "\\sum_{k=1}^{10^{12}} \\frac{1}{k}",
    "sums in sums": "\\sum_{i=1}^{2000}\\sum_{j=1}^{2000}\\sum_{k=1}^{2000} ijk",
    "product of factorials": "\\prod_{k=1}^{2000} k!",
    "product of powers": "\\prod_{k=1}^{1000} k^{k^{k}}",
    "infinite sum": "\\sum_{k=1}^{\\infty} \\frac{1}{k^2}",
    "integral": "\\int_0^{10^{10}} e^{e^{x}} dx",
    "limits": "\\lim_{x\\to0}" * 100 + "x",
    "wide matrix": "\\begin{pmatrix}" + "&".join("1" * 1_500) + "\\end{pmatrix}",
    "tall matrix": "\\begin{pmatrix}" + "\\\\".join("1" * 1_000) + "\\end{pmatrix}",
    "power of a matrix": "\\begin{pmatrix}"
    + "\\\\".join(["&".join(["\\sqrt2"] * 12)] * 12)
    + "\\end{pmatrix}^{10^{6}}",
    "determinant": "\\det\\begin{pmatrix}"
    + "\\\\".join("&".join(f"x+{i * j}" for i in range(14)) for j in range(14))
    + "\\end{pmatrix}",
    "inverse": "\\begin{pmatrix}" + "\\\\".join(["&".join(["\\pi"] * 15)] * 15) + "\\end{pmatrix}^{-1}",
    "matrices in matrices": "\\begin{pmatrix}" * 30 + "1" + "\\end{pmatrix}" * 30,
    "uneven matrix": "\\begin{pmatrix}1&2\\\\3\\end{pmatrix}",
    "open matrix": "\\begin{pmatrix}1&2",
    "long list": ",".join(str(i) for i in range(900)),
    "list of roots": ",".join(f"\\sqrt{{{i}}}" for i in range(350)),
    "plus-minus list": ",".join(["\\pm\\sqrt2"] * 300),
    "many signs": "\\pm" * 1_000 + "1",
    "large set": "\\{" + ",".join(f"\\pi+{i}" for i in range(300)) + "\\}",
    "union": "\\cup".join(f"({i},{i + 1})" for i in range(300)),
    "differences": "\\setminus".join(["\\mathbb{R}"] * 300),
    "chain": "=".join("abcdefgh" * 100),
    "inequalities": "<".join(str(i) for i in range(900)),
    "ratios": ":".join(["1"] * 1_500),
    "sum of names": "+".join(["x"] * 1_900),
    "product of names": "xyz" * 1_200,
    "continued fraction": "1+\\frac{1}{" * 38 + "1" + "}" * 38,
    "mixed fractions": "2\\frac{3}{" * 38 + "7" + "}" * 38,
    "conditional": "a|_{a=b}" * 200,
    "ands": " and ".join(["x"] * 700),
    "words": "word " * 700,
    "spaces": "1" + " " * 3_000 + "2",
    "zero over zero": "0/0",
    "over zero": "\\frac{1}{0}" * 50,
    "zero to zero": "0^0",
    "zero to minus one": "0^{-1}",
    "infinities": "\\infty-\\infty",
    "infinite power": "\\infty^{\\infty}",
    "sine of infinity": "\\sin\\infty",
    "modulus zero": "5 \\mod 0",
    "logarithm of zero": "\\ln 0",
    "logarithm base one": "\\log_1 5",
    "inverse of a singular matrix": "\\begin{pmatrix}1&1\\\\1&1\\end{pmatrix}^{-1}",
}
_NESTED = {"(": ")", "[": "]", "{": "}", "\\{": "\\}", "\\sqrt{": "}", "\\frac{1}{": "}", "|": "|", "\\text{": "}"}
_NESTED |= {
    "x_{": "}",
    "x^{": "}",
    "\\boxed{": "}",
    "\\left(": "\\right)",
    "\\lfloor ": "\\rfloor ",
    "-": "",
    "\\sin(": ")",
}
_SIGNS = {
    "null": "4\x002",
    "nulls": "\x00" * 1_000,
    "escape": "\x1b[2J42",
    "bell": "4\x072",
    "backspaces": "43\x08\x082",
    "lone surrogate": "4\ud8002",
    "byte order mark": "\ufeff41",
    "right to left": "\u202e24",
    "joiners": "4\u200d3",
    "Cyrillic x": "\u0445+1",
    "Greek question mark": "42\u037e1",
    "Arabic digits": "\u0664\u0663",
    "full-width digits": "\uff14\uff13",
    "mathematical digits": "\U0001d7d9" * 1_000,
    "circled digits": "\u2463\u2462",
    "superscripts": "\u2079" * 1_000,
    "growing ligature": "\ufdfa" * 3_000,
    "combining": "4" + "\u0301" * 2_000 + "3",
    "emoji": "\U0001f600" * 1_000,
    "roman numeral": "\u2163\u2162",
    "division slash": "42\u22150",
    "private use": "\ue000" * 500,
    "line separators": "4\u20282\u2029",
    "not a character": "\uffff",
    "quotes": "\"'`\"'`" * 300,
    "backslashes": "\\" * 3_999,
    "lone backslash": "\\",
    "dollars": "$" * 3_999,
    "percents": "%" * 3_999,
    "hashes": "#" * 3_999,
    "carets": "^" * 2_000,
    "underscores": "_" * 2_000,
    "ampersands": "&" * 2_000,
    "primes": "x" + "'" * 3_000,
    "bars": "|" * 3_000,
    "commas": "," * 3_000,
    "points": "." * 3_000,
    "equals": "=" * 3_000,
    "minuses": "-" * 3_000 + "1",
    "html": "<script>alert(1)</script>",
    "json": '{"answer": [[[[1]]]]}',
    "sql": "1'; DROP TABLE answers; --",
    "format": "{0.__class__}%s%n%n",
    "huge line": "a" * 200_000,
    "huge digits": "1" * 200_000,
    "huge spaces": " " * 200_000 + "x",
    "answers": "the answer is " * 5_000,
    "boxes": "\\boxed{" * 5_000,
    "closed boxes": "\\boxed{" * 2_000 + "}" * 2_000,
    "tags": "<answer>" * 3_000,
    "thoughts": "<think>" * 3_000 + "</think>",
    "open formula": "$" + "x" * 5_000,
    "open displays": "\\[" * 3_000,
}


def kinds(canary: str = CANARY) -> dict[str, str]:
    """Name -> hostile text, more than two hundred of them."""
    found = {}
    for number, call in enumerate(_CALLS):
        call = call.replace("{canary}", canary)
        for name, wrapper in _WRAPPERS.items():
            found[f"call {number} as {name}"] = wrapper.format(call)
    found |= {f"tex {number}": text for number, text in enumerate(_TEX)}
    found |= {f"large {name}": text for name, text in _LARGE.items()}
    for opener, closer in _NESTED.items():
        for depth in (30, 200, 900):
            found[f"{depth} nested {opener}"] = opener * depth + "2" + closer * depth
            found[f"{depth} open {opener}"] = opener * depth
        found[f"100 KB of {opener}"] = opener * (100_000 // len(opener))
    return found | _SIGNS


EVENTS: list[str] = []
_WATCHED = (
    "open",
    "exec",
    "compile",
    "import",
    "os.",
    "subprocess.",
    "socket.",
    "shutil.",
    "ctypes.",
    "pty.",
    "urllib.",
)
_watch = threading.local()


def _hook(event: str, args: tuple) -> None:
    if getattr(_watch, "on", False) and event.startswith(_WATCHED):
        EVENTS.append(f"{event} {args!r}"[:200])


def watched(function, *args):
    """function(*args), with every opening, execution and connection of this thread written into EVENTS."""
    if not getattr(_watch, "hooked", False):
        sys.addaudithook(_hook)
        _watch.hooked = True
    _watch.on = True
    try:
        return function(*args)
    finally:
        _watch.on = False


def warm_up() -> None:
    """Load what grading loads lazily, so that an import is an event of the text."""
    from synthrl_jax.grading import equivalent

    for a, b in [("\\sqrt{2}+x", "x+\\sqrt2"), ("\\sin 1", "\\binom{5}{2}"), ("[0,1)", "x<\\pi"), ("50!", "e^{2.5}")]:
        equivalent(a, b)


def compare(gold: str, prediction: str) -> tuple[str, str]:
    """The real grader, watched; a worker's grader."""
    from synthrl_jax.grading import verdict

    warm_up()
    EVENTS.clear()
    decided = watched(verdict.compare, gold, prediction)
    return ("correct", f"EVENTS {EVENTS}") if EVENTS else decided


def misbehave(gold: str, prediction: str) -> tuple[str, str]:
    """A worker's grader that does what the answer says, and otherwise grades."""
    import ctypes
    import time

    from synthrl_jax.grading import verdict

    if prediction == "hang":
        while True:
            pass
    if prediction == "sleep":
        time.sleep(60)
    if prediction == "crash":
        os.abort()
    if prediction == "segfault":
        ctypes.string_at(0)
    if prediction == "exit":
        os._exit(3)
    if prediction == "memory":
        hoard = []
        while True:
            hoard.append(bytearray(1 << 20))
    if prediction == "memory at once":
        bytearray(1 << 40)
    if prediction == "raise":
        raise RuntimeError("no")
    if prediction == "print":
        print("noise on standard output", flush=True)
        os.write(1, b"more noise")
    if prediction == "deaf":
        os.close(0)
        time.sleep(60)
    return verdict.compare(gold, prediction)
