"""The README's TPU section, followed word for word with the fake gcloud, and a real run through three preemptions."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cloud import ROOT, Cloud

SMALL = {"sizes": "16", "test_problems": "8", "validation_problems": "4"}
SMALL |= {"sample.shard_roots": "4", "monte_carlo.shard_roots": "4"}  # a share of the shards for each process


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture
def pod(tmp_path):
    """A cloud whose two workers run this package with this Python, as two processes."""
    cloud = Cloud(tmp_path)
    address = f"127.0.0.1:{free_port()}"
    common = {"SYNTHRL_PYTHON": sys.executable, "JAX_PLATFORMS": "cpu", "SYNTHRL_QUIET": "1", "OMP_NUM_THREADS": "1"}
    common["JAX_COMPILATION_CACHE_DIR"] = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "compiled"))
    common["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    each = {str(i): {"SYNTHRL_DISTRIBUTED": f"{address},2,{i}"} for i in range(2)}
    cloud.script(common=common, environment=each)
    yield cloud
    cloud.kill()


def commands() -> list[str]:
    """The lines of the README's block that begins with the env file."""
    section = (ROOT / "README.md").read_text().split("## TPU\n")[1].split("\n## ")[0]
    [block] = [b for b in re.findall(r"```\n(.*?)```", section, re.DOTALL) if "create.sh" in b]
    return block.strip().splitlines()


def smaller(flags: dict) -> str:
    return " ".join(f"--config.{name}={value}" for name, value in flags.items())


