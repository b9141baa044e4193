r"""Cut a tidied answer into tokens: numbers, names, commands, words, signs. Plain maths and LaTeX alike."""

import re
from typing import NamedTuple

from synthrl_jax.grading import limits, words

# command or name -> the function that it means
FUNCTIONS = {
    **{
        name: name for name in "sin cos tan cot sec csc sinh cosh tanh coth exp ln log min max gcd lcm det sqrt".split()
    },
    **{f"arc{name}": f"a{name}" for name in "sin cos tan cot sec csc sinh cosh tanh".split()},
    **{f"ar{name}": f"a{name}" for name in "sinh cosh tanh".split()},
    **{f"a{name}": f"a{name}" for name in "sin cos tan cot sec csc sinh cosh tanh".split()},
    "lg": "lg",
    "floor": "floor",
    "ceil": "ceil",
    "ceiling": "ceil",
    "abs": "abs",
    "Abs": "abs",
    "Min": "min",
    "Max": "max",
    "Mod": "mod",
    "factorial": "factorial",
    "binomial": "binomial",
    "cbrt": "cbrt",
    "adjugate": "adj",
    "adj": "adj",
    "tr": "trace",
    "trace": "trace",
    "Re": "re",
    "Im": "im",
    "re": "re",
    "im": "im",
    "conjugate": "conj",
    "tg": "tan",
    "ctg": "cot",
    "arctg": "atan",
    "Matrix": "Matrix",
    "erf": "erf",
}
CONSTANTS = {
    "pi": "pi",
    "infty": "inf",
    "infinity": "inf",
    "oo": "inf",
    "inf": "inf",
    "imaginaryunit": "i",
    "imath": "i",
}
CONSTANTS |= {"exponentialE": "e", "infin": "inf", "Infinity": "inf"}
GREEK = frozenset(
    """alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi omicron rho varrho sigma
    varsigma tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega ell hbar
    nabla partial aleph""".split()
)
RELATIONS = {
    **{"=": "=", "==": "=", "<": "<", ">": ">", "<=": "<=", ">=": ">=", "!=": "!=", "=<": "<=", "=>": ">="},
    **dict.fromkeys(("le", "leq", "leqslant", "leqq"), "<="),
    **dict.fromkeys(("ge", "geq", "geqslant", "geqq"), ">="),
    **dict.fromkeys(("ne", "neq"), "!="),
    **{"lt": "<", "gt": ">", "eq": "=", "equiv": "equiv", "in": "in", "notin": "notin", "subset": "subset"},
    **{"approx": "~", "simeq": "~", "sim": "~", "cong": "~", "to": "to", "rightarrow": "to", "mapsto": "to"},
    **{"subseteq": "subset", "perp": "perp", "parallel": "parallel", "doteq": "=", "coloneqq": "=", "propto": "propto"},
    **dict.fromkeys(("implies", "Rightarrow", "Longrightarrow", "iff", "Leftrightarrow"), "implies"),
}
OPERATORS = {
    **dict.fromkeys(("cdot", "times", "ast", "star"), "*"),
    **dict.fromkeys(("div", "slash"), "/"),
    **dict.fromkeys(("lbrace", "{"), "\\{"),
    **dict.fromkeys(("rbrace", "}"), "\\}"),
    **dict.fromkeys(("vert", "lvert", "rvert", "Vert", "lVert", "rVert", "|", "mid"), "|"),
    **{"colon": ":", "lbrack": "[", "rbrack": "]", "lparen": "(", "rparen": ")", "langle": "(", "rangle": ")"},
    **{"land": "and", "wedge": "and", "lor": "or", "vee": "or", "union": "cup", "backslash": "setminus"},
    **{"prime": "'", "sp": "^", "sb": "_", "_": "_", "%": "%", "#": "#", "&": ","},
}
KEYWORDS = frozenset(
    """frac sqrt binom dbinom tbinom choose over begin end cup cap setminus pm mp bmod pmod mod lfloor rfloor lceil rceil
    overline bar hat vec tilde dot ddot widehat overrightarrow underline mathbb mathcal mathfrak mathscr emptyset varnothing
    sum prod int iint iiint oint lim limsup liminf circ degree angle triangle square operatorname ldots dots cdots forall
    exists boxed fbox variable differentialD stackrel overset underset max cancel top dagger""".split()
)
ALIASES = {
    **dict.fromkeys(("dfrac", "tfrac", "cfrac", "sfrac", "nicefrac"), "frac"),
    **dict.fromkeys(("dbinom", "tbinom"), "binom"),
    **dict.fromkeys(("dots", "cdots", "vdots"), "ldots"),
    **dict.fromkeys(("degree", "degrees"), "circ"),
    **{"varnothing": "emptyset", "mod": "bmod", "bigcup": "cup", "bigcap": "cap", "fbox": "boxed", "sup": "max"},
    **{"measuredangle": "angle"},
}
TEXTUAL = frozenset(
    "text textbf textrm textit texttt textsf textnormal mathrm mathbf mathit mathsf mbox hbox bf rm".split()
)
_ALL_COMMANDS = sorted(
    {*FUNCTIONS, *CONSTANTS, *GREEK, *RELATIONS, *OPERATORS, *KEYWORDS, *ALIASES}
    - {"in", "to", "re", "im", "ne", "le", "ge"},
    key=len,
    reverse=True,
)
_PLAIN_NAMES = frozenset(name for name in {*FUNCTIONS, "pi", "infinity", "oo", "inf"} if len(name) > 1)
_PREFIXES = tuple(
    sorted((n for n in _PLAIN_NAMES if len(n) > 2 and n not in ("det", "inf", "arg")), key=len, reverse=True)
)
_NUMBER = re.compile(r"(?:([0-9]+)(?:\.([0-9]*))?|\.([0-9]+))(?:[eE]([-+]?[0-9]+)(?![0-9a-zA-Z.]))?")
_THOUSANDS = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])")
_LETTERS = re.compile(r"[A-Za-z]+")
_COMMAND = re.compile(r"\\([a-zA-Z]+|.)", re.DOTALL)
_SIGNS = re.compile(r"\*\*|==|<=|>=|!=|=<|=>|&&|\|\||.", re.DOTALL)


