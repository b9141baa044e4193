"""A study as its results file tells it: scores of every method and size over its seeds, grids, tokens, and what is missing."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments import crediting, methods, report_data
from experiments.graph import plan
from experiments.report_data import Scaling, Scores
from experiments.results_file import ResultsFile, unpack
from experiments.settings import UsageError
from synthrl_jax.analysis import scaling_law, spurious
from synthrl_jax.analysis.estimate import Estimate
from synthrl_jax.analysis.evaluate import paired_difference_interval

LABEL = re.compile(r"(?P<stage>evaluate|drift) (?P<method>.+?)(?: N=(?P<size>\d+) seed=(?P<seed>\d+))?")
PITTED = ("pairs_fork", "pairs_solution")  # rows that are made at pits
TOKENS = ("train_tokens", "sample_tokens", "rollout_tokens")


@dataclasses.dataclass
class Study:
    """What is finished of a config's plan. rows: the results file's rows of evaluations, problems: their rows by problem, both by
    (method, size, seed); drifts: the summaries of the stage `drift` alike; pits: the share of the pits that a method's pairs
    fork at that are the oracle's first wrong step; grids: size -> method -> rows {point, validation_accuracy}; missing: labels
    without a row."""

    config: dict[str, Any]
    rows: dict[tuple[str, int, int], dict]
    problems: dict[tuple[str, int, int], list[dict]]
    drifts: dict[tuple[str, int, int], dict]
    pits: dict[tuple[str, int, int], float]
    scores: dict[tuple[str, int], Scores]
    scaling: Scaling | None
    grids: dict[int, dict[str, list[dict]]]
    missing: list[str]

    @property
    def main_size(self) -> int:
        """The size of the claims: `config.main_size`, or the largest with methods that SFT exceeds 16 times, as multiples need it
        to (the smallest where there is none)."""
        if self.config["main_size"]:
            return self.config["main_size"]
        largest = max([*self.config["sizes"], *self.config["sft_sizes"]])
        sizes = sorted(self.config["sizes"])
        return max((size for size in sizes if 16 * size <= largest), default=sizes[0])

    @property
    def largest(self) -> int:
        """The largest SFT size that is finished."""
        return max((size for method, size in self.scores if method == "sft"), default=0)

    @property
    def smallest(self) -> int:
        """The smallest SFT size that is finished."""
        return min((size for method, size in self.scores if method == "sft"), default=0)

    def seeds(self, *cells: tuple[str, int]) -> list[int]:
        """The seeds that all of the cells (method, size) have."""
        found = [set(self.scores[cell].seeds) if cell in self.scores else set() for cell in cells]
        return sorted(set.intersection(*found)) if found else []

    def right(self, method: str, size: int, seeds: Sequence[int]) -> np.ndarray:
        """Which problems were answered rightly, [seeds, problems]."""
        scores = self.scores[method, size]
        return scores.right[[scores.seeds.index(seed) for seed in seeds]]

    def difference(self, first: str, second: str, size: int) -> Estimate | None:
        """Accuracy of one method minus another's at a size, on the seeds of both; None where one is missing."""
        seeds = self.seeds((first, size), (second, size))
        if not seeds:
            return None
        a, b = (self.right(method, size, seeds) for method in (first, second))
        interval = paired_difference_interval(a, b, resamples=report_data.RESAMPLES)
        return Estimate(float((a - b).mean()), *interval)

    def measured_multiple(self, method: str, size: int) -> Estimate | None:
        """A method's multiple by SFT's errors as they were measured, without a law; None where it has no multiple."""
        scores = self.scores.get((method, size))
        if scores is None or scores.multiple is None:
            return None
        sft = self._sft()
        value = scaling_law.measured_multiple(
            sorted(sft), [1 - sft[n].mean() for n in sorted(sft)], size, 1 - scores.right.mean()
        )
        return Estimate(
            float(value),
            *scaling_law.measured_multiple_interval(sft, size, scores.right, resamples=report_data.RESAMPLES),
        )

    def multiple_ratio(self, first: str, second: str, size: int, measured: bool = False) -> Estimate | None:
        """One method's multiple over another's, neither beyond SFT's sizes, on the seeds of both, by the law or by SFT's
        errors as measured; None where one has none."""
        seeds = self.seeds((first, size), (second, size))
        if not seeds or any(self.scores[method, size].multiple is None for method in (first, second)):
            return None
        a, b = (self.right(method, size, seeds) for method in (first, second))
        sft, errors = self._sft(), (1 - a.mean(), 1 - b.mean())
        if measured:
            value = scaling_law.measured_ratio(sorted(sft), [1 - sft[n].mean() for n in sorted(sft)], size, *errors)
        else:
            value = scaling_law.multiple_ratio(self.scaling.law, size, *errors, self.largest)
        settings = {"resamples": report_data.RESAMPLES, "measured": measured}
        return Estimate(float(value), *scaling_law.multiple_ratio_interval(sft, size, a, b, **settings))

    def _sft(self) -> dict[int, np.ndarray]:
        """Size -> which problems SFT answered rightly, [seeds, problems]."""
        return {size: scores.right for (method, size), scores in self.scores.items() if method == "sft"}

    def share_difference(self, first: str, second: str, size: int, share: str) -> Estimate | None:
        """The difference of a share of `analysis.spurious`; None where a method or the oracle is missing."""
        seeds = self.seeds((first, size), (second, size))
        rows = [[self.problems[method, size, seed] for seed in seeds] for method in (first, second)]
        if not seeds or not all("greedy" in row for by_seed in rows for of_seed in by_seed for row in of_seed):
            return None
        return spurious.share_difference(*rows, share)

    def gaps(self, method: str, size: int) -> dict[str, Estimate]:
        """The shares of `spurious.GAPS`, over seeds; empty without the oracle."""
        rows = [self.problems[method, size, seed] for seed in self.seeds((method, size))]
        if not rows or not all("greedy" in row for of_seed in rows for row in of_seed):
            return {}
        return spurious.step_shares(rows, spurious.GAPS)

    def tokens(self, method: str, size: int) -> float | None:
        """Mean over seeds of the tokens that a method was trained on and sampled, pi_sft's included; None if not known."""
        rows = [row for (name, n, _), row in self.rows.items() if (name, n) == (method, size)]
        if not rows or not all(name in row for row in rows for name in TOKENS):
            return None
        return float(np.mean([sum(row[name] for name in TOKENS) for row in rows]))

    def drift(self, method: str, size: int) -> dict[str, float]:
        """Means over seeds of how far a method moved right and wrong steps; empty where that was not measured."""
        summaries = [summary for (name, n, _), summary in self.drifts.items() if (name, n) == (method, size)]
        return report_data.drift_facts(summaries) if summaries else {}

    def right_pits(self, method: str, size: int) -> float | None:
        """Mean over seeds of the share of pits that are the oracle's first wrong step; None for a method without pits."""
        shares = [share for (name, n, _), share in self.pits.items() if (name, n) == (method, size)]
        return float(np.mean(shares)) if shares else None

    def reference(self, size: int) -> float | None:
        """pi_sft's accuracy on validation, where it is known: of its grid's best point, or of evaluations there."""
        if rows := self.grids.get(size, {}).get("sft"):
            return max(row["validation_accuracy"] for row in rows)
        known = self.config["evaluate"]["split"] == "validation" and ("sft", size) in self.scores
        return self.scores["sft", size].accuracy.value if known else None


