"""The rollout bench: one row a sampler with the keys that its readers rely on; a peer that fails costs its row only."""

import json

import pytest

from experiments.bench import rollouts

KEYS = {"sampler", "size", "workload", "compile_seconds", "prefill_tokens_per_second", "decode_tokens_per_second"}
KEYS |= {"tokens_per_second", "host_share", "idle_row_steps", "kv_bytes", "of_bound", "ratio_to_grouped", "date"}


@pytest.fixture
def small_work(monkeypatch):
    """A few roots of the tiny workload, and a machine that is not measured."""
    whole = rollouts.rollout_work.workload

    def cut(name, size):
        work = whole(name, size)
        return rollouts.rollout_work.Workload(work.roots[:6], work.max_tokens, work.temperature)

    monkeypatch.setattr(rollouts.rollout_work, "workload", cut)
    monkeypatch.setattr(rollouts, "machine", lambda: {"gemm_flops": 1e11, "copy_bytes_per_second": 1e10})


def test_both_samplers_have_a_row_of_every_figure(small_work, tmp_path, capsys):
    flags = "--samplers=static,grouped,tunix --workloads=groups --sizes=tiny --repeats=1 --rows=16"
    file = tmp_path / "deep" / "rows.json"
    code = rollouts.main([*flags.split(), "--tunix-python", str(tmp_path / "none"), "--json", str(file)])
    static, grouped = json.loads(file.read_text())
    assert code == 0 and "tunix         not installed" in capsys.readouterr().out
    for row in (static, grouped):
        assert set(row) >= KEYS
        assert 0 < row["host_share"] < 1 and 0 <= row["idle_row_steps"] < 1 and row["of_bound"] < 1
    assert static["tokens"] == grouped["tokens"]
    assert grouped["kv_bytes"] < static["kv_bytes"]  # 16 rows a root: prefixes are shared
    assert grouped["ratio_to_grouped"] == 1.0


def test_a_peer_that_fails_costs_its_row_only(small_work, tmp_path, capsys):
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nexit 7\n")
    broken.chmod(0o755)
    flags = "--samplers=tunix,static --workloads=plain --sizes=tiny --repeats=1 --rows=16"
    file = tmp_path / "rows.json"
    code = rollouts.main([*flags.split(), "--tunix-python", str(broken), "--json", str(file)])
    assert code == 1 and "tunix         failed: tunix ended with code 7" in capsys.readouterr().out
    assert [row["sampler"] for row in json.loads(file.read_text())] == ["static"]


def test_a_peer_that_runs_a_sample_of_the_work_gets_batches_of_middling_prefixes(small_work, tmp_path):
    peer, job = tmp_path / "python", tmp_path / "job.json"
    peer.write_text(f"#!/bin/sh\ncat > {job}\nexit 7\n")
    peer.chmod(0o755)
    flags = f"--samplers=tunix --workloads=plain --sizes=tiny --rows=2 --peer-batches=3 --tunix-python={peer}"
    assert rollouts.main(flags.split()) == 1
    lengths = sorted((len(root.tokens) for root in rollouts.rollout_work.workload("plain", "tiny").roots), reverse=True)
    assert [len(prefix) for prefix in json.loads(job.read_text())["prefixes"]] == lengths[2:4]