_ENDED = re.compile(r"\s*(?:[.,;/]|\Z)")
_LABELS = re.compile(r"\s*\(?[a-zA-Z]\)?(?:\s*(?:,|;|,?\s*\b(?:and|or)\b)\s*\(?[a-zA-Z]\)?)+\s*")
_FORMULA = re.compile(r"\s*[a-zA-Z](?:\s*[-+=]\s*[a-zA-Z])+\s*")


class Token(NamedTuple):
    """`kind` is number, name, word, text, function, constant, relation or the sign or command itself."""

    kind: str
    text: str
    gap: bool = False  # whether white space came before it


def tokens(text: str) -> list[Token]:
    """Tokens of a tidied text; ValueError for a character that no answer holds."""
    found: list[Token] = []
    at, depth, gap = 0, 0, False
    while at < len(text):
        c = text[at]
        if c in " \n\t\r":
            at += 1
            gap = True
            continue
        if "0" <= c <= "9" or (c == "." and "0" <= text[at + 1 : at + 2] <= "9"):
            at = _number(text, at, depth, gap, found)
        elif c.isascii() and c.isalpha():
            run = _LETTERS.match(text, at).group()
            at += len(run)
            is_union = run == "U" and gap and found and found[-1].kind in (")", "]", "\\}", "}")
            if run in ("min", "sec") and found and found[-1].kind == "number" and _ENDED.match(text, at):
                found.append(Token("word", run, gap))  # "45 min": no function
            else:
                found.extend(split("cup" if is_union else run, gap))
        elif c == "\\":
            at = _command(text, at, gap, found)
        else:
            sign = _SIGNS.match(text, at).group()
            at += len(sign)
            if sign == "||":
                found += [Token("|", "|", gap), Token("|", "|", False)]
            elif sign in RELATIONS:
                found.append(Token("relation", RELATIONS[sign], gap))
            elif sign == "**":
                found.append(Token("^", "^", gap))
            elif sign == "&&":
                found.append(Token("and", "and", gap))
            elif sign in "+-*/^_!()[]{}|,;:'&%\"":
                found.append(Token(sign, sign, gap))
            elif sign == "@" or not sign.isprintable() or not sign.isalpha():
                raise ValueError(f"a character that no answer holds: {sign!r}")
            else:
                found.append(Token("name", sign, gap))
        gap = False
        last = found[-1].kind if found else ""
        if last in ("(", "[", "\\{"):
            depth += 1
        elif last in (")", "]", "\\}"):
            depth = max(0, depth - 1)
        if len(found) > limits.NODES:
            raise limits.BeyondLimits("too many tokens")
    return found


