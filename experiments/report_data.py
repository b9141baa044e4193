"""What a run measured, read from its cells: the scores of every method at every size, over its seeds."""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.artifacts import read_jsonl
from experiments.cells import MANIFEST, Cell
from experiments.report_credit import first_example, sample_facts
from synthrl_jax.analysis import scaling_law, spurious
from synthrl_jax.analysis.estimate import Estimate
from synthrl_jax.analysis.evaluate import bootstrap_interval, paired_difference_interval, pass_at_k, resampled_means
from synthrl_jax.analysis.scaling_law import PowerLaw
from synthrl_jax.analysis.worked_example import WorkedExample
from synthrl_jax.problems.oracle import KINDS

CHOICE = re.compile(r"choose (?P<method>.+?) N=(?P<size>\d+)")
LABEL = re.compile(r"(?P<what>.+?)(?: N=(?P<size>\d+) seed=(?P<seed>\d+))?")
CONTROL = "sft_continued"  # the fair comparison: as many updates, on the teacher's solutions
RESAMPLES = 2_000
ENOUGH_SEEDS = 5  # fewer leave a claim undecided
SCALING_SIZES = 3


@dataclasses.dataclass
class Scores:
    """A method at a size, over one or several seeds; arrays are [seeds, problems], shares and rates in 0..1."""

    method: str
    size: int
    seeds: list[int]
    right: np.ndarray
    passed: np.ndarray | None
    k: int
    accuracy: Estimate
    pass_at_k: Estimate | None
    shares: dict[str, Estimate]
    kinds: dict[str, int]
    facts: dict[str, float]
    difference: Estimate | None = None
    multiple: Estimate | None = None
    elsewhere: dict[str, Estimate] = dataclasses.field(default_factory=dict)  # accuracy on other sets, by source


@dataclasses.dataclass
class Scaling:
    """The law fitted to SFT, the band of its error (sizes, lo, hi), and its sizes."""

    law: PowerLaw
    band: tuple[np.ndarray, np.ndarray, np.ndarray]
    sizes: list[int]


@dataclasses.dataclass
class Report:
    """Everything that the table and the page say. `scores`: a row of the table each; `by_seed`: one evaluation each; `grids`:
    size -> method -> rows {point, validation_accuracy} of every point that was tried."""

    name: str
    config: dict[str, Any]
    config_hash: str
    docstring: str
    machine: str
    scores: list[Scores]
    by_seed: list[Scores]
    samples: dict[tuple[int, int], dict[str, float]]
    pits: dict[tuple[int, int], list[dict]]
    looks: dict[tuple[str, int], list[list[tuple[int, float]]]]
    grids: dict[int, dict[str, list[dict]]]
    example: WorkedExample | None
    scaling: Scaling | None
    stages: list[dict[str, Any]]
    missing: list[str]

    @property
    def sizes(self) -> list[int]:
        return sorted({s.size for s in self.scores if s.size})

    @property
    def split(self) -> str:
        """What all is read on: `test`, or `validation` while a study makes its choices."""
        return self.config["evaluate"]["split"]

    @property
    def main_size(self) -> int:
        """The size that single-size figures show."""
        return _main_size(self.scores)


