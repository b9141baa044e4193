"""Numbers, names and what brackets and bars enclose."""

from synthrl_jax.grading.nodes import Node, Unreadable, number_node, repeating


def number(parser) -> Node:
    r"""A literal, with repeating digits (`0.\overline{3}`, `0.(3)`) or a base (`101_2`)."""
    text = parser.take("number").text
    if parser.peek().kind == "overline" or (parser.peek().kind == "bar" and "." in text):
        digits = parser.peek(2).text if parser.peek(1).kind == "{" and parser.peek(3).kind == "}" else ""
        if "." in text and digits.isdigit():
            parser.at += 4
            return repeating(text, digits)
    if text.endswith(".") and parser.peek().kind == "(" and parser.peek(2).kind == ")":  # "0.(3)"
        digits = parser.peek(1)
        if digits.kind == "number" and digits.text.isdigit():
            parser.at += 3
            return repeating(text, digits.text)
    if parser.peek().kind == "_":
        base = parser.peek(2) if parser.peek(1).kind == "{" else parser.peek(1)
        length = 4 if parser.peek(1).kind == "{" else 2
        if base.kind in ("number", "text", "word") and (length == 2 or parser.peek(3).kind == "}"):
            parser.at += length
            return ("based", text, base.text.lower().strip())
    return number_node(text)


def name(parser) -> Node:
    """A letter with its primes and its index; e and i are constants."""
    text = parser.take("name").text
    primes = 0
    while parser.skip("'"):
        primes += 1
    node: Node = (
        ("constant", text) if text in ("e", "i") and parser.peek().kind != "_" else ("name", text + "'" * primes)
    )
    if text == "I":
        node = ("constant", "i")
    after = parser.peek()
    if after.kind == "number" and not after.gap and len(after.text) == 1 and parser.peek(-2).kind != "number":
        parser.take()  # "C1" is C_1
        return ("sub", text, number_node(after.text))
    if parser.peek().kind == "_":
        parser.take()
        if parser.peek().kind == "name":
            index = ("name", parser.take().text)
        else:
            index = parser.braced() if parser.peek().kind == "{" else parser.argument()
        while parser.skip("'"):
            primes += 1
        node = ("sub", text + "'" * primes, index)
    return node


def bracketed(parser) -> Node:
    """Grouping, tuple, interval, list or set, by the brackets and the commas."""
    parser.deeper()
    opener = parser.take().kind
    bars, parser.bars = parser.bars, 0
    if parser.peek().kind in (")", "]", "\\}"):
        closer = parser.take().kind
        parser.bars = bars
        parser.depth -= 1
        return ("set", []) if closer == "\\}" else ("seq", opener, closer, [])
    parser.bars = int(opener == "\\{" and has_lone_bar(parser))
    node = parser.listed(";")
    if parser.bars:
        parser.bars = 0
        parser.take("|")
        condition = parser.listed(";")
        node = ("builder", node, condition)
    closer = parser.peek().kind
    if closer not in (")", "]", "\\}"):
        raise Unreadable("an open bracket")
    parser.take()
    parser.bars = bars
    parser.depth -= 1
    if node[0] == "builder":
        return node
    if opener == "\\{" and (condition := _colon(node)) is not None:
        return condition
    items = node[1] if node[0] == "list" else [node]
    if opener == "\\{":
        return ("set", items)
    if node[0] != "list" and (opener, closer) in (("(", ")"), ("[", "]")):
        return ("seq", opener, closer, [node]) if node[0] in ("seq", "rel") and opener == "[" else node
    return ("seq", opener, closer, items)


def _colon(node: Node) -> Node | None:
    """The set that `x : x > 0` or `x \\in S : x > 0` describes; the grammar has read the colon as a ratio."""
    if node[0] == "ratio" and len(node[1]) == 2:
        return ("builder", *node[1])
    if node[0] != "rel":
        return None
    _, sides, ops = node
    at = next((i for i, side in enumerate(sides) if side[0] == "ratio" and len(side[1]) == 2), None)
    if at is None or at > 1 or (at == 1 and ops[0] != "in"):
        return None
    before, after = sides[at][1]
    about = before if at == 0 else ("rel", [sides[0], before], ["in"])
    return ("builder", about, ("rel", [after, *sides[at + 1 :]], ops[at:]) if ops[at:] else after)


def has_lone_bar(parser) -> bool:
    """Whether an odd number of bars stands before the end of this brace: `x | x > 0`."""
    depth = bars = 0
    for token in parser.tokens[parser.at :]:
        if token.kind == "\\{":
            depth += 1
        elif token.kind == "\\}":
            depth -= 1
            if depth < 0:
                return bars % 2 == 1
        elif token.kind == "|" and depth == 0:
            bars += 1
    return False


def bars_around(parser) -> Node:
    """An absolute value, or the determinant of a matrix."""
    parser.deeper()
    parser.take("|")
    parser.bars += 1
    node = parser.sum()
    parser.take("|")
    parser.bars -= 1
    parser.depth -= 1
    return ("call", "det" if node[0] == "matrix" else "abs", [node])
