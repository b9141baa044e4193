"""A study's results as a file in the repository: a row for each finished cell, from which a fresh checkout goes on.

A row is known by the settings of its cell and of all that the cell comes from, so a cell with a row need not be made again, nor
what only it needs.
"""

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import methods
from experiments.artifacts import read_jsonl
from experiments.cells import MANIFEST, Cell, Node, write_atomic
from experiments.report_credit import pit_facts
from experiments.stages import STAGES
from synthrl_jax.problems.oracle import KINDS

ENDS = ("evaluate", "choose", "drift")  # what a study wants; every other cell is made for one of these
# What a stage's tokens are: trained on (each epoch anew), sampled from prompts, or drawn as rollouts from steps.
TOKENS = {"sft": "train_tokens", "train": "train_tokens", "grade": "sample_tokens", "values": "rollout_tokens"}
APART = (
    "choice",
    "validation",
    "test",
)  # inputs whose cost is not a policy's own: tuning, which all methods share, and data


def static_keys(nodes: Sequence[Node]) -> dict[str, str]:
    """Label -> digest of a node's settings, seed, stage version and those of everything that it comes from."""
    keys: dict[str, str] = {}
    for node in nodes:
        inputs = {role: keys[label] for role, label in sorted(node.inputs.items())}
        identity = [node.stage, STAGES[node.stage][1], node.settings, node.seed, inputs]
        keys[node.label] = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    return keys


class ResultsFile:
    """The rows of one study, by key. `nodes` is the whole plan; rows of settings that it no longer asks for stay in the file."""

    def __init__(self, path: str | Path, nodes: Sequence[Node]):
        self.path = Path(path)
        self.nodes = {node.label: node for node in nodes}
        self.keys = static_keys(nodes)
        self.tokens: dict[str, int] = {}
        self.rows: dict[str, dict] = {}
        if self.path.exists():
            self.rows = {row["key"]: row for row in json.loads(self.path.read_text())}

    def progress(self, nodes: Sequence[Node]) -> str:
        """Where the study stands, in a line."""
        wanted = [node for node in nodes if node.stage in ENDS]
        there = sum(self.keys[node.label] in self.rows for node in wanted)
        return f"{self.path}: {there} of {len(wanted)} results are there, {len(wanted) - there} to do"

    def remaining(self, nodes: Sequence[Node]) -> list[Node]:
        """What is left to make: cells with a row become copies of it, and what only they came from is left out."""
        known = {node.label: self.rows[self.keys[node.label]] for node in nodes if self.keys[node.label] in self.rows}
        settled = {label for label, row in known.items() if row["stage"] in ENDS}
        wanted = {node.label for node in nodes if node.stage in ENDS}
        for node in reversed(nodes):  # each comes after its inputs
            if node.label in wanted and node.label not in settled:
                wanted.update(node.inputs.values())
        out = []
        for node in nodes:
            if node.label in settled:
                out.append(Node(node.label, "recorded", {"stage": node.stage, "files": known[node.label]["files"]}))
            elif node.label in wanted:
                out.append(node)
        return out

    def add(self, node: Node, cell: Cell, **about: Any) -> None:
        """Write the row of a finished cell, if it is of a kind that has one."""
        if node.stage in TOKENS:
            self.tokens[node.label] = read_jsonl(cell.path / "summary.jsonl")[0]["tokens"]
        if node.stage not in (*ENDS, "credit") or self.keys[node.label] in self.rows:
            return
        row = {
            "label": node.label,
            "stage": node.stage,
            "key": self.keys[node.label],
            **summary_of(node.stage, cell.path),
        }
        manifest = json.loads((cell.path / MANIFEST).read_text())
        row |= {name: manifest[name] for name in ("commit", "date", "hardware") if name in manifest} | about
        if node.stage == "evaluate":
            row |= self.spent(node.inputs["policy"])
        if node.stage in ENDS:
            row["files"] = pack(cell.path)
        self.rows[row["key"]] = row
        rows = sorted(self.rows.values(), key=lambda row: (row["label"], row["key"]))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self.path, "[\n" + ",\n".join(json.dumps(row, sort_keys=True) for row in rows) + "\n]\n")

    def spent(self, policy: str) -> dict[str, int]:
        """Tokens of a policy's training and of all that it comes from, by kind; nothing where a cell's number is not known.

        Rollouts (and samples) do not count for a method that has no use for them, though its rows were made beside others'.
        """
        found, waiting = set(), [policy]
        while waiting:
            node = self.nodes[label := waiting.pop()]
            if label in found:
                continue
            found.add(label)
            apart = APART
            if node.stage == "train":
                apart += methods.find(node.settings["name"], node.settings)[0].unused
            waiting += [label for role, label in node.inputs.items() if role not in apart]
        counted = [label for label in found if self.nodes[label].stage in TOKENS]
        if any(label not in self.tokens for label in counted):
            return {}
        out = dict.fromkeys(TOKENS.values(), 0)
        for label in counted:
            out[TOKENS[self.nodes[label].stage]] += self.tokens[label]
        return out


