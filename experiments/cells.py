"""Cells: the result of a stage, kept under a key of everything that decides it, made at most once."""

import dataclasses
import datetime
import fcntl
import hashlib
import json
import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.machine import machine
from synthrl_jax import pod, remote

MANIFEST = "manifest.json"
SHORT = 80  # characters of a value that are shown where it changed
# Not part of a result: how it came to be, and what only an unfinished cell needs.
ASIDE = ("tensorboard", "timing.jsonl", "checkpoints", MANIFEST)


@dataclasses.dataclass(frozen=True)
class Node:
    """A cell to be made: a stage with its settings, its seed, and the nodes whose results it reads, by role."""

    label: str
    stage: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Cell:
    """A finished cell: its directory, key and the fingerprint of its contents."""

    label: str
    path: Path
    key: str
    fingerprint: str
    fresh: bool = False


def key_of(node: Node, version: int, inputs: Mapping[str, Cell]) -> tuple[str, dict]:
    """The cell's key and the identity that it digests."""
    identity = {
        "stage": node.stage,
        "version": version,
        "seed": node.seed,
        "settings": json.loads(json.dumps(node.settings)),
        "inputs": {role: cell.fingerprint for role, cell in inputs.items()},
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12], identity


def fingerprint(directory: Path) -> str:
    """A digest of the contents of a cell: names and bytes of its files, what lies aside left out."""
    digest = hashlib.sha256()
    for path in remote.files(directory):
        name = path.relative_to(directory)
        if name.parts[0] not in ASIDE and not path.name.startswith("."):  # a dot: half a file that a kill left behind
            digest.update(f"{name.as_posix()}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:16]


def manifest_of(cell: Path) -> dict[str, Any]:
    """What decided a finished cell, and how it came to be."""
    return json.loads((cell / MANIFEST).read_text())


class CellStore:
    """The cells of one work directory."""

    def __init__(self, workdir):
        self.root = remote.path(workdir) / "cells"
        self.root.mkdir(parents=True, exist_ok=True)
        self.remote = remote.is_remote(workdir)

    def path(self, node: Node, key: str) -> Path:
        return self.root / f"{slug(node.label)}-{key}"

    def find(self, node: Node, key: str) -> Cell | None:
        """The finished cell of a node, or None."""
        path = self.path(node, key)
        if not (path / MANIFEST).exists():
            return None
        return Cell(node.label, path, key, manifest_of(path)["fingerprint"])

    def begin(self, node: Node, key: str) -> Path:
        """The directory in which the cell is made; what an interrupted run left there is there still."""
        partial = self._partial(node, key)
        partial.mkdir(exist_ok=True)
        return partial

    def _partial(self, node: Node, key: str) -> Path:
        """Beside the cell's place; in a bucket, where nothing can be renamed, the place itself: a cell is what has a manifest."""
        path = self.path(node, key)
        # not with_suffix: a label may hold dots, as `dpo [0.3]` does
        return path if self.remote else path.with_name(f"{path.name}.partial")

    def finish(self, node: Node, key: str, identity: dict, seconds: float) -> Cell:
        """Write the manifest and move the cell to its place."""
        partial, path = self._partial(node, key), self.path(node, key)
        remote.remove_tree(partial / "checkpoints")
        for hidden in [p for p in remote.files(partial) if p.name.startswith(".")]:
            hidden.unlink()
        mark = fingerprint(partial)
        manifest = {"label": node.label, "key": key, **identity, "fingerprint": mark, "commit": _commit()}
        manifest |= {
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "seconds": round(seconds, 1),
            "hardware": machine(),
        }
        write_atomic(partial / MANIFEST, json.dumps(manifest, indent=1) + "\n")
        if partial != path:
            partial.rename(path)
        return Cell(node.label, path, key, mark, fresh=True)

    def what_changed(self, node: Node, identity: dict) -> str:
        """Why there is no cell yet, where another one of this label exists: the fields that differ from the latest one."""
        others = [
            p for p in self.root.glob(f"{slug(node.label)}-*/{MANIFEST}") if p.parent.name[:-13] == slug(node.label)
        ]
        if not others:
            return ""
        found = [json.loads(path.read_text()) for path in others]
        alike = [manifest for manifest in found if manifest["stage"] == node.stage]
        latest = max(alike or found, key=lambda manifest: manifest["date"])
        if not alike:  # such as a result that a study's file holds: no other field is comparable
            identity = {"stage": node.stage}
        return "; ".join(differences({k: latest[k] for k in identity}, identity))


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """The leaves at which two JSON values differ, as `path old -> new`."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            line
            for name in sorted(set(old) | set(new))
            for line in differences(old.get(name), new.get(name), f"{path}.{name}".lstrip("."))
        ]
    return [] if old == new else [f"{path} {_short(old)} -> {_short(new)}"]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHORT else f"{text[:SHORT]}..."


def make(store: CellStore, node: Node, version: int, inputs: Mapping[str, Cell], function) -> Cell:
    """The node's cell, made by `function(settings, inputs, out, seed, label)` if it does not exist yet."""
    if pod.count() > 1:
        return _make_together(store, node, version, inputs, function)
    key, identity = key_of(node, version, inputs)
    if (found := store.find(node, key)) is not None:
        return found
    if changed := store.what_changed(node, identity):
        print(f"{node.label}: a new cell, for {changed}", flush=True)
    out, began = store.begin(node, key), time.monotonic()
    if store.remote:
        function(dict(node.settings), {role: cell.path for role, cell in inputs.items()}, out, node.seed, node.label)
        return store.finish(node, key, identity, time.monotonic() - began)
    with (out / ".lock").open("w") as held:
        # A worker that outlived a killed run may still be writing here for a moment.
        fcntl.flock(held, fcntl.LOCK_EX)
        function(dict(node.settings), {role: cell.path for role, cell in inputs.items()}, out, node.seed, node.label)
        return store.finish(node, key, identity, time.monotonic() - began)


def _make_together(store: CellStore, node: Node, version: int, inputs: Mapping[str, Cell], function) -> Cell:
    """`make` by all processes of a pod: the first one looks, begins and finishes, all do the work."""
    key, identity = key_of(node, version, inputs)
    mark = pod.agree(f"{node.label} found", (found := store.find(node, key)) and found.fingerprint)
    if mark is not None:
        return Cell(node.label, store.path(node, key), key, mark)
    began = time.monotonic()
    if pod.first():
        if changed := store.what_changed(node, identity):
            print(f"{node.label}: a new cell, for {changed}", flush=True)
        store.begin(node, key)
    pod.barrier(f"{node.label} begins")
    out = store._partial(node, key)
    function(dict(node.settings), {role: cell.path for role, cell in inputs.items()}, out, node.seed, node.label)
    pod.barrier(f"{node.label} ends")
    if pod.first():
        mark = store.finish(node, key, identity, time.monotonic() - began).fingerprint
    mark = pod.agree(f"{node.label} made", mark)
    return Cell(node.label, store.path(node, key), key, mark, fresh=True)


class Lock:
    """One run at a time in a local work directory (a pod's first process holds it); BlockingIOError names the other one."""

    def __init__(self, workdir):
        if remote.is_remote(workdir) or not pod.first():
            return
        Path(workdir).mkdir(parents=True, exist_ok=True)
        self._file = (Path(workdir) / "run.lock").open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BlockingIOError(
                f"{workdir}: another run works there; wait for it or give another --workdir"
            ) from None


def write_atomic(path: Path, text: str) -> None:
    """Write beside the place and rename, so that nobody sees half a file. Of a pod the first process writes for all."""
    if not pod.first():
        return
    if not isinstance(path, Path):
        path.write_text(text)  # an object of a bucket is there as a whole or not at all
        return
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    beside.write_text(text)
    beside.replace(path)


def slug(label: str) -> str:
    return "".join(c if c.isalnum() or c in "._" else "-" for c in label).strip("-")


def _commit() -> str:
    try:
        command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
