"""What stands beside a value and is dropped: units, percent and degree signs; and words that multiply."""

from fractions import Fraction

from synthrl_jax.grading import words
from synthrl_jax.grading.nodes import CLOSERS, Node, Unreadable, times
from synthrl_jax.grading.tokens import Token


def sign(parser) -> None:
    """Drop a percent or degree sign, also as a power, and the letter of a temperature."""
    braced = parser.peek().kind == "^" and parser.peek(1).kind == "{"
    parser.degrees += any(parser.peek(ahead).kind == "circ" for ahead in range(3))
    parser.at += 4 if braced else 2 if parser.peek().kind == "^" else 1
    token = parser.peek()
    if token.kind == "name" and token.text in ("C", "F", "K") and parser.peek(1).kind in CLOSERS:
        parser.take()


def is_lone_unit(parser) -> bool:
    """Whether a letter that could be a unit follows a number: `5 m`, `5 m^2`."""
    token = parser.peek()
    before = parser.peek(-1)
    is_beside = before.kind == "number" or (before.kind == "word" and before.text in words.UNITS)
    if token.kind != "name" or token.text not in words.LONE_UNITS or not is_beside:
        return False
    after = parser.peek(1)
    if after.kind == "^":
        power = parser.peek(3) if parser.peek(2).kind == "{" else parser.peek(2)
        ahead = 5 if parser.peek(2).kind == "{" else 3
        return power.text in ("2", "3") and token.text == "m" and parser.peek(ahead).kind in CLOSERS
    per = (
        after.kind == "/"
        and parser.peek(2).text in ("s", "h", "hr", "sec", "min")
        and parser.peek(3).kind in ("^", "end")
    )
    return token.gap and (per or after.kind in CLOSERS | {",", "and", ";"})


def is_silent_power(parser, token: Token) -> bool:
    """Degrees and ordinals: `45^{\\circ}`, `5^{\\text{th}}`."""
    return token.kind in ("circ", "prime") or token.text.strip() in ("th", "st", "nd", "rd", "o")


def units(parser, node: Node) -> Node:
    """Drop what names a unit after a value; a word that multiplies does so."""
    if node[0] == "text":
        return worded(parser, node)
    while parser.peek().kind in ("word", "text") or is_lone_unit(parser):
        token = parser.take()
        for word in token.text.lower().replace("~", " ").split():
            word = word.strip(".,;:()-")
            if word in words.MULTIPLES:
                node = times(node, ("number", Fraction(words.MULTIPLES[word]), None, word))
            elif (under := words.parts(word)) and word != "quarters":  # of a year, or coins
                node = ("div", node, ("number", Fraction(under), None, word))
            elif word in words.TURNING or word in words.PARTS:
                raise Unreadable(f"a number followed by {word!r}")
        unit_power(parser)
    return node


def unit(parser) -> None:
    """Drop one word and its power."""
    parser.take()
    unit_power(parser)


def unit_power(parser) -> None:
    """Drop the power of a unit: `cm^2`, `s^{-1}`."""
    if parser.peek().kind == "^":
        parser.take()
        if parser.skip("{"):
            parser.skip("-")
            parser.take("number")
            parser.take("}")
        elif parser.peek().kind == "circ":
            parser.take()
        else:
            parser.skip("-")
            parser.take("number")


def worded(parser, node: Node) -> Node:
    """Several words are one text; words before a number stand aside."""
    said = [node[1]]
    while parser.peek().kind in ("word", "text"):
        said.append(parser.take().text)
    return ("text", " ".join(said))
