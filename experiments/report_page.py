"""The report as one HTML page: table, figures as inline SVG, settings; it loads nothing from anywhere."""

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from matplotlib.figure import Figure

from experiments.report_data import CONTROL, Report
from experiments.report_table import columns
from experiments.report_words import findings, learner, untrained, verdict, what
from experiments.settings import merged
from synthrl_jax.analysis import figures, heat_map, scaling_figures
from synthrl_jax.analysis.estimate import Estimate
from synthrl_jax.analysis.style import GRID, INK, MUTED, TINT, to_svg
from synthrl_jax.analysis.worked_example import worked_example_plot

STYLE = """
:root { color-scheme: light dark; --ink: INK; --muted: MUTED; --grid: GRID; --tint: TINT; --paper: #ffffff; --code: #f5f7f9; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ec; --muted: #9aa6b2; --grid: #333b44; --tint: #4a3d1c; --paper: #14181d; --code: #1c2229; }
}
body { margin: 0 auto; padding: 2.5rem 1.25rem 5rem; max-width: 60rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.25rem; margin: 2.8rem 0 .7rem; padding-top: .9rem; border-top: 1px solid var(--grid); }
p { margin: .6rem 0; max-width: 48rem; }
.lead { color: var(--muted); margin-top: 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .38rem .7rem; text-align: right; vertical-align: top; border-bottom: 1px solid var(--grid); }
th { font-weight: 600; vertical-align: bottom; border-bottom: 1.5px solid var(--muted); }
th:first-child, td:first-child, .plain td, .plain th { text-align: left; }
td:first-child { white-space: nowrap; }
td small { display: block; color: var(--muted); white-space: nowrap; font-size: .78rem; }
tr.start td { border-bottom-color: var(--muted); }
figure { margin: 1.6rem 0 2.2rem; }
figure svg { display: block; width: 100%; height: auto; }
figcaption { color: var(--muted); font-size: .9rem; margin-top: .6rem; max-width: 48rem; }
figcaption b { color: var(--ink); }
pre, code { font: .84rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { white-space: pre-wrap; background: var(--code); padding: .9rem 1rem; border-radius: 6px; overflow-x: auto; }
.missing { border-left: 4px solid #d55e00; padding: .2rem 1rem; }
summary { cursor: pointer; }
"""


def page(report: Report) -> tuple[str, dict[str, Figure]]:
    """The page's text, and its figures by name."""
    drawn, captions = draw(report), captions_of(report)
    svgs = {name: to_svg(figure, name, captions[name][0]) for name, figure in drawn.items()}
    parts = [
        f"<h1>{escape(report.name)}: credit for each step</h1>",
        f'<p class="lead">{escape(what(report))}.</p>',
        f"<pre>{escape(report.docstring)}</pre>" if report.docstring else "",
        f"<p><strong>{escape(learner(report))}</strong></p>" if learner(report) else "",
        _missing(report),
        "<h2>Results</h2>",
        _result_table(report),
        _legend(report),
        f"<p><strong>{escape(untrained(report))}</strong></p>" if untrained(report) else "",
        _differences(report),
        "<h2>Figures</h2>",
        *(_figure(number, svgs[name], *captions[name]) for number, name in enumerate(svgs, 1)),
        "<h2>From samples to pairs</h2>" if report.samples else "",
        f"<p>{escape(findings(report))}</p>",
        "<h2>How it was run</h2>",
        _settings(report),
        _stages(report),
        f"<details><summary>The whole config</summary><pre>{escape(json.dumps(report.config, indent=1))}</pre></details>",
    ]
    style = STYLE
    for name, colour in {"INK": INK, "MUTED": MUTED, "GRID": GRID, "TINT": TINT}.items():
        style = style.replace(name, colour)
    head = '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
    head += '<meta name="viewport" content="width=device-width, initial-scale=1">'
    head += f"<title>synthrl_jax: {escape(report.name)}</title><style>{style}</style></head>"
    return "\n".join([head, "<body>", *filter(None, parts), "</body></html>\n"]), drawn


