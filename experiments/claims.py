"""The paper's claims from a study's results file: experiments/results/claims.json, claims_by_setting.json, and three figures.

    python -m experiments.claims --config=configs/arithmetic_scaling.py [--json FILE] [--only-settings] [--table]
                                 [--compare=METHOD,OTHER]

It reads the results file that the config names and nothing of the work directory. Each claim is read at `config.main_size`, or
where that is 0 at the largest of `config.sizes` that SFT's curve exceeds 16 times. Accuracy is greedy, error is 1 - accuracy; the
*multiple* of a method at N is the k for which SFT on k * N problems has its error, by the law log err = c - b log D fitted to
SFT's sizes.

| claim | value | holds if the 95 % interval lies | the paper's size |
|---|---|---|---|
| C1 | b, the exponent with which SFT's error falls with problems | above 0 | meets 0.05 .. 0.15 |
| C2 | multiple of `rft`, positives of one sampling of pi_sft | above 1 | 2 |
| C4 | share of right answers that hold a wrong step: `rft` minus the same with 1 positive a problem | above 0 | above 0 |
| C5 | accuracy of `config.main_outcome` minus pi_sft's | at or below 0, and per-step minus outcome above 0 | at or below 0 |
| C6 | multiple of `config.main_method`, per-step DPO | above 1 | 8 |
| C8 | share of right answers that hold a wrong step: advantage filtering minus `rft` | below 0 | below 0 |

Intervals are paired bootstraps over test problems and seeds. A claim fails where its interval lies on the other side (C5: also
where per-step DPO lies below outcome DPO). It is undecided with fewer than 5 seeds, with a cell missing, or read on validation.
A multiple beyond the largest SFT size is not known: `value` (or an end) is then that bound, and `metric` says ">=" (as measured
likewise "<=" below the smallest). Since a law may bend, C1's `metric` has the exponents of the lower and the upper sizes, and
C2's and C6's the multiple read off SFT's errors as they were measured, C6's also its ratio to `main_outcome`'s (each at most the
largest SFT size).
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments import comparison, study_table
from experiments import study as studies
from experiments.cells import write_atomic
from experiments.report_data import ENOUGH_SEEDS, RESAMPLES
from experiments.run import config_hash
from experiments.settings import UsageError, parse_flags
from experiments.study import Study
from synthrl_jax.analysis import scaling_law
from synthrl_jax.analysis.estimate import Estimate

RESULTS = Path("experiments/results")
# Which methods of a config stand for the claims; C5 and C6 are `config.main_outcome` and `config.main_method`.
RFT, FEWER_POSITIVES, FILTERED = "rft", "rft_1", "advantage_filtered"
SHARE = "right_with_wrong_step"
PAPER_EXPONENTS = (0.05, 0.15)
FIELDS = ("claim", "metric", "value", "lo", "hi", "verdict", "paper_size_reached", "study", "config_hash", "seeds")
FIELDS += ("hardware", "date")


def claims(study: Study, digest: str) -> list[dict[str, Any]]:
    """One row for each claim, with the fields of FIELDS."""
    made = [_exponent(study), _multiple(study, "C2", RFT, 2), _share(study, "C4", RFT, FEWER_POSITIVES, 1)]
    made += [_outcome(study), _multiple(study, "C6", study.config["main_method"], 8)]
    made += [_share(study, "C8", FILTERED, RFT, -1)]
    about = {"study": study.config["name"], "config_hash": digest, **_where(study)}
    return [{name: (row | about)[name] for name in FIELDS} for row in made]


def _where(study: Study) -> dict[str, str]:
    """The machines that made the results, and the day of the last one."""
    machines = sorted({row["hardware"] for row in study.rows.values() if "hardware" in row})
    dates = [row["date"] for row in study.rows.values() if "date" in row]
    return {"hardware": "; ".join(machines) or "not recorded", "date": max(dates, default="")[:10]}


def _row(study: Study, claim: str, metric: str, estimate: Estimate | None, **about: Any) -> dict[str, Any]:
    """A claim's row; `lacking` says what is missing, `holds` and `fails` what the intervals say, `cells` whose seeds count."""
    seeds, split = len(study.seeds(*about["cells"])), study.config["evaluate"]["split"]
    notes = [about["note"]] if about.get("note") else []
    notes += [f"missing: {about['lacking']}"] if estimate is None else []
    notes += ["read on validation"] if split != "test" else []
    verdict = "undecided"
    if estimate is not None and seeds >= ENOUGH_SEEDS and split == "test":
        verdict = "holds" if about["holds"] else "fails" if about["fails"] else "undecided"
    ends = dict.fromkeys(("value", "lo", "hi")) if estimate is None else estimate._asdict()
    return {
        "claim": claim,
        "metric": "; ".join([metric, *notes]),
        **{name: None if end is None else round(end, 6) for name, end in ends.items()},
        "verdict": verdict,
        "paper_size_reached": bool(estimate is not None and about["reached"]),
        "seeds": seeds,
    }


