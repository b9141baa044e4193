"""From a config to its grid of cells: which stages, on which inputs, with which part of the settings."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from experiments import crediting, methods, training
from experiments.cells import Node
from experiments.fields import (
    METHOD_FIELDS,
    TRAIN_FIELDS,
    all_sizes,
    check,
    grids,
    inherited,
    point_name,
    points,
    sft_at,
)
from experiments.settings import UsageError, merged

NOT_OF_A_CELL = ("split", "also", "also_path")  # of evaluate's fields


def plan(config: ConfigDict) -> list[Node]:
    """All nodes of a config in an order in which each comes after its inputs. UsageError for settings that do not fit."""
    c = config.to_dict()
    check(c)
    problems = {"source": c["problems"]["source"], **c["problems"]["settings"]}
    if c["problems"]["path"]:
        problems["path"] = c["problems"]["path"]
    nodes = [Node("data validation", "data", {**problems, "split": "validation", "count": c["validation_problems"]})]
    if c["evaluate"]["split"] == "test":
        nodes.append(Node("data test", "data", {**problems, "split": "test", "count": c["test_problems"]}))
    for name in c["evaluate"].get("also", ()):
        where = {"path": c["evaluate"]["also_path"]} if c["evaluate"]["also_path"] else {}
        nodes.append(Node(f"data {name}", "data", {"source": name, "split": "test", **where}))
    shipped = {"pretrained": c["base"]["pretrained"], **_placed(c)}
    if c["base"]["pretrained"]:
        nodes.append(Node("base", "base", shipped))
        nodes += _evaluations(c, "base", "base")
    # A seed that a grid is tuned on comes first: the others train with what it chose.
    seeds = sorted(c["seeds"], key=lambda seed: seed not in c["tune_seeds"])
    for size in all_sizes(c):
        for seed in dict.fromkeys([*c["tune_seeds"], *seeds] if grids(c, size) else seeds):
            nodes += _One(c, problems, size, seed).nodes()
        nodes += _choices(c, size)
    # What reads no other cell comes first: a size that the data does not reach is told before anything is trained.
    return _ordered(sorted(nodes, key=lambda node: bool(node.inputs)))


def _choices(c: dict, size: int) -> list[Node]:
    """The best point of every grid at a size, by validation accuracy over the tuning seeds."""
    nodes = []
    for name, grid in grids(c, size).items():
        found = points(grid)
        inputs = {
            f"{number} {seed}": f"{point_name(name, point)} N={size} seed={seed}"
            for number, point in enumerate(found)
            for seed in c["tune_seeds"]
        }
        nodes.append(Node(f"choose {name} N={size}", "choose", {"points": found, "name": name}, inputs))
    return nodes


def _ordered(nodes: list[Node]) -> list[Node]:
    """The nodes with each after its inputs, otherwise in their order."""
    done: set[str] = set()
    out: list[Node] = []
    while nodes:
        later = []
        for node in nodes:
            if done.issuperset(node.inputs.values()):
                out.append(node)
                done.add(node.label)
            else:
                later.append(node)
        if len(later) == len(nodes):
            raise UsageError(f"cells that wait for each other or for none: {', '.join(n.label for n in later[:3])}")
        nodes = later
    return out


@dataclasses.dataclass
class _One:
    """The cells of one size and seed."""

    c: dict
    problems: dict
    size: int
    seed: int

    @property
    def at(self) -> str:
        return f"N={self.size} seed={self.seed}"

    def nodes(self) -> list[Node]:
        c, at = self.c, self.at
        data = f"data {at}"
        nodes = [Node(data, "data", {**self.problems, "split": "train", "count": self.size}, seed=self.seed)]
        self.base = "base"
        if not c["base"]["pretrained"]:
            self.base = f"base {at}"
            nodes.append(Node(self.base, "base", dict(c["base"]), {"data": data}, self.seed))
        self.data, self.sft = data, f"sft {at}"
        nodes += self._trained("sft", sft_at(c, self.size), self._sft)
        if self.size not in c["sizes"] or not c["methods"]:
            return nodes
        source = {"data": data, "sft": self.sft}
        self.earlier, made = self._sampled("", source, c["sample"])
        nodes += made
        self.credits: dict[str, str] = {}
        self.values = {str(made[-1].settings): made[-1]}
        for name, entry in c["methods"].items():
            train = self._rounds if entry.get("rounds") else self._offline
            nodes += self._trained(name, entry, train)
        unique = {node.label: node for node in nodes}  # a grid's points share their samples, values and credit
        return list(unique.values())

    def _trained(self, name: str, entry: dict, train) -> list[Node]:
        """A policy and its evaluation; with a grid also every point of it on the tuning seeds, without evaluation."""
        nodes, grid = [], entry.get("grid")
        if grid and self.seed in self.c["tune_seeds"]:
            for point in points(grid):
                nodes += train(point_name(name, point), name, merged(entry, point), {})
        if self.seed not in self.c["seeds"]:
            if name == "sft":  # what the tuning seeds' methods start from
                nodes += train(name, name, entry, {"choice": f"choose {name} N={self.size}"} if grid else {})
            return nodes
        choice = {"choice": f"choose {name} N={self.size}"} if grid else {}
        nodes += train(name, name, entry, choice)
        nodes += _evaluations(self.c, f"{name} {self.at}", f"{name} {self.at}", self.seed)
        if name != "sft" and self.c.get("drift"):
            nodes.append(self._drift(name))
        return nodes

    def _drift(self, name: str) -> Node:
        """How much a method changed right and wrong steps of pi_sft's own samples."""
        settings = {"count": self.c["drift"], "delimiters": list(self.c["delimiters"]), **_placed(self.c)}
        inputs = {role: self.earlier[role] for role in ("data", "sft", "grade")} | {"policy": f"{name} {self.at}"}
        return Node(f"drift {name} {self.at}", "drift", settings, inputs, self.seed)

    def _sft(self, label: str, name: str, entry: dict, choice: dict) -> list[Node]:
        inputs = {"base": self.base, "data": self.data, "validation": "data validation", **choice}
        changes = {k: v for k, v in entry.items() if k in TRAIN_FIELDS}
        return [Node(f"{label} {self.at}", "sft", _training(self.c, changes), inputs, self.seed)]

    def _sampled(self, prefix: str, source: dict, sample: dict, monte_carlo: Mapping[str, Any] | None = None):
        """Cells from sampling to values, by role, and their nodes."""
        c, at, seed = self.c, self.at, self.seed
        grading = {"grading": c["grading"]}
        labels = {stage: f"{stage} {prefix}{at}" for stage in ("sample", "grade", "positives", "values")}
        value_settings = {**sample, **c["monte_carlo"], **(monte_carlo or {}), **grading, **_placed(c)}
        value_settings["delimiters"] = list(c["delimiters"])
        value_settings.pop("n")
        if value_settings["early_stop"]:
            value_settings["k"] = c["credit"]["k"]
        grade, positives = labels["grade"], labels["positives"]
        nodes = [
            Node(labels["sample"], "sample", {"prompt": c["prompt"], **sample, **_placed(c)}, source, seed),
            Node(grade, "grade", {"prompt": c["prompt"], **grading}, {**source, "sample": labels["sample"]}, seed),
            Node(positives, "positives", c["positives"], {"grade": grade}, seed),
            Node(labels["values"], "values", value_settings, {**source, "grade": grade, "positives": positives}, seed),
        ]
        return {**source, "grade": grade, "positives": positives, "values": labels["values"]}, nodes

    def _offline(self, label: str, name: str, entry: dict, choice: dict) -> list[Node]:
        """One training run on rows from pi_sft's own samples."""
        nodes, earlier = [], self.earlier
        if entry.get("monte_carlo"):  # values of its own: other rollouts on the same samples
            earlier, made = self._sampled(
                f"{name} ", {r: earlier[r] for r in ("data", "sft")}, self.c["sample"], entry["monte_carlo"]
            )
            # drawn once for all methods that want the same ones
            values = self.values.setdefault(str(made[-1].settings), made[-1])
            earlier = {**self.earlier, "values": values.label}
            nodes.append(dataclasses.replace(values, inputs={r: earlier[r] for r in values.inputs}))
        inputs = {**earlier, "base": self.base, "validation": "data validation", **choice}
        if methods.find(name, entry)[0].needs_credit:
            inputs["credit"], made = self._credit(name, entry, earlier, "")
            nodes += made
        return [*nodes, self._train_node(f"{label} {self.at}", name, entry, inputs)]

    def _credit(self, name: str, entry: dict, earlier: dict, prefix: str) -> tuple[str, list[Node]]:
        """The credit cell's label, and its node where no method before has made it."""
        settings = merged(self.c["credit"], entry.get("credit") or {})
        known = str((settings, earlier))
        if known in self.credits:
            return self.credits[known], []
        own = settings != self.c["credit"] or entry.get("monte_carlo")
        label = f"credit {prefix}{name if own and not prefix else ''}".rstrip() + f" {self.at}"
        self.credits[known] = label
        return label, [
            Node(label, "credit", crediting.without_defaults(settings) | _placed(self.c), earlier, self.seed)
        ]

    def _scaled(self, count: int) -> int:
        """A count that is meant for `updates_at` problems, at this size."""
        usual = self.c["updates_at"]
        return max(min(count, 1), round(count * self.size / usual)) if usual else count

    def _train_node(self, label: str, name: str, entry: dict, inputs: dict) -> Node:
        training = _training(self.c, {k: v for k, v in entry.items() if k in TRAIN_FIELDS})
        training["train"]["updates"] = self._scaled(training["train"]["updates"])
        own = {
            k: v
            for k, v in entry.items()
            if k in METHOD_FIELDS and k not in ("credit", "monte_carlo", "rounds", "grid")
        }
        if "credit" not in inputs:
            inputs = {role: label for role, label in inputs.items() if role != "values"}
        return Node(label, "train", {**training, **own, "name": name}, inputs, self.seed)

    def _rounds(self, label: str, name: str, entry: dict, choice: dict) -> list[Node]:
        """Rounds of sample, grade, values, credit and train, each on fresh samples of a slice of the problems; the policy is
        the best round's by validation accuracy."""
        rounds, policy, nodes, trained = entry["rounds"], self.sft, [], {}
        problems, method = self._scaled(rounds["problems"]), methods.find(name, entry)[0]
        # These samples serve this method alone: one that pairs whole responses needs them chosen, and no rollouts of them.
        monte_carlo = entry.get("monte_carlo") or {}
        if method.rows_from != "rollouts":
            monte_carlo = {**monte_carlo, "rollouts": 0, "early_stop": ""}
        for number in range(1, rounds["count"] + 1):
            prefix = f"{label} round {number} "
            part = f"slice {number} of {problems} {self.at}"
            cut = {"number": number - 1, "count": problems}
            nodes.append(Node(part, "slice", cut, {"data": self.data}, self.seed))
            sample = merged(self.c["sample"], rounds.get("sample") or {})
            earlier, made = self._sampled(prefix, {"data": part, "sft": policy}, sample, monte_carlo)
            reference = self.sft if rounds.get("reference", "round") == "sft" else policy
            inputs = {**earlier, "base": self.base, "reference": reference}
            if method.needs_credit:
                inputs["credit"], credit = self._credit(name, entry, earlier, prefix)
                made += credit
            else:
                made = [node for node in made if node.stage != "values"]
            # Fresh samples: the round's number is in the sampling key through the seed.
            nodes += [dataclasses.replace(node, seed=_round_seed(self.seed, number)) for node in made]
            inputs |= {"validation": "data validation", **choice}
            node = self._train_node(f"{prefix}{self.at}", name, entry, inputs)
            nodes.append(dataclasses.replace(node, seed=_round_seed(self.seed, number)))
            policy = node.label
            trained[f"round {number}"] = policy
        return [*nodes, Node(f"{label} {self.at}", "best", {}, trained, self.seed)]