def draw(report: Report) -> dict[str, Figure]:
    """The figures for which the run has numbers, by name, in the page's order."""
    out = {}
    groups = {}
    for size in report.sizes or [0]:
        rows = [s for s in report.scores if s.size in (0, size)]
        measures = {"Greedy accuracy": {s.method: s.accuracy for s in rows}}
        if passed := {s.method: s.pass_at_k for s in rows if s.pass_at_k}:
            measures[f"pass@{max(s.k for s in rows)}"] = passed
        if len(rows) > 2 or size == report.main_size:  # a size with SFT alone is in the scaling figure
            groups[f"N = {size:,}" if len(report.sizes) > 1 else ""] = measures
    if report.scores:
        out["accuracy"] = figures.accuracy_plot(groups)
    main = [s for s in report.scores if s.size in (0, report.main_size)]
    if kinds := {s.method: s.kinds for s in main if s.kinds}:
        out["line_kinds"] = figures.line_kinds_plot(kinds)
    if report.example is not None:
        out["worked_example"] = worked_example_plot(report.example)
    if pits := [row for (size, _), rows in report.pits.items() if size == report.main_size for row in rows]:
        out["pits"] = figures.pit_plot(pits)
    if curves := {method: curves for (method, size), curves in report.looks.items() if size == report.main_size}:
        out["validation"] = figures.looks_plot(curves)
    grids = report.grids.get(report.main_size, {})
    if tried := {name: rows for name, rows in grids.items() if name != "sft"}:
        out["heat_maps"] = heat_map.heat_map_plot(tried, _start_accuracy(report))
    if report.scaling is not None:
        error = lambda e: Estimate(1 - e.value, 1 - e.hi, 1 - e.lo)  # noqa: E731
        sft = {s.size: error(s.accuracy) for s in report.scores if s.method == "sft"}
        methods: dict[str, dict[int, Estimate]] = {}
        for s in report.scores:
            if s.multiple is not None:
                methods.setdefault(s.method, {})[s.size] = error(s.accuracy)
        multiples = {(s.method, s.size): s.multiple for s in report.scores if s.multiple is not None}
        law, band, split = report.scaling.law, report.scaling.band, report.split
        out["scaling"] = scaling_figures.scaling_plot(sft, methods, law, band, multiples, split)
    return out


def _start_accuracy(report: Report) -> float | None:
    """pi_sft's validation accuracy at the main size: of its own grid's best point, or of its best looks."""
    if rows := report.grids.get(report.main_size, {}).get("sft"):
        return max(row["validation_accuracy"] for row in rows)
    best = [max(score for _, score in curve) for curve in report.looks.get(("sft", report.main_size), [])]
    return sum(best) / len(best) if best else None