def collect(config: Mapping[str, Any], cells: Mapping[str, Cell], **about: str) -> Report:
    """The report's data from the finished cells by label; those of the config's grid that are not there are in `missing`.

    about: config_hash, docstring, machine, which only the page shows.
    """
    from ml_collections import ConfigDict

    from experiments.graph import plan

    at = {label: _parse(label) for label in cells}
    rank = _ranking(config)
    groups: dict[tuple[int, str], dict[int, Path]] = {}
    for label, cell in cells.items():
        what, size, seed = at[label]
        if what.startswith("evaluate "):
            groups.setdefault((size, what.removeprefix("evaluate ")), {})[seed] = Path(cell.path)
    places = sorted(groups, key=lambda group: (group[0], *rank(group[1])))
    training = {at[label]: Path(cell.path) for label, cell in cells.items()}
    scores, by_seed = [], []
    for size, method in places:
        runs = dict(sorted(groups[size, method].items()))
        scores.append(_scores(method, size, runs, training))
        alone = [_scores(method, size, {seed: path}, training, brief=True) for seed, path in runs.items()]
        by_seed += alone if len(runs) > 1 else [scores[-1]]
    for rows in (scores, by_seed):
        _compare(rows)
        for row in rows:
            row.elsewhere = _elsewhere(row, training)
    scaling = scaling_of(scores)
    for row in scores:
        if scaling is not None and 0 < row.size < scaling.sizes[-1] and row.method != "sft":
            row.multiple = multiple_of(scaling, scores, row)
    expected = [
        node.label for node in plan(ConfigDict(dict(config))) if not config.get("results") or node.stage == "evaluate"
    ]
    return Report(
        name=config["name"],
        config=dict(config),
        config_hash=about.get("config_hash", ""),
        docstring=about.get("docstring", ""),
        machine=about.get("machine", ""),
        scores=scores,
        by_seed=by_seed,
        samples={(n, seed): sample_facts(training, n, seed) for w, n, seed in sorted(training) if w == "grade"},
        pits={
            (size, seed): read_jsonl(path / "pits.jsonl")
            for (what, size, seed), path in sorted(training.items())
            if what == "credit"
        },
        looks=_looks(training, rank),
        grids=_grids(cells, rank),
        example=first_example(training, _main_size(scores)),
        scaling=scaling,
        stages=_stages(cells),
        missing=[label for label in expected if label not in cells],
    )


def _main_size(scores: Sequence[Scores]) -> int:
    """The size with most methods, of equals the largest; 0 if there is none."""
    sizes = [s.size for s in scores if s.size]
    return max(sizes, key=lambda size: (sizes.count(size), size), default=0)


def _ranking(config: Mapping[str, Any]):
    """A key that sorts methods: base and SFT, then in the order of the built-in methods that they are, or come from."""
    from experiments.methods import METHODS

    order = ["base", "sft", *METHODS]

    def rank(name: str) -> tuple[int, str]:
        known = name if name in order else config["methods"].get(name, {}).get("method")
        return (order.index(known) if known in order else len(order), name)

    return rank


def _parse(label: str) -> tuple[str, int, int]:
    """(what, size, seed) of a cell's label; size 0 where it names none."""
    found = LABEL.fullmatch(label)
    return found["what"], int(found["size"] or 0), int(found["seed"] or 0)


def _scores(method: str, size: int, runs: Mapping[int, Path], training: Mapping, brief: bool = False) -> Scores:
    """Scores over the runs' seeds, with what their training cells say."""
    found = {s: (read_jsonl(p / "problems.jsonl"), read_jsonl(p / "row.jsonl")[0]) for s, p in runs.items()}
    scores = scores_of(method, size, found, brief)
    places = [training[method, size, seed] for seed in runs if size and (method, size, seed) in training]
    if len(places) == len(runs):
        trained = [read_jsonl(path / "summary.jsonl")[0] for path in places]
        for name in ("validation_accuracy", "updates", "best_update", "rows", "tokens"):
            if all(name in summary for summary in trained):
                fact = "train_" + name if name in ("rows", "tokens") else name
                scores.facts[fact] = _mean([s[name] for s in trained])
    moved = [training.get((f"drift {method}", size, seed)) for seed in runs]
    if all(moved):
        scores.facts |= drift_facts([read_jsonl(path / "summary.jsonl")[0] for path in moved])
    return scores


