r"""Recursive-descent grammar of answers, LaTeX and plain, into tuples `(op, ...)`; nothing is evaluated here."""

from synthrl_jax.grading import atoms, limits, units, words
from synthrl_jax.grading.commands import COMMANDS, function
from synthrl_jax.grading.nodes import (
    ENDS_FACTOR,
    STOPS,
    Node,
    Unreadable,
    added,
    is_proper,
    number_node,
    times,
)
from synthrl_jax.grading.tokens import Token, tokens

END = Token("end", "")


def parse(text: str) -> Node:
    """The node of a tidied answer; Unreadable or BeyondLimits."""
    try:
        found = tokens(text)
    except RecursionError:
        raise limits.BeyondLimits("nested text") from None
    except limits.BeyondLimits:
        raise
    except ValueError as error:
        raise Unreadable(str(error)) from None
    depth = deepest = 0
    for token in found:
        if token.kind in ("(", "[", "{", "\\{", "begin"):
            depth += 1
            deepest = max(deepest, depth)
        elif token.kind in (")", "]", "}", "\\}", "end"):
            depth -= 1
    if deepest > limits.DEPTH:
        raise limits.BeyondLimits("nested too deeply")
    parser = _Parser(found)
    node = parser.answer()
    if parser.peek().kind != "end" or parser.at < len(found):
        raise Unreadable(f"cannot read from {parser.peek().text!r}")
    return node