def captions_of(report: Report) -> dict[str, tuple[str, str]]:
    """A title and how to read it, for each figure."""
    k = max((s.k for s in report.scores), default=0)
    at = f" (N = {report.main_size:,})" if len(report.sizes) > 1 else ""
    oracle = any(s.kinds for s in report.scores)
    over = f"over problems{_and_seeds(report)}"
    rule = report.config["credit"]["pit_rule"]
    pit = "the first step of lowest Q" if rule == "first_pit" else f"the step that the rule {rule} chooses"
    if oracle:
        pits = (
            "Left: each wrong response with values is one count, by the step of its pit and the step that the oracle calls its "
            "first wrong one; on the outlined diagonal they agree. Middle: how often the pit is that step, or the step after "
            "which the question can no longer be answered. Right: "
        )
    else:
        pits = "Left: at which step the pits of wrong responses lie. Right: "
    said = " The oracle, which knows the problem's graph, is shown for comparison and takes no part." if oracle else ""
    return {
        "accuracy": (
            "How well each method does",
            f"Share of {report.split} problems answered rightly without sampling, and the chance that one of "
            f"{k} samples is right. Dots are estimates, bars their 95 % intervals {over}; the dashed line is SFT, from which "
            "most methods start. A method is better where its whole bar lies to the right of the line; paired differences, in "
            "the table, are sharper than bars that overlap.",
        ),
        "line_kinds": (
            f"What the lines of answers are{at}",
            f"Every line of the greedy answers to the {report.split} problems, judged by the problem's graph. A needless line is "
            "right but the answer does not depend on it; a leap is right but uses a value that was never stated; the kinds from "
            "'wrong value' on are errors.",
        ),
        "worked_example": (
            "How a wrong answer gets its credit",
            "A sampled wrong response. Q after a step is the chance that one of "
            f"{report.config['credit']['k']} completions from there ends in the right answer, estimated from rollouts; A is the "
            f"change of Q that the step made; the pit is {pit}. Per-step DPO prefers a correct completion from before the pit "
            f"(below) over the step at the pit, and leaves the steps before it alone.{said}",
        ),
        "pits": (
            f"Where the pits are{at}",
            f"{pits}the value of the prefix before the pit; where it is 0 nothing was lost there, and no fork pair is made.",
        ),
        "validation": (
            f"Validation during training{at}",
            "Greedy accuracy on the validation problems at each look; the parameters of the best look are kept. All methods but "
            "rft, which starts from the base model, start from SFT's best look (the dashed line).",
        ),
        "heat_maps": (
            f"Every point of every grid{at}",
            "Validation accuracy of each method at each point of its grid, in one colour scale: white is the policy that most "
            "methods start from, blue better, red worse. The outlined point is the one that was chosen; how much of the map is "
            "red says how much care a method asks for.",
        ),
        "scaling": (
            "What a method is worth in problems",
            "Left: test error against the number of problems, both logarithmic: SFT with its fitted power law and 95 % band, the "
            "methods as points (shifted sideways to be told apart). Right: the efficiency multiple, i.e. how many times the "
            f"problems SFT needs for the method's error, with 95 % intervals {over}; an arrow means 'or more', beyond the "
            f"largest SFT size nothing is extrapolated. {_seed_note(report)}",
        ),
    }


def _and_seeds(report: Report) -> str:
    return " and seeds" if any(len(s.seeds) > 1 for s in report.scores) else ""


def _seed_note(report: Report) -> str:
    seeds = max((len(s.seeds) for s in report.scores), default=0)
    return "One seed: undecided." if seeds == 1 else f"{seeds} seeds." if seeds >= 5 else f"{seeds} seeds: undecided."


def _figure(number: int, svg: str, title: str, text: str) -> str:
    return f"<figure>{svg}<figcaption><b>Figure {number}. {escape(title)}.</b> {escape(text)}</figcaption></figure>"


def _missing(report: Report) -> str:
    if not report.missing:
        return ""
    names = ", ".join(f"<code>{escape(label)}</code>" for label in report.missing)
    return f'<div class="missing"><p><strong>Not finished</strong>, {len(report.missing)} cells: {names}.</p></div>'


def _result_table(report: Report) -> str:
    if not report.scores:
        return "<p>No method has been evaluated yet.</p>"
    shown = columns(report)
    lines = ["<tr>" + "".join(f"<th>{escape(column.title)}</th>" for column in shown) + "</tr>"]
    for scores in report.scores:
        cells = []
        for column in shown:
            interval = column.interval(scores)
            small = f" <small>{escape(interval)}</small>" if interval else ""
            cells.append(f"<td>{escape(column.number(scores)) or '–'}{small}</td>")
        start = ' class="start"' if scores.method in ("base", "sft") else ""
        lines.append(f"<tr{start}>{''.join(cells)}</tr>")
    return f'<div class="wide"><table id="results">{"".join(lines)}</table></div>'


def _legend(report: Report) -> str:
    text = f"In brackets: 95 % bootstrap intervals over the {report.split} problems" + _and_seeds(report) + "."
    if any(s.difference for s in report.scores):
        text += (
            f" 'vs {CONTROL}' is the paired difference of accuracy, in points, to SFT trained for as many updates more."
        )
    if any(s.shares for s in report.scores):
        text += " Shares of steps are of all lines of the greedy answers; the last column is the share of right answers that hold"
        text += " a wrong step."
    if any("drift_responses" in s.facts for s in report.scores):
        text += " 'Lost' and 'moved': how much less likely the method made a step that pi_sft had sampled, and how far it moved"
        text += " it either way, in nats a step; right steps are those that the oracle calls needed."
    return f"<p>{escape(text)}</p>"


