"""How right and how fast grading is: agreement per data set and kind, every miss, and math-verify side by side.

    python -m experiments.bench.grading [--json FILE] [--shared DIR] [--peer-python PYTHON]

Reads the optional shared data sets. The peer, math-verify 0.8, runs in the same command from an interpreter that has it:
`python -m venv .mv && .mv/bin/pip install 'math-verify[antlr4_13_2]==0.8.0'`, then `--peer-python .mv/bin/python`.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from synthrl_jax import grading

HOW_TO_INSTALL = (
    "python -m venv .mv && .mv/bin/pip install 'math-verify[antlr4_13_2]==0.8.0'; --peer-python .mv/bin/python"
)
PEER = Path(__file__).with_name("math_verify_peer.py")
REPEATS = 5


def shared_directory(given: str | None) -> Path:
    """The shared data: --shared, else SYNTHRL_SHARED, else beside the repository."""
    root = Path(given or os.environ.get("SYNTHRL_SHARED") or Path(__file__).resolve().parents[3] / "shared")
    if not (root / "data" / "grading").exists():
        raise SystemExit(f"no grading data under {root}: pass --shared DIR or set SYNTHRL_SHARED")
    return root / "data"


def read(path: Path) -> Iterator[dict]:
    """Rows of a JSONL file."""
    with path.open() as lines:
        for line in lines:
            yield json.loads(line)


def case_verdict(row: dict) -> bool:
    """Whether our grader holds a grader case for equal."""
    if row["kind"] in ("delimited", "free_text"):
        return grading.grade(row["prediction"], row["gold"], row["kind"]).outcome == "correct"
    return grading.equivalent(row["gold"], row["prediction"])


def judged_cases(data: Path) -> Iterator[tuple[str, str, object, object, dict]]:
    """(data set, kind, expected, ours, what to show of a miss) of every row that is not dubious."""
    for row in read(data / "grading" / "grader_cases.jsonl"):
        if not row.get("dubious"):
            show = {"gold": row["gold"], "prediction": row["prediction"]}
            yield "grader_cases", row["kind"], row["expected_equal"], case_verdict(row), show
    for row in read(data / "grading" / "extraction_cases.jsonl"):
        ours = grading.extract(row["text"], row["kind"])
        yield "extraction_cases", row["kind"], row["expected"], ours, {"prediction": row["text"]}
    for row in read(data / "grading" / "graded_outputs.jsonl"):
        if not row.get("dubious"):
            show = {"gold": row["gold"], "prediction": row["extracted"]}
            yield (
                "graded_outputs",
                row["dataset"],
                row["label"],
                grading.equivalent(row["gold"], row["extracted"]),
                show,
            )
    for text, gold, label in gsm8k_solutions(data):
        verdict = grading.grade(text, gold, "a_colon")
        show = {"gold": gold, "prediction": str(verdict.extracted), "reason": verdict.reason}
        yield "gsm8k_solutions", "a_colon", label, verdict.outcome == "correct", show


def gsm8k_solutions(data: Path) -> Iterator[tuple[str, str, bool]]:
    """(solution, gold answer, is_correct) of the example model solutions to GSM8K's test problems."""
    for row in read(data / "gsm8k" / "example_model_solutions.jsonl"):
        gold = grading.extract(row["ground_truth"], "a_colon")
        for solution in row.values():
            if isinstance(solution, dict):
                yield solution["solution"], gold, solution["is_correct"]


def agreement(data: Path) -> list[dict]:
    """One row per data set and kind, a total without `latex_vs_sympy_str`, and one row per miss."""
    counts: dict[tuple[str, str], list[int]] = {}
    misses = []
    for name, kind, expected, ours, show in judged_cases(data):
        count = counts.setdefault((name, kind), [0, 0])
        count[0] += 1
        count[1] += expected == ours
        if expected != ours:
            misses.append({"metric": "miss", "data": name, "kind": kind, "expected": expected, "ours": ours, **show})
    rows = [_share(name, kind, *count) for (name, kind), count in counts.items()]
    for name in dict.fromkeys(name for name, _ in counts):
        parts = [count for (n, kind), count in counts.items() if n == name and kind != "latex_vs_sympy_str"]
        rows.append(
            _share(name, "all" if name != "grader_cases" else "all but latex_vs_sympy_str", *map(sum, zip(*parts)))
        )
    return rows + misses