def _sft_sizes(study: Study) -> list[int]:
    return sorted({*study.config["sizes"], *study.config["sft_sizes"]})


def _exponent(study: Study) -> dict[str, Any]:
    sizes = _sft_sizes(study)
    metric = "exponent b of SFT's greedy error, err ~ D^-b, fitted over " + ", ".join(f"{size:,}" for size in sizes)
    cells = [("sft", size) for size in sizes]
    lacking = [f"sft N={size}" for size in sizes if ("sft", size) not in study.scores]
    if lacking or study.scaling is None:
        return _row(study, "C1", metric, None, cells=cells, lacking=", ".join(lacking) or "three sizes of SFT")
    right = {size: study.scores["sft", size].right for size in sizes}
    lo, hi = scaling_law.exponent_interval(right, resamples=RESAMPLES)
    reached = lo <= PAPER_EXPONENTS[1] and hi >= PAPER_EXPONENTS[0]
    estimate = Estimate(study.scaling.law.b, lo, hi)
    if len(sizes) >= 4:  # one line, or a bend?
        middle = len(sizes) // 2
        halves = [_exponent_of({size: right[size] for size in half}) for half in (sizes[: middle + 1], sizes[middle:])]
        metric += f"; {_short(halves[0])} up to {sizes[middle]:,}, {_short(halves[1])} from there"
    return _row(study, "C1", metric, estimate, cells=cells, holds=lo > 0, fails=hi < 0, reached=reached)


def _exponent_of(right: Mapping[int, Any]) -> Estimate:
    law = scaling_law.fit(list(right), [1 - cell.mean() for cell in right.values()])
    return Estimate(law.b, *scaling_law.exponent_interval(right, resamples=RESAMPLES))


def _multiple(study: Study, claim: str, method: str, paper: float) -> dict[str, Any]:
    size = study.main_size
    metric = f"efficiency multiple of {method} at N = {size:,} (times the problems that SFT needs for its greedy error)"
    cells = [(method, size), *(("sft", n) for m, n in study.scores if m == "sft")]
    scores = study.scores.get((method, size))
    if study.scaling is None or scores is None or scores.multiple is None:
        lacking = f"{method} N={size}" if scores is None else "three sizes of SFT, the largest above the method's"
        return _row(study, claim, metric, None, cells=cells, lacking=lacking)
    estimate, beyond = capped(scores.multiple, study.largest / size)
    notes = [f"{' and '.join(beyond)} >= {study.largest / size:g}: beyond the largest SFT size"] if beyond else []
    notes += [f"SFT ends at {study.largest / size:g} x N, 16 x are wanted"] if study.largest < 16 * size else []
    if (measured := study.measured_multiple(method, size)) is not None:
        notes += [f"off SFT's measured errors {_short(measured, study.largest / size, study.smallest / size)}"]
    other = study.config["main_outcome"]
    if claim == "C6" and (ratio := study.multiple_ratio(method, other, size)) is not None:
        notes += [f"over {other}'s: {_short(ratio)} times"]
        notes[-1] += f", as measured {_short(study.multiple_ratio(method, other, size, measured=True))}"
    absent = [f"sft N={n}" for n in _sft_sizes(study) if ("sft", n) not in study.scores]
    notes += [f"without {', '.join(absent)}"] if absent else []
    whole = not absent  # without all sizes of SFT nothing is decided
    told = {"holds": whole and estimate.lo > 1, "fails": whole and estimate.hi < 1}
    told |= {"reached": estimate.value >= paper, "note": "; ".join(notes)}
    return _row(study, claim, metric, estimate, cells=cells, **told)


def _short(estimate: Estimate, largest: float = math.inf, smallest: float = 0) -> str:
    """value [lo, hi] of a multiple for a line of text; beyond the ends of SFT's sizes it is not known."""

    def end_of(one: float) -> str:
        if one > largest * (1 + 1e-9):
            return f">= {largest:g}"
        return f"<= {smallest:g}" if one <= smallest * (1 + 1e-9) else f"{one:.3g}"

    value, lo, hi = map(end_of, estimate)
    return f"{value} [{lo}, {hi}]"


def capped(multiple: Estimate, largest: float) -> tuple[Estimate, list[str]]:
    """The multiple with nothing beyond `largest`, and which of value, lo and hi were beyond it."""
    beyond = [name for name, end in multiple._asdict().items() if end > largest * (1 + 1e-9)]
    return Estimate(*(min(end, largest) for end in multiple)), beyond