def _number(text: str, at: int, depth: int, gap: bool, found: list[Token]) -> int:
    grouped = _THOUSANDS.match(text, at)
    # inside brackets a comma separates, unless "000" can be no number of its own
    if grouped and (depth == 0 or ",0" in grouped.group()):
        rest = _NUMBER.match(text, grouped.end() - 3)
        found.append(Token("number", grouped.group()[:-3].replace(",", "") + rest.group(), gap))
        return rest.end()
    match = _NUMBER.match(text, at)
    found.append(Token("number", match.group(), gap))
    return match.end()


def _command(text: str, at: int, gap: bool, found: list[Token]) -> int:
    match = _COMMAND.match(text, at)
    if match is None:
        raise ValueError("a lone backslash")
    name, end = match.group(1), match.end()
    after_value = bool(found) and (found[-1].kind in ("number", "}", ")") or found[-1].text == "pi")
    if after_value and ALIASES.get(name, name) == "frac" and (per := _UNIT_FRACTION.match(text, end)):
        found.append(Token("text", "unit", True))
        return per.end()
    if name == "\\":
        found.append(Token("\\\\", "\\\\", gap))
        return end
    if name in TEXTUAL or name == "operatorname":
        content, end = _argument(text, end)
        if after_value and name in _UPRIGHT and _COMPOUND.fullmatch(content):
            found.append(Token("text", "unit", True))
            end = _MORE_UNITS.match(text, end).end()
        else:
            _textual(name, content.strip(), gap, found)
        return end
    if name == "char":
        raise ValueError("\\char")
    for known in (name, *(prefix for prefix in _ALL_COMMANDS if len(prefix) > 1 and name.startswith(prefix))):
        kind = _known(known)
        if kind is not None:
            found.append(kind._replace(gap=gap))
            if len(known) < len(name):  # "\cotx", "\pir": the letters after a command that ran into them
                found.extend(split(name[len(known) :], False))
            return end
    if len(name) > 1:
        found.append(Token("word", name, gap))
    elif name.isspace():
        pass
    else:
        raise ValueError(f"an unknown command \\{name}")
    return end


def _known(name: str) -> Token | None:
    name = ALIASES.get(name, name)
    if name in CONSTANTS:
        return Token("constant", CONSTANTS[name])
    if name in FUNCTIONS and name != "sqrt":
        return Token("function", FUNCTIONS[name])
    if name in GREEK:
        return Token("name", name)
    if name in RELATIONS:
        return Token("relation", RELATIONS[name])
    if name in OPERATORS:
        return Token(OPERATORS[name], OPERATORS[name])
    if name in KEYWORDS:
        return Token(name, name)
    return None


def _argument(text: str, at: int) -> tuple[str, int]:
    """Content of the group at `at` (or the one character there) and where it ends."""
    while at < len(text) and text[at] == " ":
        at += 1
    if at >= len(text) or text[at] != "{":
        return text[at : at + 1], min(at + 1, len(text))
    depth, start = 0, at
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif text[at] == "{":
            depth += 1
        elif text[at] == "}":
            depth -= 1
            if depth == 0:
                return text[start + 1 : at], at + 1
        at += 1
    raise ValueError("an open group")


_UNIT = (
    "(?:"
    + "|".join(sorted({*words.UNITS, *words.LONE_UNITS, *words.UPRIGHT_UNITS} - {"am", "pm"}, key=len, reverse=True))
    + ")"
)
_POWER = r"(?:\^\{?-?[0-9]\}?)?"
_COMPOUND = re.compile(rf"[\s~(]*{_UNIT}{_POWER}(?:(?:\s*(?:/|\*|·|\\cdot(?![a-z])|~)\s*|\s+){_UNIT}{_POWER})*[\s~.)]*")