def until(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_the_commands_dry_run_as_they_stand(tmp_path):
    """In seconds: every command of the section exists, takes its flags, and prints what it would call."""
    cloud = Cloud(tmp_path)
    for line in commands()[1:]:
        script, _, rest = line.partition(" ")
        done = cloud.call(script.removeprefix("tpu_scripts/"), "--dry-run", *rest.split())
        assert all(command.startswith(("gcloud ", "bash ")) for command in done.stdout.splitlines())
    assert cloud.calls() == []


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_commands_end_in_a_run_of_two_processes(pod, tmp_path):
    """Copied lines but for the sizes: the env file is filled in with a directory that both workers see."""
    home = tmp_path / "checkout"
    home.mkdir()
    (home / "tpu_scripts").symlink_to(ROOT / "tpu_scripts")
    for line in commands():
        if "run.sh" in line:
            line += " " + smaller(SMALL)
        subprocess.run(["bash", "-c", line], cwd=home, env={**pod.environment, "TPU_ENV": "tpu.env"}, check=True)
        if line.startswith("cp "):
            (home / "tpu.env").write_text(pod.env_file.read_text())
    until(lambda: pod.call("status.sh").stdout.count("ended") == 2, 1500)
    assert pod.call("status.sh").stdout.count("ended 0") == 2, pod.call("logs.sh", "--worker=all").stdout
    assert "2 processes" in (pod.workdir / "logs" / "pod-w-0.log").read_text()
    assert (pod.workdir / "report" / "index.html").exists()
    compared = stages_agree(pod.workdir, tmp_path / "alone")
    assert compared == {"data", "base", "sft", "sample", "grade", "positives", "values", "credit", "train", "evaluate"}


def stages_agree(workdir: Path, directory: Path) -> set[str]:
    """Make every cell of the two processes' run again in this one, from the inputs that they had, and compare the two; the
    stages that were."""
    from experiments.cells import Cell, CellStore, make
    from experiments.graph import plan
    from experiments.settings import load_config, override
    from experiments.stages import find_stage

    config = load_config(str(ROOT / "configs" / "tiny.py"))
    for name, value in SMALL.items():
        override(config, name, value)
    places = json.loads((workdir / "run.json").read_text())["cells"]
    nodes = plan(config)
    assert {node.label for node in nodes} == set(places)
    marks = {label: json.loads((workdir / place / "manifest.json").read_text()) for label, place in places.items()}
    theirs = {label: Cell(label, workdir / places[label], m["key"], m["fingerprint"]) for label, m in marks.items()}
    rows = alike = 0
    for node in nodes:
        function, version = find_stage(node.stage)
        inputs = {role: theirs[label] for role, label in node.inputs.items()}
        own = make(CellStore(directory), node, version, inputs, function)
        assert own.fresh, node.label
        if own.fingerprint != theirs[node.label].fingerprint:
            n, same = compare(own.path, theirs[node.label].path, node.label)
            rows, alike = rows + n, alike + same
    assert alike >= 0.95 * rows  # near ties may fall the other way
    return {node.stage for node in nodes}


def compare(own: Path, other: Path, label: str) -> tuple[int, int]:
    """Parameters and losses to tolerance; of rows (and completions) how many there are and how many are the same."""
    import jax
    import numpy as np

    from synthrl_jax.policy import load_pretrained
    from synthrl_jax.rollouts import read_store

    names = [sorted(str(p.relative_to(place)) for p in place.glob("*.jsonl")) for place in (own, other)]
    assert names[0] == names[1], label
    if (own / "policy").exists():
        params = [jax.tree.leaves(load_pretrained(str(place / "policy")).params) for place in (own, other)]
        for a, b in zip(*params, strict=True):
            # Adam divides a gradient by its own size: where it is near zero the order of a sum decides a whole step
            off = np.abs(np.asarray(a) - np.asarray(b))
            assert (off > 2e-4).mean() < 1e-3 and off.max() < 1e-2, (label, off.max())
        metrics = [[json.loads(line) for line in (p / "metrics.jsonl").read_text().splitlines()] for p in (own, other)]
        np.testing.assert_allclose(*([row["loss"] for row in found] for found in metrics), rtol=1e-3, err_msg=label)
        return 0, 0
    pairs = []
    if (own / "completions").exists():
        drawn = [
            sorted((c.root_id, c.fork, c.index, c.tokens) for c in read_store(p / "completions")) for p in (own, other)
        ]
        pairs.append(drawn)
    for name in names[0]:
        if name not in ("summary.jsonl", "row.jsonl"):  # numbers of these rows
            pairs.append([(place / name).read_text().splitlines() for place in (own, other)])
    assert pairs and all(len(a) == len(b) for a, b in pairs), label
    return sum(len(a) for a, _ in pairs), sum(x == y for a, b in pairs for x, y in zip(a, b))


ONE_METHOD = """
from configs import tiny

def get_config():
    c = tiny.get_config()
    c.sizes, c.test_problems, c.validation_problems, c.mesh.data = (16,), 8, 4, 2
    c.sample.shard_roots, c.monte_carlo.shard_roots = 4, 4
    c.sft.update({"epochs": 0.0, "updates": 4, "looks": 2})
    c.methods = {"dpo_per_step": c.methods.dpo_per_step}
    return c
"""


def parameters(workdir):
    """The bytes of the final policy of every trained cell."""
    cells = json.loads((workdir / "run.json").read_text())["cells"]
    return {
        label: (workdir / place / "policy" / "model.safetensors").read_bytes()
        for label, place in cells.items()
        if (workdir / place / "policy" / "model.safetensors").exists()
    }


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_three_kills_end_with_the_parameters_of_a_run_without_them(pod, tmp_path):
    """SFT, samples and DPO on two processes, killed (-9, machines gone) in training, in sampling and in the method."""
    (tmp_path / "one.py").write_text(ONE_METHOD)
    flags = ["--restarts=6", "--backoff=0", "--", f"--config={tmp_path / 'one.py'}"]
    done = pod.call("babysit.sh", f"--workdir={tmp_path / 'whole'}", "--poll=0.5", *flags, code=None)
    assert done.returncode == 0, done.stderr[-1000:] + pod.call("logs.sh", "--worker=all", code=None).stdout
    pod.call("delete.sh", "--yes")
    sitter = pod.start("babysit.sh", f"--workdir={pod.workdir}", "--poll=0.5", *flags)
    for moment in ("sft-*.partial/checkpoints/*", "values-*.partial/completions/*", "dpo_*.partial/metrics.jsonl"):
        until(lambda moment=moment: list((pod.workdir / "cells").glob(moment)), 900)
        pod.preempt()
        until(
            lambda: not (pod.fake / "nodes/pod.json").exists() or "READY" in (pod.fake / "nodes/pod.json").read_text(),
            60,
        )
    assert sitter.wait(1500) == 0
    whole, killed = parameters(tmp_path / "whole"), parameters(pod.workdir)
    assert whole and whole == killed
