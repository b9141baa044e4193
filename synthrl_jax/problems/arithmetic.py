"""The embedded task: multi-step arithmetic word problems whose dependency graph is known.

Everything is a function of (seed, split, index), so a smaller set is a prefix of a larger one. A question's text decides the
split that may hold it (a hash of it), so no two splits share a question whatever their seeds. With the default numbers and
operators no answer holds more than 5 % of the problems; `Difficulty` says which others crowd them.
"""

import dataclasses
import random

from synthrl_jax.problems import language
from synthrl_jax.problems.language import Relation
from synthrl_jax.problems.problem import Problem, content_share

# Shares of the hash range of question texts; `pretrain` is for the shipped base model only.
SHARES = {"validation": (0.0, 0.2), "test": (0.2, 0.4), "train": (0.4, 0.8), "pretrain": (0.8, 1.0)}
ATTEMPTS = 10_000


@dataclasses.dataclass(frozen=True)
class Difficulty:
    """What a problem looks like; a pair is an inclusive range.

    steps: computed quantities that the answer needs; irrelevant: computed quantities that it does not; given: numbers that the
    needed steps may use; distractors: numbers that nothing needed uses; operators: what combines two quantities, of `+-`;
    min_value, max_value: the range of every quantity; max_given: the largest number told. With sums alone and many steps the
    numbers told are smaller, so that the answer stays in range; n steps add n + 1 numbers, which must fit: with the other
    defaults 8 steps at the most.

    By flag: --config.problems.settings.difficulty.steps=8. The most frequent answer has about 2 % of the problems, whatever the
    number of steps. Other settings can crowd the answers, so that a wrong derivation is right by luck more often: sums alone have
    5 % (23 % with 8 steps), differences alone 10 %, values from 0 to 9 14 %.
    """

    steps: tuple[int, int] = (4, 6)
    irrelevant: tuple[int, int] = (1, 2)
    given: tuple[int, int] = (4, 5)
    distractors: tuple[int, int] = (1, 1)
    operators: str = "+-"
    min_value: int = 10
    max_value: int = 99
    max_given: int = 50

    def __post_init__(self):
        for name in ("steps", "irrelevant", "given", "distractors"):
            low, high = pair = _pair(getattr(self, name), name)
            if low < (1 if name == "steps" else 2 if name == "given" else 0) or high < low:
                raise ValueError(f"difficulty.{name}={pair}: needs a range low..high of counts, given >= 2, steps >= 1")
            object.__setattr__(self, name, pair)
        if not self.operators or set(self.operators) - set(language.OPERATORS):
            raise ValueError(f"difficulty.operators={self.operators!r}: some of {''.join(language.OPERATORS)}")
        numbers = (self.min_value, self.max_given, self.max_value)
        if numbers[0] < 0 or list(numbers) != sorted(numbers):
            raise ValueError(f"difficulty: 0 <= min_value <= max_given <= max_value must hold, got {numbers}")
        if self.operators == "+" and (self.steps[1] + 1) * self.min_value > self.max_value:
            raise ValueError(
                f"difficulty: {self.steps[1]} steps of + alone add {self.steps[1] + 1} numbers of at least {self.min_value}, "
                f"more than max_value={self.max_value}; take fewer steps, a smaller min_value or a larger max_value"
            )


def _pair(value, name: str) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    if len(value) != 2:
        raise ValueError(f"difficulty.{name}={value}: a number or a pair (low, high)")
    return int(value[0]), int(value[1])