class _Parser:
    def __init__(self, found: list[Token]):
        self.tokens = found
        self.at = 0
        self.depth = 0
        self.bars = 0
        self.degrees = 0  # degree signs read so far

    def peek(self, ahead: int = 0) -> Token:
        at = self.at + ahead
        return self.tokens[at] if 0 <= at < len(self.tokens) else END

    def take(self, kind: str | None = None) -> Token:
        token = self.peek()
        if self.at >= len(self.tokens) or (kind is not None and token.kind != kind):
            raise Unreadable(f"wanted {kind}, found {token.text!r}")
        self.at += 1
        return token

    def skip(self, kind: str) -> bool:
        if self.peek().kind == kind and self.at < len(self.tokens):
            self.at += 1
            return True
        return False

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > 3 * limits.DEPTH:
            raise limits.BeyondLimits("nested too deeply")

    # -- lists and relations ---------------------------------------------------------------------------------------------

    def answer(self) -> Node:
        return self.listed(";")

    def listed(self, separator: str) -> Node:
        """Items between semicolons, and inside those between commas, `and`, `or`."""
        marks = (";",) if separator == ";" else (",", "and", "or")
        items, joint = [], ""
        while True:
            while self.peek().kind in marks:
                self.at += 1
            if self.peek().kind in STOPS:
                break
            items.append(self.listed(",") if separator == ";" else self.item())
            if self.peek().kind not in marks:
                break
            joint = self.peek().kind if self.peek().kind != "," or not joint else joint
            if len(items) > limits.ITEMS:
                raise limits.BeyondLimits("too many items")
        if not items:
            raise Unreadable("nothing there")
        return items[0] if len(items) == 1 else ("list", items, joint)

    def item(self) -> Node:
        """A chain of relations, or one expression."""
        if self.peek().kind == "relation" and self.peek().text in ("=", "~"):  # "= 5"
            self.take()
        sides, ops = [self.union()], []
        while self.peek().kind == "relation":
            op = self.take().text
            if self.peek().kind == "relation" and self.peek().text == "=" and op in ("<", ">"):
                self.take()
                op += "="
            if self.peek().kind in STOPS or self.peek().kind == ",":
                break
            if op == "~" and ops and ops[-1] == "=":  # "x = 1/3 ~ 0.33": what stands before is exact
                self.union()
                continue
            sides.append(self.union())
            ops.append("=" if op == "~" else op)
            if len(sides) > 24:
                raise limits.BeyondLimits("too many relations")
        if "implies" in ops:
            last = len(ops) - 1 - ops[::-1].index("implies")
            sides, ops = sides[last + 1 :], ops[last + 1 :]
        return sides[0] if not ops else ("rel", sides, ops)

    def union(self) -> Node:
        node = self.ratio()
        while self.peek().kind in ("cup", "cap", "setminus"):
            op = {"cup": "union", "cap": "inter", "setminus": "minus"}[self.take().kind]
            node = (op, node, self.ratio())
        return node

    def ratio(self) -> Node:
        items = [self.sum()]
        while self.peek().kind == ":":
            self.take()
            if items[-1][0] == "text" and self.peek().kind not in STOPS:  # "Area: 5"
                items.pop()
            items.append(self.sum())
        return items[0] if len(items) == 1 else ("ratio", items)

    # -- arithmetic ------------------------------------------------------------------------------------------------------

    def sum(self) -> Node:
        self.deeper()
        items: list[Node] = []
        kind = self.peek().kind
        if kind in ("pm", "mp"):
            self.take()
            node: Node = ("pm", None, self.term(), 1 if kind == "pm" else -1)
        else:
            node = self.term()
        items.append(node)
        while self.peek().kind in ("+", "-", "pm", "mp"):
            op = self.take().kind
            if op in ("pm", "mp"):
                items = [("pm", added(items), self.term(), 1 if op == "pm" else -1)]
            elif op == "-" and items == [("opaque", "reals", [])] and self.peek().kind in ("\\{", "("):
                items = [("minus", items[0], self.primary())]
            else:
                term = self.term()
                items.append(term if op == "+" else ("neg", term))
        self.depth -= 1
        return added(items)

    def term(self) -> Node:
        sign = 1
        while self.peek().kind in ("+", "-"):
            if self.take().kind == "-":
                sign = -sign
        node = self.mixed()
        return self.product(node if sign > 0 else ("neg", node))

    def product(self, node: Node) -> Node:
        while True:
            token = self.peek()
            kind = token.kind
            if kind == "*":
                self.take()
                node = times(node, self.signed())
            elif kind == "/":
                self.take()
                if self.peek().kind in ("word", "text"):  # km/h
                    units.unit(self)
                    continue
                if self.peek(-2).text in words.LONE_UNITS | words.UNITS and self.peek().text in ("s", "h"):
                    units.unit(self)
                    continue
                node = ("div", node, self.signed())
            elif kind in ("bmod", "pmod"):
                self.take()
                node = ("call", "mod", [node, self.signed()])
            elif kind in ("word", "text") or units.is_lone_unit(self):
                node = units.units(self, node)
            elif kind == "{" and self.peek(1).kind in ("word", "text") and self.peek(2).kind == "}":
                self.tokens[self.at : self.at + 3] = [self.peek(1)]  # 90{degrees}
            elif kind in ("circ", "%", '"', "'") or (kind == "^" and self.peek(1).kind == "circ"):
                units.sign(self)
            elif kind in ENDS_FACTOR or (kind == "|" and self.bars):
                return node
            elif kind == "number":
                if self.peek(-1).kind == "number" or (self.peek(-1).kind in ("word", "text") and node[0] != "text"):
                    raise Unreadable("two numbers side by side")
                if node[0] == "text" and words.turns(node[1]):
                    raise Unreadable(f"a number after {node[1]!r}")
                node = self.factor() if node[0] == "text" else times(node, self.factor())
            elif kind == "(" and node[0] == "name" and node[1] in words.FUNCTION_LETTERS:
                inside = self.factor()
                node = times(node, ("seq", "(", ")", [inside]) if inside[0] in ("number", "neg", "div") else inside)
            else:
                node = times(node, self.factor())

    def signed(self) -> Node:
        sign = 1
        while self.peek().kind in ("+", "-"):
            if self.take().kind == "-":
                sign = -sign
        node = self.mixed()
        return node if sign > 0 else ("neg", node)

    def mixed(self) -> Node:
        r"""A factor, or a mixed number: `2\frac{5}{8}`, `3 1/3`."""
        token = self.peek()
        if token.kind == "number" and token.text.isdigit():
            after = self.peek(1)
            if after.kind == "frac":
                self.take()
                node = self.factor()
                whole = number_node(token.text)
                is_mixed = node[0] == "div" and is_proper(node[1], node[2])
                return ("add", [whole, node]) if is_mixed else times(whole, node)
            elif (
                after.kind == "number"
                and after.gap
                and after.text.isdigit()
                and self.peek(2).kind == "/"
                and self.peek(3).kind == "number"
                and self.peek(3).text.isdigit()
                and self.peek(4).kind in ENDS_FACTOR | {"word", "text", "%", "circ"}
            ):
                over, under = number_node(after.text), number_node(self.peek(3).text)
                if is_proper(over, under):
                    self.at += 4
                    return ("add", [number_node(token.text), ("div", over, under)])
        return self.factor()

    def factor(self) -> Node:
        """A primary with its postfixes: powers, factorials, primes, percent and degree signs."""
        self.deeper()
        node = self.primary()
        while True:
            kind = self.peek().kind
            if kind == "^":
                follower = self.peek(1).kind
                if follower == "circ":
                    units.sign(self)
                    continue
                if follower == "{" and self.peek(3).kind == "}" and units.is_silent_power(self, self.peek(2)):
                    units.sign(self)
                    continue
                self.take()
                if self.peek().kind == "{" and self.peek(1).kind == "'":
                    self.take()
                    while self.skip("'"):
                        pass
                    self.take("}")
                    continue
                mark = self.peek().text
                if mark in ("*", "dagger", "top") or (mark == "T" and node[0] == "matrix"):
                    self.take()
                    node = ("call", "transpose" if mark in ("T", "top") else "adjoint", [node])
                    continue
                node = ("pow", node, self.exponent())
            elif kind == "!":
                self.take()
                node = ("call", "factorial", [node])
            elif kind in ("%", "circ", '"') or (kind == "'" and node[0] not in ("name", "sub")):
                self.take()
            elif kind == "|" and not self.bars and self.peek(1).kind in ("^", "_"):
                self.take()  # evaluation bar
                node = self.evaluated(node)
            else:
                break
        self.depth -= 1
        return node

    def evaluated(self, node: Node) -> Node:
        while self.peek().kind in ("^", "_"):
            self.take()
            at = self.braced() if self.peek().kind == "{" else self.primary()
            if at[0] == "rel" and at[2] == ["="]:
                node = ("where", node, at)
        return node

    def exponent(self) -> Node:
        if self.peek().kind == "{":
            return self.braced()
        sign = 1
        while self.peek().kind in ("+", "-"):
            if self.take().kind == "-":
                sign = -sign
        node = self.primary()
        if self.peek().kind == "^":  # a^b^c
            self.take()
            self.deeper()
            node = ("pow", node, self.exponent())
            self.depth -= 1
        return node if sign > 0 else ("neg", node)

    def argument(self) -> Node:
        r"""What a command applies to: a group, or one token, of a number one digit (`\frac12`)."""
        token = self.peek()
        if token.kind == "{":
            return self.braced()
        if token.kind == "number" and len(token.text) > 1 and token.text[0].isdigit():
            rest = token.text[1:]
            self.tokens[self.at] = Token("number", rest)
            if not rest[0].isdigit():
                raise Unreadable("a decimal as a bare argument")
            return number_node(token.text[0])
        sign = self.skip("-")
        node = self.primary()
        return ("neg", node) if sign else node

    def braced(self) -> Node:
        self.deeper()
        self.take("{")
        if self.skip("}"):
            self.depth -= 1
            return ("text", "")
        bars, self.bars = self.bars, 0
        node = self.listed(";")
        if self.peek().kind == "choose":
            self.take()
            node = ("call", "binomial", [node, self.listed(";")])
        elif self.peek().kind == "over":
            self.take()
            node = ("div", node, self.listed(";"))
        self.take("}")
        self.bars = bars
        self.depth -= 1
        return ("group", node[1]) if node[0] == "list" else node

    # -- primaries ---------------------------------------------------------------------------------------------------------

    def primary(self) -> Node:
        token = self.peek()
        kind = token.kind
        if kind == "number":
            return atoms.number(self)
        if kind == "name":
            return atoms.name(self)
        if kind == "constant":
            self.take()
            return ("constant", token.text)
        if kind in ("word", "text"):
            self.take()
            return (
                units.worded(self, ("text", token.text))
                if self.peek().kind in ("word", "text")
                else ("text", token.text)
            )
        if kind == "{":
            node = self.braced()
            return node
        if kind in ("(", "[", "\\{"):
            return atoms.bracketed(self)
        if kind == "|":
            return atoms.bars_around(self)
        if kind == "function":
            return function(self)
        if kind in COMMANDS and self.at < len(self.tokens):
            self.take()
            return COMMANDS[kind](self)
        raise Unreadable(f"cannot read {token.text!r}")