def _share(name: str, kind: str, total: int, agreed: int) -> dict:
    return {"metric": "agreement", "data": name, "kind": kind, "rows": total, "agree": agreed, "share": agreed / total}


def gsm8k_speed(data: Path) -> list[dict]:
    """GSM8K verdicts a second in one process: extraction and comparison of whole solutions."""
    rows = [(text, gold) for text, gold, _ in gsm8k_solutions(data)]
    rates = []
    for _ in range(REPEATS):
        start = time.process_time()
        for text, gold in rows:
            grading.grade(text, gold, "a_colon")
        rates.append(len(rows) / (time.process_time() - start))
    return [_rate("synthrl_jax", "gsm8k", len(rows), statistics.median(rates))]


def math_rows(data: Path) -> list[tuple[str, str, bool]]:
    """(gold, prediction, expected) of the cases that look like MATH answers: bare pairs with some LaTeX in them."""
    return [
        (row["gold"], row["prediction"], row["expected_equal"])
        for row in read(data / "grading" / "grader_cases.jsonl")
        if row["kind"] in ("bare", "model_answer_pair")
        and not row.get("dubious")
        and "\\" in row["gold"] + row["prediction"]
        and len(row["prediction"]) < 200
    ]


def math_speed(data: Path, peer_python: str) -> list[dict]:
    """Verdicts a second on the MATH-like rows, ours and math-verify's in turn, each in one fresh process."""
    rows = math_rows(data)
    found = []
    for grader in ("synthrl_jax", "math-verify"):
        rates, verdicts = [], []
        for _ in range(3):
            answer = _peer(grader, rows, peer_python)
            if answer is None:
                print(f"math-verify is not there for {peer_python}; to measure it: {HOW_TO_INSTALL}", file=sys.stderr)
                return found
            rates.append(len(rows) / answer["seconds"])
            verdicts = answer["verdicts"]
        agreed = sum(verdict == expected for verdict, (_, _, expected) in zip(verdicts, rows))
        found.append(
            _rate(grader, "math", len(rows), statistics.median(rates)) | {"agree": agreed, "share": agreed / len(rows)}
        )
    return found


def _peer(grader: str, rows: list, peer_python: str) -> dict | None:
    python = sys.executable if grader == "synthrl_jax" else peer_python
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": root if grader == "synthrl_jax" else ""}
    done = subprocess.run(
        [python, str(PEER), grader],
        input=json.dumps(rows),
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if done.returncode == 3:
        return None
    if done.returncode:
        raise SystemExit(f"{grader} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _rate(grader: str, workload: str, rows: int, rate: float) -> dict:
    hardware = {"python": platform.python_version(), "machine": platform.machine(), "cores": 1}
    return {
        "metric": "speed",
        "grader": grader,
        "workload": workload,
        "rows": rows,
        "verdicts_per_second": rate,
        **hardware,
    }


def show(rows: list[dict]) -> None:
    """Print the tables and the misses."""
    for row in rows:
        if row["metric"] == "agreement":
            print(f"{row['data']:18} {row['kind']:28} {row['agree']:5} of {row['rows']:5}  {row['share']:8.2%}")
    for row in rows:
        if row["metric"] == "speed":
            share = f"  agreement {row['share']:.2%}" if "share" in row else ""
            print(
                f"{row['grader']:12} {row['workload']:6} {row['verdicts_per_second']:10,.0f} verdicts/s per core{share}"
            )
    for row in rows:
        if row["metric"] == "miss":
            print("miss", {key: value for key, value in row.items() if key != "metric"})


def main() -> None:
    """Measure, print, and write the rows with --json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE", type=Path)
    parser.add_argument(
        "--shared", metavar="DIR", help="directory that holds data/ (default: SYNTHRL_SHARED, ../shared)"
    )
    parser.add_argument("--peer-python", default=os.environ.get("MATH_VERIFY_PYTHON", sys.executable))
    options = parser.parse_args()
    data = shared_directory(options.shared)
    rows = agreement(data) + gsm8k_speed(data) + math_speed(data, options.peer_python)
    show(rows)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1, ensure_ascii=True) + "\n")


if __name__ == "__main__":
    main()