@dataclasses.dataclass(frozen=True)
class Graph:
    """A problem's quantities: `given` name -> number, `computed` name -> relation, and the one asked for."""

    given: dict[str, int]
    computed: dict[str, Relation]
    asked: str

    def values(self) -> dict[str, int]:
        """The value of every quantity."""
        values = dict(self.given)
        pending = dict(self.computed)
        while pending:
            ready = [n for n, r in pending.items() if r.left in values and r.right in values]
            if not ready:
                raise ValueError(f"quantities defined in a circle: {sorted(pending)}")
            for name in ready:
                values[name] = pending.pop(name).value(values)
        return values

    def needed(self) -> set[str]:
        """The computed quantities that the asked one depends on, itself included."""
        found, frontier = set(), [self.asked]
        while frontier:
            name = frontier.pop()
            if name in self.computed and name not in found:
                found.add(name)
                frontier += [self.computed[name].left, self.computed[name].right]
        return found

    def to_json(self) -> dict:
        return {
            "given": self.given,
            "computed": {name: [r.left, r.op, r.right] for name, r in self.computed.items()},
            "asked": self.asked,
        }

    @classmethod
    def from_json(cls, row: dict) -> "Graph":
        return cls(dict(row["given"]), {n: Relation(*r) for n, r in row["computed"].items()}, row["asked"])


def draw_graph(rng: random.Random, difficulty: Difficulty) -> Graph:
    """A random graph of the given difficulty; every value lies in min_value..max_value."""
    d = difficulty
    for _ in range(ATTEMPTS):
        steps, extra = rng.randint(*d.steps), rng.randint(*d.irrelevant)
        pool = rng.randint(*d.given)
        unused = rng.randint(*d.distractors)
        given_names = language.names(language.GIVEN_NAMES, max(len(language.GIVEN_NAMES), pool + unused))
        computed_names = language.names(language.COMPUTED_NAMES, max(len(language.COMPUTED_NAMES), steps + extra))
        given_names = rng.sample(given_names, pool + unused)
        computed_names = rng.sample(computed_names, steps + extra)
        largest = d.max_given
        if d.operators == "+":
            largest = max(d.min_value, min(largest, int(1.3 * d.max_value / (steps + 1))))
        given = {name: rng.randint(d.min_value, largest) for name in given_names}
        tree = _draw_tree(rng, computed_names[:steps], given_names[:pool])
        values = dict(given)
        computed: dict[str, Relation] = {}
        if not all(assign(rng, name, tree[name], values, computed, d) for name in reversed(computed_names[:steps])):
            continue
        used = {side for r in computed.values() for side in (r.left, r.right)}
        leftover = [name for name in given_names[:pool] if name not in used]
        for name in leftover:  # a number that no needed step took would be one distractor more than asked for
            given.pop(name)
            values.pop(name)
        if not all(
            assign(rng, name, tuple(rng.sample(sorted(values), 2)), values, computed, d)
            for name in computed_names[steps:]
        ):
            continue
        return Graph(given, computed, computed_names[0])
    raise ValueError(f"no problem found in {ATTEMPTS} attempts with {difficulty}: allow larger values or fewer steps")


def _draw_tree(rng: random.Random, computed: list[str], given: list[str]) -> dict[str, tuple[str, str]]:
    """Operands of each needed quantity: a random binary tree with computed[0] at its root, children after parents."""
    slots: list[list] = [[computed[0], None, None]]
    free = [(0, 1), (0, 2)]
    for name in computed[1:]:
        node, side = free.pop(rng.randrange(len(free)))
        slots[node][side] = name
        slots.append([name, None, None])
        free += [(len(slots) - 1, 1), (len(slots) - 1, 2)]
    for node, side in free:
        other = slots[node][3 - side]
        slots[node][side] = rng.choice([name for name in given if name != other])
    return {name: (left, right) for name, left, right in slots}


def assign(rng, name, sides, values, computed, difficulty: Difficulty) -> bool:
    """Choose an order of the sides and an operator that keep the value in range; False if none do."""
    options = [
        (relation, value)
        for left, right in (sides, sides[::-1])
        for op in difficulty.operators
        for relation in (Relation(left, op, right),)
        if difficulty.min_value <= (value := relation.value(values)) <= difficulty.max_value
    ]
    if not options:
        return False
    computed[name], values[name] = rng.choice(options)
    return True


def question(rng: random.Random, graph: Graph) -> str:
    """The graph told in shuffled sentences, with the question at the end."""
    sentences = [language.define(n, v) for n, v in graph.given.items()]
    sentences += [language.define(n, r) for n, r in graph.computed.items()]
    rng.shuffle(sentences)
    return "\n".join([*sentences, language.ask(graph.asked)])


