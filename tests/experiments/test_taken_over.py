"""The point of a grid that was chosen is not trained twice on a seed that the grid was searched on."""

import json
from pathlib import Path

import pytest

from experiments import training
from experiments.cells import CellStore, Node, fingerprint, make
from experiments.fields import point_name
from experiments.settings import load_config, merged
from experiments.stages import STAGES
from experiments.stages.train import taken_over, with_choice

ROOT = Path(__file__).resolve().parents[2]
POINT = {"epochs": 5.0, "optimizer": {"learning_rate": 1e-3}}  # a default of `train`, written out
VERSION = STAGES["sft"][1]


def write(name, text):
    return lambda settings, inputs, out, seed, label: (out / name).write_text(text)


def policy(settings, inputs, out, seed, label):
    for name in ("policy", "checkpoints", "tensorboard"):
        (out / name).mkdir()
        (out / name / "file").write_text(f"of seed {seed}")


@pytest.fixture
def searched(tmp_path):
    """(settings of the chosen cell, its inputs, the point's cell, a directory to write to)"""
    store, train = CellStore(tmp_path), load_config(str(ROOT / "configs" / "tiny.py")).to_dict()["train"]
    settings = {"train": training.without_defaults(merged(train, {"looks": 3})), "prompt": "{question}\n"}
    base = make(store, Node("base", "base", {}), 1, {}, write("text", "a"))
    changed = training.without_defaults(merged(train, {"looks": 3}, POINT))
    name = f"{point_name('sft', POINT)} N=48 seed=0"
    node = Node(name, "sft", {**settings, "train": changed}, {"base": "base"})
    point = make(store, node, VERSION, {"base": base}, policy)
    choice = json.dumps({"point": POINT, "validation_accuracy": 0.5}) + "\n"
    choose = make(store, Node("choose sft N=48", "choose", {}), 1, {}, write("choice.jsonl", choice))
    out = tmp_path / "cells" / "out.partial"
    out.mkdir()
    return settings, {"base": base.path, "choice": choose.path}, point.path, out


def asked(settings, inputs, out, seed=0, size=48):
    return taken_over("sft", with_choice(settings, inputs), inputs, out, seed, f"sft N={size} seed={seed}")


def test_the_chosen_cell_is_the_point_s_to_the_byte(searched):
    settings, inputs, point, out = searched
    assert asked(settings, inputs, out)
    assert fingerprint(out) == fingerprint(point)
    assert sorted(path.name for path in out.iterdir()) == ["policy"]


@pytest.mark.parametrize(
    "change", ["seed", "size", "settings", "inputs", "version", "stage", "unfinished", "no choice", "pod"]
)
def test_whatever_differs_is_trained(searched, change, monkeypatch):
    settings, inputs, point, out = searched
    place, about = point / "manifest.json", {}
    if change == "size":
        about = {change: 7}
    elif change == "seed":  # as of a seed that differs only in the sampling key, as a round's does
        place.write_text(json.dumps(json.loads(place.read_text()) | {"seed": 7}))
    elif change == "stage":  # a method that was of rounds before: its point's cell has no settings
        place.write_text(json.dumps(json.loads(place.read_text()) | {"stage": "best", "settings": {}}))
    elif change == "settings":
        settings = merged(settings, {"train": {"looks": 4}})
    elif change == "inputs":
        (inputs["base"] / "manifest.json").write_text(json.dumps({"fingerprint": "other"}))
    elif change == "version":
        place.write_text(json.dumps(json.loads(place.read_text()) | {"version": VERSION - 1}))
    elif change == "pod":
        monkeypatch.setattr("experiments.stages.train.pod.count", lambda: 2)
    elif change == "unfinished":
        place.unlink()
    else:
        inputs = {"base": inputs["base"]}
    assert not asked(settings, inputs, out, **about)
    assert not list(out.iterdir())
