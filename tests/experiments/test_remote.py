"""Work directories in a bucket that refuses requests now and then, on a file system double."""

import json

import numpy as np
import pytest
from bucket import Bucket, Unavailable, install

from experiments import cells
from experiments.cells import CellStore, Node
from synthrl_jax import remote
from synthrl_jax.credit.example import Example, load_examples, save_examples
from synthrl_jax.learning.metrics import MetricWriter, read_metrics
from synthrl_jax.rollouts import Completion, store


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.0)
    (tmp_path / "b").mkdir()
    install(tmp_path)
    yield tmp_path / "b"
    assert Bucket.refused  # else nothing was tried


def test_what_is_written_is_read_again_through_refusals(bucket):
    place = remote.path("gs://b/run/file.txt")
    for i in range(20):
        place.write_text(f"line {i}\n")
        assert place.read_text() == f"line {i}\n" and place.exists()
    place.write_bytes(b"\x00\x01")
    assert (bucket / "run/file.txt").read_bytes() == b"\x00\x01"
    assert [p.name for p in remote.files(remote.path("gs://b/run"))] == ["file.txt"]


def test_what_is_not_there_is_told_at_once_and_lasting_trouble_after_some_tries(bucket, monkeypatch):
    for _ in range(10):
        assert not remote.path("gs://b/nothing").exists()
        with pytest.raises(FileNotFoundError):
            remote.path("gs://b/nothing").read_text()
    calls = []

    def never():
        calls.append(1)
        raise Unavailable("503")

    with pytest.raises(OSError, match="failed 8 times"):
        remote.retried(never)
    assert len(calls) == remote.TRIES


def test_a_file_whose_writing_breaks_off_is_not_sent(bucket):
    place = remote.path("gs://b/half.txt")
    with pytest.raises(ZeroDivisionError), place.open("wb") as file:
        file.write(b"half")
        1 / 0
    for _ in range(Bucket.EVERY):
        assert not place.exists()


def test_cells_are_made_once_and_found_again(bucket):
    made = []

    def stage(settings, inputs, out, seed, label):
        made.append(label)
        cells.write_atomic(out / "rows.jsonl", json.dumps({"seed": seed}) + "\n")
        save_examples(out / "rows.npz", [Example(np.arange(4), np.ones(4), np.ones(4))])

    found = [
        cells.make(CellStore("gs://b/run"), Node("a cell", "data", {"x": 1}, seed=3), 1, {}, stage) for _ in range(3)
    ]
    assert made == ["a cell"] and len({cell.fingerprint for cell in found}) == 1
    assert str(found[0].path).startswith("gs://b/run/cells/")
    assert load_examples(found[0].path / "rows.npz")[0].tokens.tolist() == [0, 1, 2, 3]
    local = cells.make(CellStore(bucket / "local"), Node("a cell", "data", {"x": 1}, seed=3), 1, {}, stage)
    assert local.fingerprint == found[0].fingerprint  # the same contents, wherever they lie


def test_an_interrupted_cell_is_no_cell_and_its_files_are_there_still(bucket):
    def breaks(settings, inputs, out, seed, label):
        cells.write_atomic(out / "part.txt", "done")
        raise KeyboardInterrupt

    def goes_on(settings, inputs, out, seed, label):
        assert (out / "part.txt").read_text() == "done"

    node = Node("b", "data", {})
    with pytest.raises(KeyboardInterrupt):
        cells.make(CellStore("gs://b/run"), node, 1, {}, breaks)
    assert CellStore("gs://b/run").find(node, cells.key_of(node, 1, {})[0]) is None
    assert cells.make(CellStore("gs://b/run"), node, 1, {}, goes_on).fresh


def test_shards_of_rollouts_and_metrics_lie_in_a_bucket_too(bucket):
    path = remote.path("gs://b/run/completions")
    path.mkdir(parents=True, exist_ok=True)
    rows = [Completion("r", 3, i, (5, 6), (-0.5, -0.25), "stop") for i in range(3)]
    for number in range(4):
        store.write_shard(store.shard_path(path, number), rows, "weights")
        assert list(store.read_shard(store.shard_path(path, number))) == rows
    for start in (-1, 1):
        writer = MetricWriter("gs://b/run/train", resume_after=start, tensorboard=False)
        for step in range(start + 1, 4):
            writer.write(step, {"loss": float(step)})
        writer.sync()  # what a kill after this leaves
        assert len(read_metrics(bucket / "run/train/metrics.jsonl")) == 4
        writer.close()
    assert [row["step"] for row in read_metrics(bucket / "run/train/metrics.jsonl")] == [0, 1, 2, 3]


def test_a_tree_is_copied_without_what_is_left_out(bucket):
    for name in ("a.txt", "policy/w.bin", "deep/b.txt"):
        place = remote.path("gs://b/run") / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(name)
    remote.copy(remote.path("gs://b/run"), bucket / "here", leave=("policy",))
    assert sorted(str(p.relative_to(bucket / "here")) for p in (bucket / "here").rglob("*.txt")) == [
        "a.txt",
        "deep/b.txt",
    ]
    assert not (bucket / "here/policy").exists()


class HttpError(Exception):
    """As gcsfs raises it: no OSError, its status in `code`."""

    def __init__(self, code):
        super().__init__(f"{code}")
        self.code = code


@pytest.mark.parametrize(
    ("error", "tries"),
    [(HttpError(503), 3), (HttpError(429), 3), (ConnectionResetError(), 3), (HttpError(404), 1)]
    + [(OSError("Forbidden: b/x"), 1), (PermissionError("no"), 1), (KeyError("a bug"), 1)],
    ids=str,
)
def test_what_may_pass_is_asked_for_again_and_what_does_not_is_told_at_once(monkeypatch, error, tries):
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.0)
    calls = []

    def twice():
        calls.append(1)
        if len(calls) < 3:
            raise error
        return "there"

    if tries == 3:
        assert remote.retried(twice) == "there"
    else:
        with pytest.raises(type(error)):
            remote.retried(twice)
    assert len(calls) == tries


def test_a_read_that_breaks_off_in_the_middle_goes_on_from_there(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.0)
    data = np.random.default_rng(0).bytes(5_000_000)
    (tmp_path / "file").write_bytes(data)
    opened = []

    class Broken:
        """A connection that is lost after two and a half million bytes."""

        def __init__(self, *_):
            opened.append(1)
            self.file, self.left = (tmp_path / "file").open("rb"), 2_500_000

        def read(self, n):
            self.left -= n
            if self.left < 0:
                raise HttpError(503)
            return self.file.read(n)

        def __getattr__(self, name):
            return getattr(self.file, name)

    class Backend:
        open = staticmethod(Broken)

    file = remote.Retrying(Backend()).open("gs://b/file", "rb")
    file.seek(100_000)
    assert file.read(10) == data[100_000:100_010]
    file.seek(0)
    parts = iter(lambda: file.read(300_000), b"")
    assert b"".join(parts) == data and len(opened) >= 3
    file.seek(-7, 2)
    assert file.read() == data[-7:]
