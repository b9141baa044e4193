"""How much of a run is done, and about how long the rest takes: from the times of the cells that are there."""

import json
import math
import re
from collections.abc import Mapping, Sequence

from experiments.cells import MANIFEST, Cell, Node
from synthrl_jax import pod

# Stages whose time goes with the number of problems, and with these settings of theirs; training goes with its rows, and a cell
# of the other stages costs the same at every size.
BY_SIZE = {"data": (), "sample": ("n",), "grade": (), "positives": (), "values": ("rollouts",), "credit": ()}
NONE_DRAWN = 0.05  # what `values` does without rollouts, against one rollout a step
SIZE = re.compile(r" N=(\d+)")
ROUND = re.compile(r" round \d+ ")
QUICK = ("recorded", "choose", "best", "slice")  # no work worth counting


class Countdown:
    """Counts the cells of a plan; `workers` of them are made side by side."""

    def __init__(self, nodes: Sequence[Node], workers: int = 1):
        self.nodes = {node.label: node for node in nodes}
        self.left = dict(self.nodes)
        self.total, self.workers = len(self.left), workers
        self.copied = _copied(self.left) if pod.count() == 1 else set()  # a pod trains them again
        self.seconds: dict[str, float] = {}
        self.weights: dict[str, float] = {}

    def done(self, node: Node, cell: Cell) -> None:
        """A cell is there, made now or before; its manifest says how long it took."""
        self.left.pop(node.label, None)
        if node.label in self.copied:
            return
        manifest = json.loads((cell.path / MANIFEST).read_text())
        self.seconds[node.stage] = self.seconds.get(node.stage, 0.0) + manifest["seconds"]
        self.weights[node.stage] = self.weights.get(node.stage, 0.0) + self._weight(node)

    def seconds_left(self) -> tuple[float, bool]:
        """An estimate for the cells to do, each by the mean of its stage, and whether every stage among them has one."""
        kinds = [n for n in self.left.values() if n.stage not in QUICK and n.label not in self.copied]
        known = [node for node in kinds if node.stage in self.seconds]
        work = sum(self._weight(node) * self.seconds[node.stage] / self.weights[node.stage] for node in known)
        return work / self.workers, len(known) == len(kinds)

    def _weight(self, node: Node) -> float:
        """What a cell's time is in proportion to, within its stage, as far as the settings tell."""
        if train := node.settings.get("train"):
            return train["updates"] * train["batch"] or train["epochs"] * self._problems(node)
        if node.stage not in BY_SIZE:
            return 1.0
        counts = (node.settings.get(name, 1) for name in BY_SIZE[node.stage])
        return self._problems(node) * math.prod(count or NONE_DRAWN for count in counts)

    def _problems(self, node: Node) -> float:
        """How many problems a cell is of: its own number, or that of its data (a slice, in rounds), or the size in its label."""
        data = self.nodes.get(node.inputs.get("data"), node)
        found = SIZE.search(node.label)
        return float(data.settings.get("count") or (found[1] if found else 1))

    def line(self) -> str:
        """`34/120 cells`."""
        return f"{self.total - len(self.left)}/{self.total} cells"

    def time_left(self) -> str:
        """`, about 1 h 20 min left`; "more than" while cells of a kind are left of which none is done; empty at the end, and
        while no cell that takes time is done."""
        seconds, known = self.seconds_left()
        if not self.left or not (seconds or known):  # of none that takes time one is done
            return ""
        return f", {'about' if known else 'more than'} {duration(seconds)} left"


def duration(seconds: float) -> str:
    """A time in the two units that matter: `2 h 05 min`, `12 min`, `40 s`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def _copied(nodes: Mapping[str, Node]) -> set[str]:
    """The labels of cells that take over what a grid's search trained on their seed: they tell nothing of their stage's time."""
    searched = {label: {nodes[point].seed for point in node.inputs.values()} for label, node in _searches(nodes)}
    return {
        node.label
        for node in nodes.values()
        if node.seed in searched.get(node.inputs.get("choice"), ()) and not ROUND.search(node.label)
    }


def _searches(nodes: Mapping[str, Node]) -> list[tuple[str, Node]]:
    """The searches whose points are all in the plan."""
    chosen = [(label, node) for label, node in nodes.items() if node.stage == "choose"]
    return [(label, node) for label, node in chosen if nodes.keys() >= set(node.inputs.values())]