def _round_seed(seed: int, number: int) -> int:
    return seed + 1_000 * number


def _placed(c: dict) -> dict[str, Any]:
    """The mesh, for the stages that hold a policy; of one device it is no part of a cell's name."""
    return {} if all(size == 1 for size in c["mesh"].values()) else {"mesh": c["mesh"]}


def _training(c: dict, changes: dict) -> dict[str, Any]:
    validation = {**inherited(c), "grading": c["grading"]}
    train = training.without_defaults(merged(c["train"], changes))
    return {"train": train, "prompt": c["prompt"], "mesh": c["mesh"], "validation": validation}


def _evaluations(c: dict, name: str, policy: str, seed: int = 0) -> list[Node]:
    """The evaluation that the table is made of, and one on each set out of distribution."""
    own = {k: v for k, v in c["evaluate"].items() if k not in NOT_OF_A_CELL}
    settings = {**inherited(c), "grading": c["grading"], **own, "prompt": c["prompt"], **_placed(c)}
    sets = {f"evaluate {name}": c["evaluate"]["split"]}
    sets |= {f"elsewhere {other} {name}": other for other in c["evaluate"].get("also", ())}
    return [
        Node(label, "evaluate", settings, {"policy": policy, "test": f"data {problems}"}, seed)
        for label, problems in sets.items()
    ]