def _differences(report: Report) -> str:
    """One sentence for each method; with few seeds it says that nothing is decided."""
    items = []
    for s in report.scores:
        if s.difference is None or s.method in ("sft", CONTROL):
            continue
        value, lo, hi = (100 * x for x in s.difference)
        at = f" at N = {s.size:,}" if len(report.sizes) > 1 else ""
        text = (
            f"{s.method}{at}: {value:+.1f} points of accuracy [{lo:+.1f}, {hi:+.1f}] against {CONTROL}; {verdict(s)}."
        )
        items.append(f"<li>{escape(text)}</li>")
    return f"<ul>{''.join(items)}</ul>" if items else ""


def _flat(entry: Mapping) -> str:
    """Fields of a group and of the groups in it, in words."""
    return ", ".join(_flat(v) if isinstance(v, Mapping) else f"{k.replace('_', ' ')} {v}" for k, v in entry.items())


def _settings(report: Report) -> str:
    c = report.config
    base = c["base"]["pretrained"] or ", ".join(f"{name} {value}" for name, value in c["base"]["decoder"].items())
    source = ", ".join(f"{name} {value}" for name, value in c["problems"]["settings"].items())
    sft = merged(c["train"], c["sft"])
    rate = sft["optimizer"]["learning_rate"]
    own = "".join(f"; at {int(size):,}: {_flat(entry)}" for size, entry in c["sft_by_size"].items())
    lines: dict[str, Any] = {
        "base model": base,
        "problems": f"{c['problems']['source']}{f' ({source})' if source else ''}",
        "training problems": ", ".join(f"{n:,}" for n in c["sizes"]),
        "validation, test": f"{c['validation_problems']:,}, {c['test_problems']:,} problems",
        "seeds": ", ".join(map(str, c["seeds"])),
        "SFT": f"{sft['epochs']:g} epochs, batch {sft['batch']}, learning rate {rate:g}, {sft['looks']} validation looks{own}",
        "samples": f"{c['sample']['n']} a problem, temperature {c['sample']['temperature']:g}",
        "values": f"{c['monte_carlo']['negatives']} wrong responses a problem, {c['monte_carlo']['rollouts']} rollouts a step, "
        f"best of K = {c['credit']['k']}",
        "credit": f"pit rule {c['credit']['pit_rule']}, at most {c['credit']['per_problem']} pairs a problem",
        "evaluation": f"greedy, and {c['evaluate']['n']} samples a problem for pass@{c['evaluate']['k']}",
        "config": f"{report.name}, hash {report.config_hash}" if report.config_hash else report.name,
    }
    listed = [s.method for s in report.scores]
    for name in sorted(c["methods"], key=lambda name: listed.index(name) if name in listed else len(listed)):
        lines[name] = _changes(c["methods"][name])
    if report.machine:
        lines["machine"] = report.machine
    body = "".join(f"<tr><td>{escape(name)}</td><td>{escape(str(text))}</td></tr>" for name, text in lines.items())
    return f'<div class="wide"><table class="plain" id="settings">{body}</table></div>'


def _changes(entry: dict, prefix: str = "") -> str:
    """The fields of a method's entry on one line."""
    found = []
    for name, value in entry.items():
        found.append(_changes(value, f"{name}.") if isinstance(value, dict) else f"{prefix}{name} {value}")
    return ", ".join(filter(None, found))


def _stages(report: Report) -> str:
    if not report.stages:
        return ""
    head = "<tr><th>stage</th><th>cells</th><th>seconds</th><th>first, last finished (UTC)</th><th>commit</th></tr>"
    body = ""
    for row in report.stages:
        dates = " – ".join(dict.fromkeys(row[end].replace("T", " ")[:16] for end in ("first", "last")))
        cells = [row["stage"], row["cells"], f"{row['seconds']:,.1f}", dates, ", ".join(row["commits"])]
        body += "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in cells) + "</tr>"
    total = sum(row["seconds"] for row in report.stages)
    text = (
        f"Together {total / 60:,.1f} minutes of work; workers make cells side by side, so that the clock may show less."
    )
    return f'<p>{text}</p><div class="wide"><table id="stages">{head}{body}</table></div>'