def _outcome(study: Study) -> dict[str, Any]:
    size, main, outcome = study.main_size, study.config["main_method"], study.config["main_outcome"]
    metric = f"greedy accuracy of {outcome} minus that of sft at N = {size:,}"
    cells = [("sft", size), (outcome, size), (main, size)]
    difference, above = study.difference(outcome, "sft", size), study.difference(main, outcome, size)
    lacking = ", ".join(f"{name} N={n}" for name, n in cells if (name, n) not in study.scores) or "seeds of all of them"
    if difference is None or above is None:
        return _row(study, "C5", metric, None, cells=cells, lacking=lacking)
    metric += f"; {main} minus {outcome}: {above.value:+.4f} [{above.lo:+.4f}, {above.hi:+.4f}]"
    holds, fails = difference.hi <= 0 and above.lo > 0, difference.lo > 0 or above.hi < 0
    told = {"holds": holds, "fails": fails, "reached": difference.value <= 0}
    return _row(study, "C5", metric, difference, cells=cells, **told)


def _share(study: Study, claim: str, first: str, second: str, direction: int) -> dict[str, Any]:
    size = study.main_size
    metric = f"share of right greedy answers that hold a wrong step, {first} minus {second} at N = {size:,}"
    cells = [(first, size), (second, size)]
    found = study.share_difference(first, second, size, SHARE)
    lacking = ", ".join(f"{name} N={n}" for name, n in cells if (name, n) not in study.scores) or "the oracle's counts"
    if found is None:
        return _row(study, claim, metric, None, cells=cells, lacking=lacking)
    accuracy = study.difference(first, second, size)
    metric += f"; accuracy, likewise: {accuracy.value:+.4f} [{accuracy.lo:+.4f}, {accuracy.hi:+.4f}]"
    low, high = sorted((direction * found.lo, direction * found.hi))
    told = {"holds": low > 0, "fails": high < 0, "reached": low > 0}
    return _row(study, claim, metric, found, cells=cells, **told)


def by_setting(study: Study, digest: str) -> list[dict[str, Any]]:
    """A row for each method and size: accuracy, pass@k, multiple, wrong steps in right answers, tokens, multiple per compute.

    compute: training tokens plus sampled and rolled-out ones, all that came before included, over SFT's at the same size.
    """
    settings = _flat("problems", study.config["problems"]["settings"])
    settings["sample_temperature"] = study.config["sample"]["temperature"]
    about = {"study": study.config["name"], "config_hash": digest, "split": study.config["evaluate"]["split"]}
    out = []
    for (method, size), scores in study.scores.items():
        row = {**about, **settings, "method": method, "title": study.config["titles"].get(method, method)}
        row |= {"size": size, "seeds": len(scores.seeds)}
        row |= _ends("accuracy", scores.accuracy) | _ends(f"pass_at_{scores.k}", scores.pass_at_k)
        row |= _ends(SHARE, scores.shares.get(SHARE))
        gaps = study.gaps(method, size)
        row |= _ends("with_gap", gaps.get("with_gap")) | _ends("right_without_gap", gaps.get("right_without_gap"))
        multiple, beyond = None, []
        if scores.multiple is not None:
            multiple, beyond = capped(scores.multiple, study.largest / size)
        row |= _ends("multiple", multiple) | {"multiple_at_least": "value" in beyond}
        measured = study.measured_multiple(method, size)
        measured, beyond = capped(measured, study.largest / size) if measured else (None, [])
        row |= _ends("multiple_measured", measured) | {"multiple_measured_at_least": "value" in beyond}
        below = measured is not None and measured.value <= study.smallest / size * (1 + 1e-9)
        row |= {"multiple_measured_at_most": below}  # SFT's smallest size already has the error
        if method not in ("base", "sft"):
            row |= _ends("minus_sft", study.difference(method, "sft", size))
        tokens, plain = study.tokens(method, size), study.tokens("sft", size)
        row |= {"tokens": tokens, "compute": tokens / plain if tokens and plain else None}
        per = multiple.value / row["compute"] if multiple is not None and row["compute"] else None
        row |= {"multiple_per_compute": per, "pit_is_first_wrong": study.right_pits(method, size)}
        row |= {**study.drift(method, size), **_where(study)}
        out.append({k: round(v, 6) if isinstance(v, float) and math.isfinite(v) else v for k, v in row.items()})
    return out