def drift_facts(summaries: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The stage `drift`'s numbers over seeds: `drift_needed_lost` and so on, those that every seed has."""
    names = [name for name in summaries[0] if all(name in summary for summary in summaries)]
    return {f"drift_{name}": float(np.mean([summary[name] for summary in summaries])) for name in names}


def scores_of(
    method: str, size: int, runs: Mapping[int, tuple[Sequence[Mapping], Mapping]], brief: bool = False
) -> Scores:
    """Scores over seeds: seed -> (a row a problem, the evaluation's own summary) as the stage `evaluate` writes them.

    `brief` leaves out the intervals of the step shares, which the row of the mean has.
    """
    rows, summaries = [list(of_seed) for of_seed, _ in runs.values()], [summary for _, summary in runs.values()]
    right = np.array([[row["outcome"] == "correct" for row in of_seed] for of_seed in rows], float)
    judged = np.array([[row["outcome"] != "grader_error" for row in of_seed] for of_seed in rows]).all(axis=0)
    k = summaries[0].get("k", 0)
    passed = None
    correct, samples = (
        np.array([[row[field] for row in of_seed] for of_seed in rows]) for field in ("correct", "samples")
    )
    counted = (samples >= k).all(axis=0)  # a grader error is no sample, so a problem may have too few
    if k and counted.any():
        passed = np.asarray(pass_at_k(correct[:, counted], samples[:, counted], k), float)
    alone = summaries[0] if len(summaries) == 1 else {}
    shares, kinds = {}, {}
    if all("greedy" in row for of_seed in rows for row in of_seed):
        shares = {} if brief else spurious.step_shares(rows)
        kinds = {kind: sum(row["greedy"].get(kind, 0) for of_seed in rows for row in of_seed) for kind in KINDS}
    facts: dict[str, float] = spurious.step_ratios(rows) if brief and kinds else {}
    facts["problems"] = right.shape[1]
    for name in ("no_answer", "grader_error"):
        facts[name] = sum(summary.get(name, 0) for summary in summaries)
    if all("sampled_accuracy" in summary for summary in summaries):
        facts["sampled_accuracy"] = float(np.mean([summary["sampled_accuracy"] for summary in summaries]))
    return Scores(
        method=method,
        size=size,
        seeds=list(runs),
        right=right,
        passed=passed,
        k=k,
        accuracy=_estimate(right[:, judged] if judged.any() else right, alone, "accuracy"),
        pass_at_k=_estimate(passed, alone, "pass_at_k") if passed is not None else None,
        shares=shares,
        kinds=kinds,
        facts=facts,
    )


def _mean(values: Sequence[float]) -> float:
    """The mean; a whole number stays one."""
    mean = float(np.mean(values))
    return int(mean) if mean.is_integer() and all(isinstance(v, int) for v in values) else mean


def _estimate(values: np.ndarray, known: Mapping[str, float], name: str) -> Estimate:
    """Mean and interval over problems (and seeds); of a single evaluation those that it wrote itself."""
    if f"{name}_lo" in known:
        return Estimate(known[name], known[f"{name}_lo"], known[f"{name}_hi"])
    if len(values) == 1:
        return Estimate(float(values.mean()), *bootstrap_interval(values[0]))
    return Estimate(float(values.mean()), *bootstrap_interval(values, resamples=RESAMPLES))


def _elsewhere(row: Scores, training: Mapping) -> dict[str, Estimate]:
    """A method's accuracy on each set out of distribution that all its seeds were evaluated on."""
    found = {}
    for name in sorted({what.split(" ")[1] for what, _, _ in training if what.startswith("elsewhere ")}):
        places = [training.get((f"elsewhere {name} {row.method}", row.size, seed)) for seed in row.seeds]
        if all(places):
            answers = [read_jsonl(path / "problems.jsonl") for path in places]
            right = np.array([[answer["outcome"] == "correct" for answer in of_seed] for of_seed in answers], float)
            alone = read_jsonl(places[0] / "row.jsonl")[0] if len(places) == 1 else {}
            found[name] = _estimate(right, alone, "accuracy")
    return found


def _compare(rows: list[Scores]) -> None:
    """Paired differences to the control on the same problems and seeds."""
    for row in rows:
        controls = [c for c in rows if c.method == CONTROL and c.size == row.size and set(c.seeds) & set(row.seeds)]
        if not controls or row.method == CONTROL or not row.size:
            continue
        control = controls[0]
        shared = [seed for seed in row.seeds if seed in control.seeds]
        first = row.right[[row.seeds.index(seed) for seed in shared]]
        second = control.right[[control.seeds.index(seed) for seed in shared]]
        if first.shape != second.shape:
            continue
        pair = (first[0], second[0]) if len(shared) == 1 else (first, second)
        interval = paired_difference_interval(*pair, resamples=10_000 if len(shared) == 1 else RESAMPLES)
        row.difference = Estimate(float((first - second).mean()), *interval)


def scaling_of(scores: Sequence[Scores]) -> Scaling | None:
    """The law of SFT, where at least three sizes have an error above 0 on the same problems."""
    sft = [s for s in scores if s.method == "sft"]
    if len(sft) < SCALING_SIZES or len({s.right.shape[1] for s in sft}) > 1 or any(s.accuracy.value >= 1 for s in sft):
        return None
    sizes = [s.size for s in sft]
    law = scaling_law.fit(sizes, [1 - s.right.mean() for s in sft])
    drawn = np.concatenate(list(resampled_means([s.right for s in sft], RESAMPLES, np.random.default_rng(0))), axis=1)
    least = np.array([0.5 / s.right.size for s in sft])[:, None]
    slope, start = np.polyfit(np.log(sizes), np.log(np.maximum(1 - drawn, least)), 1)
    grid = np.geomspace(min(sizes), max(sizes), 40)
    lo, hi = np.quantile(np.exp(start[:, None] + slope[:, None] * np.log(grid)), [0.025, 0.975], axis=0)
    return Scaling(law, (grid, lo, hi), sizes)


def multiple_of(scaling: Scaling, scores: Sequence[Scores], row: Scores) -> Estimate | None:
    """A method's efficiency multiple with its interval; its ends may be infinite. None where the test problems differ."""
    sft = {s.size: s.right for s in scores if s.method == "sft"}
    if row.right.shape[1] != sft[scaling.sizes[0]].shape[1]:
        return None
    value = scaling_law.efficiency_multiple(scaling.law, row.size, float(1 - row.right.mean()))
    interval = scaling_law.efficiency_multiple_interval(sft, row.size, row.right, resamples=RESAMPLES)
    return Estimate(value, *interval)


def _looks(training: Mapping, rank) -> dict[tuple[str, int], list[list[tuple[int, float]]]]:
    out: dict[tuple[str, int], list] = {}
    for method, size, seed in sorted(training, key=lambda at: (at[1], *rank(at[0]), at[2])):
        path = training[method, size, seed] / "looks.jsonl"
        if path.exists() and (looks := read_jsonl(path)):
            out.setdefault((method, size), []).append([(look["update"], look["validation_accuracy"]) for look in looks])
    return out


def _grids(cells: Mapping[str, Cell], rank) -> dict[int, dict[str, list[dict]]]:
    found = [(match, cell) for label, cell in cells.items() if (match := CHOICE.fullmatch(label))]
    out: dict[int, dict[str, list[dict]]] = {}
    for match, cell in sorted(found, key=lambda pair: rank(pair[0]["method"])):
        out.setdefault(int(match["size"]), {})[match["method"]] = read_jsonl(Path(cell.path) / "grid.jsonl")
    return out


def _stages(cells: Mapping[str, Cell]) -> list[dict[str, Any]]:
    """Cells, seconds, last date and commits by stage, in the order in which the stages first ended."""
    found: dict[str, dict[str, Any]] = {}
    manifests = [json.loads((Path(cell.path) / MANIFEST).read_text()) for cell in cells.values()]
    for manifest in sorted(manifests, key=lambda m: m["date"]):
        row = found.setdefault(
            manifest["stage"], {"stage": manifest["stage"], "cells": 0, "seconds": 0.0, "commits": []}
        )
        row["cells"] += 1
        row["seconds"] += manifest["seconds"]
        row["first"], row["last"] = row.get("first", manifest["date"]), manifest["date"]
        if manifest["commit"] not in row["commits"]:
            row["commits"].append(manifest["commit"])
    return list(found.values())
