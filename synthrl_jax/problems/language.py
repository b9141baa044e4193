"""The words of the embedded arithmetic task, and how its sentences and solution lines are written and read.

A problem is a list of sentences in shuffled order and a question; a solution states one quantity a line:

    Owl is fig+tea
    Fig is 12
    Tea is 7
    What is owl?
    owl: fig 12 + tea 7, Owl is 19
    #### 19

A name is written `owl` where it is mentioned, `Owl is ` where its definition or value stands, `owl: ` where a step decides for
it. That makes looking a definition up among shuffled ones learnable for a tiny model: the token that asks names what it looks
for, and the place to look is a token of its own. In a definition the left side and its operator are one piece (`fig+`), so that
both sides stand at most two tokens after the mark.
"""

import dataclasses
import itertools
import re

GIVEN_NAMES = tuple("fig tea nut oat pea yam ham jam pie egg rye bun ale cod tuna kale plum lime corn rice".split())
COMPUTED_NAMES = tuple("owl fox cat dog hen pig cow ant bee bat elk emu ape yak rat ram gnu koi eel jay".split())
OPERATORS = {"+": lambda a, b: a + b, "-": lambda a, b: a - b}
ANSWER_MARK = "#### "


@dataclasses.dataclass(frozen=True)
class Relation:
    """How one quantity follows from two others: `left op right`."""

    left: str
    op: str
    right: str

    def value(self, values: dict[str, int]) -> int:
        return OPERATORS[self.op](values[self.left], values[self.right])

    def same_as(self, other: "Relation") -> bool:
        """Equal, or equal with the sides of a sum exchanged."""
        return self == other or (self.op == other.op == "+" and (self.left, self.right) == (other.right, other.left))


@dataclasses.dataclass(frozen=True)
class Statement:
    """What a solution line says: `target: left 12 + right 7, Target is 19`."""

    target: str
    relation: Relation
    left_value: int
    right_value: int
    value: int


def names(base: tuple[str, ...], count: int) -> list[str]:
    """The first `count` names of a kind; past the list words get a number (`owl2`), so any count can be asked for."""
    numbered = (f"{word}{i}" for i in itertools.count(2) for word in base)
    return list(itertools.islice(itertools.chain(base, numbered), count))


def define(name: str, meaning: Relation | int) -> str:
    text = str(meaning) if isinstance(meaning, int) else f"{meaning.left}{meaning.op}{meaning.right}"
    return f"{name.capitalize()} is {text}"


def ask(name: str) -> str:
    return f"What is {name}?"


def state(target: str, relation: Relation, values: dict[str, int]) -> str:
    left, right = relation.left, relation.right
    return f"{target}: {left} {values[left]} {relation.op} {right} {values[right]}, {target.capitalize()} is {values[target]}"


def answer(value: int) -> str:
    return f"{ANSWER_MARK}{value}"


NAME, NUMBER = r"([a-z]+[0-9]*)", r"([0-9]{1,9})"
LINE = re.compile(rf"{NAME}: {NAME} {NUMBER} ([+-]) {NAME} {NUMBER}, ([A-Z][a-z]*[0-9]*) is (-?[0-9]{{1,9}})")
FINAL = re.compile(r"#### (-?[0-9]{1,9})")


def read_line(line: str) -> Statement | int | None:
    """A solution line's statement, the number of an answer line, or None where the line is neither."""
    if final := FINAL.fullmatch(line):
        return int(final.group(1))
    found = LINE.fullmatch(line)
    if found is None or found.group(7).lower() != found.group(1):
        return None
    target, left, left_value, op, right, right_value, _, value = found.groups()
    return Statement(target, Relation(left, op, right), int(left_value), int(right_value), int(value))


def pieces() -> list[str]:
    """The strings that the task's tokenizer keeps as single pieces."""
    out = ["\n", "What is ", ", ", " + ", " - ", ANSWER_MARK]
    for name in GIVEN_NAMES + COMPUTED_NAMES:
        out += [name, *(name + op for op in OPERATORS), f"{name} ", f"{name.capitalize()} is "]
    return out + [f"{name}: " for name in COMPUTED_NAMES]