def read(config: ConfigDict) -> Study:
    """The rows that the config's results file has of its plan. UsageError where the config names no file or it is not there."""
    if not config.results:
        raise UsageError(f"{config.name} keeps no results file: set config.results")
    nodes = plan(config)
    results = ResultsFile(config.results, nodes)
    if not results.rows:
        raise UsageError(f"{config.results}: no rows there yet; experiments.run with this config writes them")
    rows, problems, drifts, grids, missing = {}, {}, {}, {}, []
    for node in nodes:
        row = results.rows.get(results.keys[node.label])
        if row is None:
            missing += [node.label] if node.label.startswith("evaluate ") else []
        elif found := LABEL.fullmatch(node.label):
            at = (found["method"], int(found["size"] or 0), int(found["seed"] or 0))
            files = unpack(row["files"])
            if found["stage"] == "drift":
                drifts[at] = files["summary.jsonl"][0]
            else:
                rows[at], problems[at] = row | files["row.jsonl"][0], files["problems.jsonl"]
        elif found := report_data.CHOICE.fullmatch(node.label):
            grids.setdefault(int(found["size"]), {})[found["method"]] = unpack(row["files"])["grid.jsonl"]
    scores = _scores(rows, problems)
    listed = list(scores.values())
    scaling = report_data.scaling_of(listed)
    for scored in listed:
        if scaling is not None and 0 < scored.size < scaling.sizes[-1] and scored.method != "sft":
            scored.multiple = report_data.multiple_of(scaling, listed, scored)
    pits = {at: share for at in rows if (share := _right_pits(at, results)) is not None}
    return Study(config.to_dict(), rows, problems, drifts, pits, scores, scaling, grids, missing)


def _right_pits(at: tuple[str, int, int], results: ResultsFile) -> float | None:
    """The share of a method's pits with V(prefix) > 0 that are the oracle's first wrong step, in rounds the mean over them; None
    where it makes no pairs at just these pits, or the oracle or a row is missing."""
    node = results.nodes.get("{} N={} seed={}".format(*at))
    if node is None:
        return None
    trained = [node] if node.stage == "train" else [results.nodes[label] for label in node.inputs.values()]
    shares = []
    for one in trained:
        if one.stage != "train" or "credit" not in one.inputs:
            return None
        _, options = methods.find(one.settings["name"], one.settings)
        credit = one.inputs["credit"]
        settings, row = crediting.DEFAULTS | results.nodes[credit].settings, results.rows.get(results.keys[credit], {})
        others = settings["pits"] != "first" or settings["least_value"] > 0
        if options.get("rows") not in PITTED or others or "usable_pit_is_first_wrong" not in row:
            return None
        shares.append(row["usable_pit_is_first_wrong"])
    return float(np.mean(shares)) if shares else None


def _scores(rows: Mapping, problems: Mapping) -> dict[tuple[str, int], Scores]:
    groups: dict[tuple[str, int], dict[int, tuple]] = {}
    for method, size, seed in rows:
        at = (method, size, seed)
        groups.setdefault((method, size), {})[seed] = (problems[at], rows[at])
    places = sorted(groups, key=lambda place: (place[1], place[0] not in ("base", "sft")))
    return {
        (method, size): report_data.scores_of(method, size, dict(sorted(groups[method, size].items())))
        for method, size in places
    }