def _flat(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Groups of settings as single fields, `problems_difficulty_steps`; ranges as lists, as JSON gives them back."""
    out: dict[str, Any] = {}
    for field, value in settings.items():
        place = f"{name}_{field}"
        out |= (
            _flat(place, value)
            if isinstance(value, Mapping)
            else {place: list(value) if isinstance(value, tuple) else value}
        )
    return out


def _ends(name: str, estimate: Estimate | None) -> dict[str, float | None]:
    value, lo, hi = estimate or (None, None, None)
    return {name: value, f"{name}_lo": lo, f"{name}_hi": hi}


def figures(study: Study) -> dict[str, Any]:
    """The study's figures by name, those for which there are numbers."""
    from synthrl_jax.analysis import heat_map, scaling_figures

    out = {}
    if study.scaling is not None:
        error = lambda e: Estimate(1 - e.value, 1 - e.hi, 1 - e.lo)  # noqa: E731
        sft = {size: error(s.accuracy) for (method, size), s in study.scores.items() if method == "sft"}
        methods: dict[str, dict[int, Estimate]] = {}
        for (method, size), s in study.scores.items():
            if s.multiple is not None:
                methods.setdefault(method, {})[size] = error(s.accuracy)
        split = study.config["evaluate"]["split"]
        names = study.config["titles"]
        out["error"] = scaling_figures.error_plot(sft, methods, study.scaling.law, study.scaling.band, split, names)
        if methods:
            order = lambda at: (at[1], study.scores[at].multiple.value)  # noqa: E731
            places = sorted((at for at, s in study.scores.items() if s.multiple is not None), key=order)
            multiples = {at: study.scores[at].multiple for at in places}
            measured = {at: study.measured_multiple(*at) for at in places}
            out["multiples"] = scaling_figures.multiple_plot(multiples, study.largest, names, measured)
    size = study.main_size
    if grids := {name: rows for name, rows in study.grids.get(size, {}).items() if name != "sft"}:
        out["heat_maps"] = heat_map.heat_map_plot(grids, study.reference(size))
    return out


def merged_settings(old: list[dict], new: list[dict]) -> list[dict]:
    """The new rows, and those old ones that are of another study, split, setting of the problems or sampling temperature."""

    def setting(row: Mapping) -> str:
        kept = {
            k: v for k, v in row.items() if k in ("study", "split", "sample_temperature") or k.startswith("problems_")
        }
        return json.dumps(kept, sort_keys=True)

    known = {setting(row) for row in new}
    return [row for row in old if setting(row) not in known] + new


def write(config: ConfigDict, directory: Path, only_settings: bool = False) -> tuple[Study, list[dict], list[dict]]:
    """Make the files and figures in the directory; returns the study, the claims' rows and the settings' rows."""
    study, digest = studies.read(config), config_hash(config)
    rows = claims(study, digest)
    directory.mkdir(parents=True, exist_ok=True)
    if not only_settings:
        write_atomic(directory / "claims.json", json.dumps(rows, indent=1) + "\n")
    place = directory / "claims_by_setting.json"
    old = json.loads(place.read_text()) if place.exists() else []
    settings = by_setting(study, digest)
    lines = ",\n".join(json.dumps(row) for row in merged_settings(old, settings))
    write_atomic(place, f"[\n{lines}\n]\n")
    if drawn := figures(study):
        from synthrl_jax.analysis.style import save_png

        (directory / study.config["name"]).mkdir(exist_ok=True)
        for name, figure in drawn.items():
            save_png(figure, directory / study.config["name"] / f"{name}.png")
    return study, rows, settings


def text(study: Study, rows: list[dict]) -> str:
    """The claims for a terminal, a line each, and what is missing."""
    lines = []
    for row in rows:
        number = lambda name, row=row: "-" if row[name] is None else f"{row[name]:.3g}"  # noqa: E731
        ends = f"{number('value'):>7} [{number('lo')}, {number('hi')}]"
        lines.append(f"{row['claim']}  {row['verdict']:9}  {ends:24}  {row['seeds']} seeds  {row['metric']}")
    if study.missing:
        lines.append(f"\n{len(study.missing)} evaluations have no row yet: {', '.join(study.missing[:8])}")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="write the claims' rows to this file too")
    parser.add_argument("--only-settings", action="store_true", help="leave claims.json alone: this is no main setting")
    parser.add_argument("--table", action="store_true", help="print the study's rows as a Markdown table too")
    parser.add_argument(
        "--compare", help="METHOD,OTHER[,...]: only say how the first differs from the others; writes nothing"
    )
    parser.add_argument("--out", default=str(RESULTS), help="the directory of the result files")
    try:
        args, config = parse_flags(parser, argv)
        if args.compare is not None:
            print(comparison.text(studies.read(config), args.compare.split(",")))
            return 0
        study, rows, settings = write(config, Path(args.out), args.only_settings)
    except (UsageError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.json:
        Path(args.json).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(Path(args.json), json.dumps(rows, indent=1) + "\n")
    print(text(study, rows))
    if args.table:
        print("\n" + study_table.markdown(settings, study.config["titles"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
