"""Exact verdicts on every line of any response to an arithmetic problem, from the problem's graph."""

import dataclasses
from typing import Literal

from synthrl_jax.problems import language
from synthrl_jax.problems.arithmetic import Graph
from synthrl_jax.problems.language import Relation, Statement
from synthrl_jax.problems.problem import Problem

Kind = Literal["needed", "needless", "leap", "wrong value", "not ready", "wrong relation", "unparsable"]
KINDS: tuple[Kind, ...] = ("needed", "needless", "leap", "wrong value", "not ready", "wrong relation", "unparsable")
WRONG: tuple[Kind, ...] = ("wrong value", "not ready", "wrong relation", "unparsable")


@dataclasses.dataclass(frozen=True)
class StepVerdict:
    """What one line is, and whether the question can still be answered after it.

    `answerable` is False from the first line on that states a wrong value of a quantity that the answer needs.
    """

    line: str
    kind: Kind
    answerable: bool

    @property
    def wrong(self) -> bool:
        """True for the four kinds of error; a leap is terse, not wrong."""
        return self.kind in WRONG


class Oracle:
    """Judges responses to one arithmetic problem.

    needed: right, and the answer depends on it. needless: right, but the answer does not depend on it, or it was stated
    before. leap: right, but a part of it was never stated. wrong value: a number on the line is wrong though all parts were
    stated. not ready: a number is wrong and a part was never stated. wrong relation: not the relation that the problem gives.
    unparsable: anything else. A part is stated by the problem (given numbers) or by an earlier line that ends in its value.
    The answer line is judged alike, the asked quantity being its only part.
    """

    def __init__(self, problem: Problem | Graph):
        self.graph = problem if isinstance(problem, Graph) else Graph.from_json(problem.meta["graph"])
        self.values = self.graph.values()
        self.needed = self.graph.needed()

    def judge(self, response: str) -> list[StepVerdict]:
        """A verdict for each non-empty line of the response, in order."""
        verdicts, stated, answerable = [], set(self.graph.given), True
        for line in response.split("\n"):
            if not line.strip():
                continue
            said = language.read_line(line.strip())
            kind = self._kind(said, stated)
            if isinstance(said, Statement):
                stated.add(said.target)
                if said.target in self.needed and said.value != self.values[said.target]:
                    answerable = False
            elif isinstance(said, int):
                answerable = answerable and said == self.values[self.graph.asked]
            verdicts.append(StepVerdict(line, kind, answerable))
        return verdicts

    def _kind(self, said: Statement | int | None, stated: set[str]) -> Kind:
        if said is None:
            return "unparsable"
        if isinstance(said, int):
            parts, right, useful = {self.graph.asked}, said == self.values[self.graph.asked], True
        else:
            relation = self.graph.computed.get(said.target)
            if relation is None or not relation.same_as(said.relation):
                return "wrong relation"
            parts = {said.relation.left, said.relation.right}
            right = self._right(said, said.relation)
            useful = said.target in self.needed and said.target not in stated
        ready = parts <= stated
        if not right:
            return "wrong value" if ready else "not ready"
        if not ready:
            return "leap"
        return "needed" if useful else "needless"

    def _right(self, said: Statement, relation: Relation) -> bool:
        return (said.left_value, said.right_value, said.value) == (
            self.values[relation.left],
            self.values[relation.right],
            self.values[said.target],
        )


def first_wrong_step(verdicts: list[StepVerdict]) -> int:
    """Index of the first wrong line, -1 if none is."""
    return next((i for i, v in enumerate(verdicts) if v.wrong), -1)


def losing_step(verdicts: list[StepVerdict]) -> int:
    """Index of the line after which the answer is lost, -1 if it never is."""
    return next((i for i, v in enumerate(verdicts) if not v.answerable), -1)