def solution(
    rng: random.Random, graph: Graph, style: float = 0.0, needless: float = 0.0, leaps: bool | None = None
) -> str:
    """A correct solution in a random valid order, one step a line, ending in `#### answer`.

    style: share of the needed steps that are left out, their values used silently (the asked quantity's never is); needless:
    the chance of each computable but irrelevant quantity to be stated all the same. leaps: whether an irrelevant quantity may be
    stated where a part of it was not; by default with a style above 0 alone.
    """
    if not 0.0 <= style < 1.0:
        raise ValueError(f"style={style}: the share of steps left out lies in [0, 1)")
    values, needed = graph.values(), graph.needed()
    stated = needed | {n for n in graph.computed if n not in needed and rng.random() < needless}
    order, done = [], set(graph.given)
    while len(order) < len(graph.computed):
        ready = [n for n, r in graph.computed.items() if n not in done and r.left in done and r.right in done]
        order.append(rng.choice(ready))
        done.add(order[-1])
    order = [n for n in order[: order.index(graph.asked) + 1] if n in stated]
    # The asked quantity always stays, so the others leave with a larger chance: the share over all needed steps is `style`.
    chance = style * len(needed) / max(1, len(needed) - 1)
    kept = [n for n in order if n == graph.asked or n not in needed or rng.random() >= chance]
    if not (style > 0 if leaps is None else leaps):
        kept = _whole(graph, kept, needed)
    lines = [language.state(n, graph.computed[n], values) for n in kept]
    return "\n".join([*lines, language.answer(values[graph.asked])])


def _whole(graph: Graph, order: list[str], needed: set[str]) -> list[str]:
    """The quantities in their order without the needless ones of which a part is not stated before. Draws nothing."""
    stated, kept = set(graph.given), []
    for name in order:
        if name in needed or {graph.computed[name].left, graph.computed[name].right} <= stated:
            kept.append(name)
            stated.add(name)
    return kept


def make(
    split: str,
    index: int,
    *,
    seed: int = 0,
    difficulty: Difficulty = Difficulty(),
    style: float = 0.0,
    needless: float = 0.1,
) -> Problem:
    """Problem number `index` of a split."""
    low, high = SHARES[split]
    for attempt in range(ATTEMPTS):
        rng = random.Random(f"{split} {seed} {index} {attempt} {difficulty}")
        graph = draw_graph(rng, difficulty)
        text = question(rng, graph)
        if low <= content_share(text) < high:
            break
    else:
        raise ValueError(
            f"{ATTEMPTS} draws gave no new question for {split}: the task has too few problems with {difficulty}"
        )
    # The solution has a stream of its own: the teacher's style changes solutions and leaves the problems as they are.
    rng = random.Random(f"solution {split} {seed} {index} {style} {needless}")
    return Problem(
        id=f"arithmetic-{split}-{seed}-{index:06d}",
        question=text,
        answer=str(graph.values()[graph.asked]),
        # the shipped base model was made before needless lines had to be whole, and can be made again
        solution=solution(rng, graph, style, needless, leaps=True if split == "pretrain" else None),
        meta={"graph": graph.to_json(), "steps": len(graph.needed()), "style": style},
    )


def load(
    split: str,
    *,
    count: int,
    seed: int = 0,
    difficulty: Difficulty | dict | None = None,
    style: float = 0.0,
    needless: float = 0.1,
) -> list[Problem]:
    """The first `count` problems of a split. Raises ValueError for an unknown split or setting."""
    if split not in SHARES:
        raise ValueError(f"split {split!r}: the arithmetic task has {', '.join(SHARES)}")
    if not isinstance(difficulty, Difficulty):
        known = {f.name for f in dataclasses.fields(Difficulty)}
        if unknown := set(difficulty or {}) - known:
            raise ValueError(f"unknown difficulty setting {sorted(unknown)}; known: {sorted(known)}")
        difficulty = Difficulty(**(difficulty or {}))
    return [make(split, i, seed=seed, difficulty=difficulty, style=style, needless=needless) for i in range(count)]
