"""The scale model: its pieces by hand, and that work and time add up."""

import json

import numpy as np
import pytest

from experiments.bench import scale


def test_a_batch_takes_as_long_as_its_busiest_row():
    assert scale.makespan([5, 1, 1, 1], rows=2) == 5
    assert scale.makespan([3, 3, 3], rows=1) == 9
    assert scale.makespan([4, 2], rows=8) == 4


def test_equal_lengths_leave_nothing_idle_and_unequal_shares_do():
    drawn = np.array([[10, 40]] * 5)  # 4 rows, all of them busy
    whole = scale.simulate(drawn, work=400, shard=4, rows=4, processes=10, seed=0)
    assert whole["tail_idle"] == 0 and whole["straggler_idle"] == 0 and whole["idle"] == 0 and whole["steps"] == 100
    uneven = scale.simulate(drawn, work=44, shard=4, rows=4, processes=10, seed=0)  # 11 shards: one process has two
    assert uneven["straggler_idle"] == pytest.approx(1 - 11 / 20)


def test_lengths_follow_the_measured_ones():
    rng = np.random.default_rng(0)
    tokens = scale.lengths(np.array([29, 58]), 1000, 2.9, rng)
    assert set(tokens.tolist()) == {10, 20}
    shipped = scale.lengths(None, 20_000, 1.0, rng)
    assert np.median(shipped) == pytest.approx(scale.MEASURED[5], rel=0.05)


def test_the_command_s_rows_add_up(tmp_path, capsys):
    flags = ["--problems=100", "--negatives=2", "--steps=3", "--rollouts=4", "--rows=16", "--shard-roots=10"]
    assert scale.main([*flags, "--chips=4,16", "--json", str(tmp_path / "rows.json")]) == 0
    one, four, *stages = json.loads((tmp_path / "rows.json").read_text())
    assert one["rollouts"] == four["rollouts"] == 100 * 2 * 3 * 4
    assert four["processes"] == 4 and four["hours"] < one["hours"]
    assert one["tokens_per_second"] * one["hours"] * 3600 == pytest.approx(one["tokens"])
    by_stage = {row["stage"]: row for row in stages}
    assert by_stage["values"]["shards"] == one["shards"] == 20  # 200 roots, 10 a shard
    assert by_stage["sample"]["files"] == 10 + 2 and by_stage["values"]["stored_bytes"] > one["stored_bytes"]
    assert (
        scale.main(["--chips=0"]) == 2 and scale.main(["--chips=four"]) == 2 and scale.main(["--step-seconds=0"]) == 2
    )
    assert scale.main(["--lengths=nowhere.jsonl"]) == 2 and scale.main(["--rows=0"]) == 2
    assert all(len(line.splitlines()) == 1 for line in capsys.readouterr().err.strip().split("\n"))


def test_fewer_chips_than_a_replica_take_as_much_longer(tmp_path):
    flags = ["--problems=50", "--negatives=1", "--steps=2", "--rollouts=2", "--rows=8", "--shard-roots=10"]
    assert scale.main([*flags, "--chips=1,4", "--json", str(tmp_path / "rows.json")]) == 0
    one, four, *_ = json.loads((tmp_path / "rows.json").read_text())
    assert one["hours"] == pytest.approx(4 * four["hours"])


def test_what_breaks_first_is_named():
    def breaks(**changes):
        base = {
            "objects_bytes": 0,
            "host_hours": 0.0,
            "hours": 1.0,
            "grading_cores_per_host": 0,
            "straggler_idle": 0,
            "tail_idle": 0,
            "manifest_files": 1,
        }
        return scale.breaks(base | changes, type("Options", (), {"host_bytes": 100e9, "host_cores": 8}))

    assert breaks(host_hours=0.2).startswith("counting")
    assert breaks() == "nothing" and breaks(objects_bytes=60e9).startswith("host memory")
    assert breaks(grading_cores_per_host=9).startswith("grading") and breaks(straggler_idle=0.2).startswith(
        "stragglers"
    )