_UPRIGHT = frozenset("text textrm mathrm mbox".split())
_UPRIGHT_UNIT = rf"\\(?:text|textrm|mathrm|mbox)\s*\{{[\s~]*{_UNIT}{_POWER}[\s~]*\}}{_POWER}"
# "m}^3/\text{s}" after "5\text{", and "\frac{\text{m}}{\text{s}}"
_MORE_UNITS = re.compile(rf"(?:{_POWER}\s*+(?:/|\\cdot|~|\\,)?\s*{_UPRIGHT_UNIT})*")
_UNIT_FRACTION = re.compile(rf"\s*\{{\s*{_UPRIGHT_UNIT}\s*\}}\s*\{{\s*{_UPRIGHT_UNIT}\s*\}}")


def _textual(command: str, content: str, gap: bool, found: list[Token]) -> None:
    bare = content.strip(" .,;:()")
    if command == "operatorname" and (known := _known(bare)):
        found.append(known._replace(gap=gap))
    elif not content.strip(" ~"):
        pass
    elif len(bare) == 1 and bare.isalpha():
        found.append(Token("constant", bare, gap) if bare == "i" else Token("name", bare, gap))
    elif bare in FUNCTIONS and command != "text":
        found.append(Token("function", FUNCTIONS[bare], gap))
    elif (
        any("0" <= c <= "9" for c in content)
        or "\\" in content
        or _FORMULA.fullmatch(content)
        or _LABELS.fullmatch(content)
    ):
        found.extend(tokens(content))
    elif bare.lower() == "infinity":
        found.append(Token("constant", "inf", gap))
    elif (lowered := bare.lower()) in ("and", "or"):
        found.append(Token(lowered, lowered, gap))
    elif not bare:
        found.extend(Token(c, c, gap) for c in content if c in ",;()")
    elif (joint := lowered.split()) and joint[0] in ("and", "or") and len(joint) > 1:
        found += [Token(joint[0], joint[0], gap), Token("text", content.split(None, 1)[1], True)]
    elif lowered in words.SIGNS:
        found.append(Token("-", "-", gap))
    else:
        found.append(Token("text", content, gap))


def split(run: str, gap: bool) -> list[Token]:
    """What a run of plain letters is: a function, a constant, a word, or a product of one-letter names."""
    lowered = run.lower()
    if len(run) == 1:
        return [Token("name", run, gap)]
    if run == "sqrt":
        return [Token("sqrt", "sqrt", gap)]
    if run in _PLAIN_NAMES:
        return [Token("constant", CONSTANTS[run], gap) if run in CONSTANTS else Token("function", FUNCTIONS[run], gap)]
    if run in GREEK:
        return [Token("name", run, gap)]
    if lowered in ("and", "or"):
        return [Token(lowered, lowered, gap)]
    if lowered in words.SIGNS:
        return [Token("-", "-", gap)]
    if run == "equals":
        return [Token("relation", "=", gap)]
    if run in ("U", "cup", "union"):
        return [Token("cup", "cup", gap)]
    if run == "mod":
        return [Token("bmod", "bmod", gap)]
    if run in ("in", "to"):
        return [Token("word", run, gap)]
    if run in words.UNITS or lowered in words.MULTIPLES or lowered in words.NUMERALS:
        return [Token("word", run, gap)]
    for known in _PREFIXES:  # "sinx", "lnx", "pix", "xsin"
        for before, after in ((run[: -len(known)], known), (known, run[len(known) :])):
            if before + after == run and len(run) - len(known) <= 2 and known in (before, after):
                return split(before, gap) + split(after, False)
    if run.startswith(("pi", "ln")) and len(run) == 3:
        return split(run[:2], gap) + split(run[2:], False)
    if len(run) > 2 and run.isupper():  # an order of letters, points of a figure: no product
        return [Token("name", run, gap)]
    if _is_product(run):
        return [Token("name", c, gap and i == 0) for i, c in enumerate(run)]
    return [Token("word", run, gap)]


def _is_product(run: str) -> bool:
    if len(run) == 2:
        return run.lower() not in words.SHORT
    return len(run) == 3 and not set(run.lower()) & set("eou") and run not in words.TURNING and not _is_common(run)


def _is_common(run: str) -> bool:
    return run.lower() in _COMMON


_COMMON = frozenset(
    """all any and as ask bad bag bar bat big bin bit bag can cap car cat did dry fan far fat fit fly gap gas had has hat him
    his hit its jar kid lap law map mat man mix nil pad pan par pay ran sad sat say six sin sky tax tin try was way why win
    day may ago aim air bill inf nan""".split()
)
