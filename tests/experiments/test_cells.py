"""Cells: made once, keyed by what decides them, never half there."""

import json

import pytest

from experiments import cells
from experiments.cells import CellStore, Node, make


def write(settings, inputs, out, seed, label):
    text = inputs["before"].joinpath("text").read_text() if inputs else ""
    (out / "text").write_text(f"{text}{settings['word']}{seed}")


def explode(settings, inputs, out, seed, label):
    (out / "text").write_text("half")
    raise RuntimeError("killed")


def forbidden(*args):
    raise AssertionError("a finished cell was made again")


def chain(store, word="a", seed=0, version=1, function=write):
    first = make(store, Node("first", "stage", {"word": word}, seed=seed), version, {}, function)
    return first, make(store, Node("second", "stage", {"word": "b"}, {"before": "first"}), 1, {"before": first}, write)


def test_a_finished_cell_is_reused(tmp_path):
    store = CellStore(tmp_path)
    first, second = chain(store)
    assert (second.path / "text").read_text() == "a0b0"
    assert make(store, Node("first", "stage", {"word": "a"}), 1, {}, forbidden).key == first.key


@pytest.mark.parametrize("change", [{"word": "c"}, {"seed": 1}, {"version": 2}])
def test_what_decides_a_cell_makes_a_new_one_and_is_named(tmp_path, capsys, change):
    store = CellStore(tmp_path)
    first, second = chain(store)
    again, later = chain(store, **change)
    assert again.key != first.key
    out = capsys.readouterr().out
    assert "first: a new cell, for" in out and next(iter(change)) in out
    # A later cell is keyed by the contents of its inputs: what changed nothing leaves it alone.
    assert (later.key == second.key) == ("version" in change)


def test_a_cell_of_another_stage_and_a_long_value_are_told_in_a_line(tmp_path, capsys):
    store, long = CellStore(tmp_path), "x" * 10_000
    chain(store)
    make(store, Node("first", "recorded", {"files": long}), 1, {}, lambda *_: None)
    make(store, Node("first", "recorded", {"files": long + "y"}), 1, {}, lambda *_: None)
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("first: ")]
    assert told[0] == "first: a new cell, for stage 'stage' -> 'recorded'"
    assert "settings.files" in told[1] and len(told[1]) < 300


def test_a_cell_that_was_not_finished_is_no_cell(tmp_path):
    store = CellStore(tmp_path)
    with pytest.raises(RuntimeError):
        chain(store, function=explode)
    first, _ = chain(store)
    assert (first.path / "text").read_text() == "a0"
    assert not list(store.root.glob("*.partial"))


def test_cells_in_the_making_do_not_share_a_directory(tmp_path):
    store, places = CellStore(tmp_path), set()
    for label, seed in (
        ("dpo [0.0001] N=10 seed=0", 0),
        ("dpo [0.0003] N=10 seed=0", 0),
        ("dpo [0.0003] N=10 seed=1", 1),
    ):
        node = Node(label, "train", {"label": label}, seed=seed)
        key, identity = cells.key_of(node, 1, {})
        places.add(store.begin(node, key))
        (store.begin(node, key) / "text").write_text(label)
    assert len(places) == 3
    assert (
        store.finish(node, key, identity, 0.0).path == store.path(node, key) and len(list(tmp_path.rglob("text"))) == 3
    )


def test_the_fingerprint_is_of_contents_alone(tmp_path):
    marks = []
    for name in ("x", "y"):
        cell, _ = chain(CellStore(tmp_path / name))
        marks.append(cell.fingerprint)
        assert json.loads((cell.path / cells.MANIFEST).read_text())["fingerprint"] == cell.fingerprint
        (cell.path / "tensorboard").mkdir()
        (cell.path / "tensorboard" / "events").write_text(name)
        assert cells.fingerprint(cell.path) == cell.fingerprint
    assert marks[0] == marks[1]
    (cell.path / "text").write_text("a1")
    assert cells.fingerprint(cell.path) != marks[0]
