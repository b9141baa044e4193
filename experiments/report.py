"""The report of a run: a result table for the terminal, flat rows for --json, and a self-contained page of figures.

python -m experiments.report --workdir=runs/quickstart [--json FILE]     makes it again from the cells of a finished run
"""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

from experiments.cells import MANIFEST, Cell, write_atomic
from experiments.machine import machine
from experiments.report_data import CONTROL, Report, Scores, collect
from experiments.report_table import table
from synthrl_jax.analysis.estimate import Estimate

__all__ = ["Report", "collect", "finish", "render", "rows", "table"]


def rows(report: Report) -> list[dict[str, Any]]:
    """One flat object for each evaluation, and for each row of the table that is a mean over seeds (`seed` is then None)."""
    means = [s for s in report.scores if len(s.seeds) > 1]
    return [_flat(report, s) for s in [*report.by_seed, *means]]


def _flat(report: Report, scores: Scores) -> dict[str, Any]:
    one = len(scores.seeds) == 1
    row: dict[str, Any] = {"method": scores.method, "size": scores.size, "seed": scores.seeds[0] if one else None}
    row |= {"seeds": len(scores.seeds), **_ends("accuracy", scores.accuracy), **_ends("pass_at_k", scores.pass_at_k)}
    row |= {"k": scores.k} if scores.pass_at_k else {}
    for name, estimate in scores.shares.items():
        row |= _ends(name, estimate)
    row |= scores.facts
    for name, estimate in scores.elsewhere.items():
        row |= _ends(f"accuracy_{name}", estimate)
    row |= _ends(f"minus_{CONTROL}", scores.difference)
    if scores.multiple is not None:
        cap = max(report.scaling.sizes) / scores.size
        row |= _ends("multiple", Estimate(*(min(end, cap) for end in scores.multiple)))
        row |= {f"multiple{end}_at_least": value > cap for end, value in zip(("", "_lo", "_hi"), scores.multiple)}
    if scores.method == "sft" and one:
        row |= report.samples.get((scores.size, scores.seeds[0]), {})
    settings = {"config": report.name, "config_hash": report.config_hash, "source": report.config["problems"]["source"]}
    for name, value in report.config["problems"]["settings"].items():
        if not isinstance(value, dict | list | tuple):
            settings[f"problems_{name}"] = value
    return {
        name: round(v, 6) if isinstance(v, float) and math.isfinite(v) else v for name, v in (row | settings).items()
    }


def _ends(name: str, estimate: Estimate | None) -> dict[str, float]:
    return {} if estimate is None else {name: estimate.value, f"{name}_lo": estimate.lo, f"{name}_hi": estimate.hi}


def render(report: Report, out_dir) -> Path:
    """Write index.html, which needs no other file, and figures/*.png; returns the page's path."""
    from experiments.report_page import page
    from synthrl_jax.analysis.style import save_png

    out = Path(out_dir)
    (out / "figures").mkdir(parents=True, exist_ok=True)
    text, figures = page(report)
    for name, figure in figures.items():
        save_png(figure, out / "figures" / f"{name}.png")
    write_atomic(out / "index.html", text)
    return out / "index.html"


def read_run(workdir) -> Report:
    """The report of the run that wrote workdir/run.json; cells whose directory is gone count as missing."""
    workdir = Path(workdir)
    run = json.loads((workdir / "run.json").read_text())
    cells = {}
    for label, place in run["cells"].items():
        if (workdir / place / MANIFEST).exists():
            manifest = json.loads((workdir / place / MANIFEST).read_text())
            cells[label] = Cell(label, workdir / place, manifest["key"], manifest["fingerprint"])
    about = {
        "config_hash": run["config_hash"],
        "docstring": run["docstring"],
        "machine": run.get("machine") or machine(),
    }
    return collect(run["config"], cells, **about)


def finish(workdir, json_path: str | None = None) -> str:
    """Make the report of a finished run in workdir/report; returns the table and where the page is."""
    report = read_run(workdir)
    place = render(report, Path(workdir) / "report")
    if json_path:
        Path(json_path).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(Path(json_path), json.dumps(rows(report), indent=1) + "\n")
    return f"\n{table(report)}\n\nThe page: {place}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, help="the work directory of a finished run")
    parser.add_argument("--json", help="write the result table's rows to this file")
    args = parser.parse_args(argv)
    if not (Path(args.workdir) / "run.json").exists():
        print(f"error: {args.workdir}: no run.json there; experiments.run writes it at its end", file=sys.stderr)
        return 2
    print(finish(args.workdir, args.json))
    return 0


if __name__ == "__main__":
    sys.exit(main())