def summary_of(stage: str, path: Path) -> dict[str, Any]:
    """The numbers of a cell that a reader of the file wants to see."""
    if stage == "evaluate":
        return read_jsonl(path / "row.jsonl")[0]
    if stage == "choose":
        return {"choice": read_jsonl(path / "choice.jsonl")[0]}
    if stage == "drift":
        return read_jsonl(path / "summary.jsonl")[0]
    return read_jsonl(path / "summary.jsonl")[0] | pit_facts(read_jsonl(path / "pits.jsonl"))


def pack(path: Path) -> dict[str, str]:
    """A cell's JSONL files as text; the rows of problems.jsonl as columns of small counts, compressed (a byte a number)."""
    files = {}
    for name in ("row.jsonl", "choice.jsonl", "grid.jsonl", "summary.jsonl"):
        if (path / name).exists():
            files[name] = (path / name).read_text()
    if (path / "problems.jsonl").exists():
        rows = read_jsonl(path / "problems.jsonl")
        outcomes = sorted({row["outcome"] for row in rows})
        columns = {"outcome": [outcomes.index(row["outcome"]) for row in rows]}
        columns |= {name: [row[name] for row in rows] for name in ("samples", "correct")}
        if all("greedy" in row for row in rows):
            columns |= {f"greedy {kind}": [row["greedy"].get(kind, 0) for row in rows] for kind in KINDS}
        header = {"ids": _compressed("\n".join(row["id"] for row in rows).encode()), "outcomes": outcomes}
        packed = {name: _compressed(np.array(column, np.uint8).tobytes()) for name, column in columns.items()}
        files["problems.jsonl"] = json.dumps(header | {"columns": packed}, sort_keys=True)
    return files


def unpack(files: Mapping[str, str]) -> dict[str, list[dict]]:
    """The rows of each file of `pack`."""
    out = {name: [json.loads(line) for line in text.splitlines()] for name, text in files.items()}
    if "problems.jsonl" in files:
        packed = json.loads(files["problems.jsonl"])
        columns = {n: np.frombuffer(_restored(c), np.uint8).tolist() for n, c in packed["columns"].items()}
        rows = []
        for i, name in enumerate(_restored(packed["ids"]).decode().split("\n")):
            row = {"id": name, "outcome": packed["outcomes"][columns["outcome"][i]]}
            row |= {field: columns[field][i] for field in ("samples", "correct")}
            if f"greedy {KINDS[0]}" in columns:
                counts = {kind: columns[f"greedy {kind}"][i] for kind in KINDS}
                row["greedy"] = {kind: count for kind, count in counts.items() if count}
            rows.append(row)
        out["problems.jsonl"] = rows
    return out


def _compressed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 9)).decode()


def _restored(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text))
