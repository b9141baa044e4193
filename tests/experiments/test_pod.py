"""Several processes as one run: they agree, share, wait, say who is missing, and end together."""

import concurrent.futures
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from synthrl_jax import hello, pod
from tests.xla_flags import UNOPTIMISED

ROOT = Path(__file__).resolve().parents[2]
PROCESS = Path(__file__).parent / "pod_process.py"
ENV = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": UNOPTIMISED, "SYNTHRL_QUIET": "1", "JAX_PLATFORMS": "cpu"}


def free_port() -> str:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


def start(*command):
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        env=ENV,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def play(what, directory, seconds=120):
    """Both processes to their ends: (code, output, errors) of each."""
    port = free_port()
    processes = [start(PROCESS, what, port, index, directory) for index in range(2)]
    done = [process.communicate(timeout=seconds) for process in processes]
    return [(process.returncode, *texts) for process, texts in zip(processes, done)]


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    directory = tmp_path_factory.mktemp("pod")
    ended = play("together", directory)
    for index in range(2):
        assert (directory / f"{index}.json").exists(), ended[index]
    return [json.loads((directory / f"{index}.json").read_text()) for index in range(2)], ended


def test_one_process_is_a_pod_of_its_own():
    assert (pod.index(), pod.count(), pod.first()) == (0, 1, True)
    assert pod.agree("x", 3) == 3 and pod.exchange(b"a") == [b"a"]
    assert pod.shared(["a", "b"], lambda places: [i * 2 for i in places]) == [0, 2]
    pod.barrier("alone")
    pod.fail("nobody to tell")


@pytest.mark.parametrize("text", ["here", "host,2,0", "host:1,2,2", "host:1,two,0"])
def test_a_wrong_flag_is_told(text):
    with pytest.raises(ValueError, match="distributed"):
        pod.parse(text)


def test_all_take_the_first_one_s_value(together):
    assert [report["agreed"] for report in together[0]] == ["from 0", "from 0"]


def test_work_is_shared_by_id_and_joined_in_order(together):
    first, second = (report["share"] for report in together[0])
    assert sorted(first + second) == list(range(20)) and first and second
    for report in together[0]:
        assert report["shared"] == [[i, int(i in second)] for i in range(20)]


def test_the_banner_names_the_run_and_a_disagreement_stops_it(together):
    for report in together[0]:
        assert "2 processes" in report["banner"] and "config=same" in report["banner"] and "jax=" in report["banner"]
        assert report["disagreement"] == "processes disagree on config: process 0 'of 0', process 1 'of 1'"


def test_a_barrier_says_who_is_missing_and_stacks_are_dumped_everywhere(together):
    reports, ended = together
    assert "'nobody comes'" in reports[0]["missing"] and "process 1 of 2 is not there" in reports[0]["missing"]
    assert "'grading'" in reports[0]["idle"] and "process 1 of 2 is not there" in reports[0]["idle"]
    assert "stuck at nobody comes" in ended[0][2] and "stuck at grading" in ended[0][2]
    assert "another process is stuck" in ended[1][2] and "in together" in ended[1][2]


@pytest.mark.parametrize("there", [0, 1])
def test_a_process_that_never_starts_is_named(there):
    with pytest.raises(pod.PodError, match=f"after 1 s process {1 - there} of 2 has not come to 127.0.0.1:"):
        pod.start(f"127.0.0.1:{free_port()},2,{there}", seconds=1.0)
    assert pod.count() == 1


def test_of_several_those_that_came_hear_who_did_not():
    address = f"127.0.0.1:{free_port()}"

    def come(index):
        try:
            hello.meet(address, 4, index, 2.0)
        except TimeoutError as error:
            return str(error)

    with concurrent.futures.ThreadPoolExecutor() as threads:
        told = list(threads.map(come, (0, 2)))
    assert all("process 1, 3 of 4 has not come" in text for text in told)
    with concurrent.futures.ThreadPoolExecutor() as threads:
        assert list(threads.map(come, (3, 1, 0, 2))) == [None] * 4
    socket.create_server(("127.0.0.1", int(address.rsplit(":", 1)[1]))).close()  # the port is free again


def test_one_failure_ends_all_and_the_first_process_shows_its_reason(tmp_path):
    first, second = play("fails", tmp_path)
    assert (first[0], second[0]) == (2, 2)  # the code too: a restart would not help
    assert "process 1 failed: ValueError: this shard is damaged" in first[2]


def test_a_mesh_of_another_size_is_wrong_use_on_every_process(tmp_path):
    port = free_port()
    flags = ["--config=configs/tiny.py", "--config.mesh.data=4", f"--workdir={tmp_path}"]
    pair = [start("-m", "experiments.run", *flags, f"--distributed=127.0.0.1:{port},2,{i}") for i in range(2)]
    texts = [process.communicate(timeout=120)[1] for process in pair]
    assert [process.returncode for process in pair] == [2, 2], texts
    assert all("is of 4 devices and the pod has 2" in text for text in texts)


@pytest.mark.parametrize(
    "error, code", [(pod.PodError("'banner': 1 is not there"), 1), (pod.Disagreement("on jax"), 2)]
)
def test_who_is_missing_may_come_another_time_and_who_disagrees_will_again(tmp_path, monkeypatch, error, code):
    from experiments import run

    def join(*_):
        raise error

    told = []
    monkeypatch.setattr(run, "_join", join)
    monkeypatch.setattr(pod, "fail", lambda *what: told.append(what))
    flags = ["--config=configs/tiny.py", f"--workdir={tmp_path}", "--distributed=127.0.0.1:1,2,0"]
    assert run.main(flags) == code and [what[1] for what in told] == [code]


def test_sigterm_dumps_the_stacks_of_a_process_that_hangs_in_native_code():
    process = start(PROCESS, "stuck")
    assert process.stdout.readline() == "stuck\n"
    process.send_signal(signal.SIGTERM)
    try:
        _, errors = process.communicate(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        _, errors = process.communicate()
    assert "Current thread" in errors and "in stuck" in errors


def test_a_process_draws_on_all_chips_of_its_host(monkeypatch):
    import jax

    from synthrl_jax.policy import decoder, sharding

    config = decoder.DecoderConfig(vocab_size=64, width=64, layers=1, heads=16)
    assert sharding.sampling_mesh(config) is None  # on a CPU a device is no chip
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert dict(sharding.sampling_mesh(config).shape) == {"data": 1, "fsdp": 1, "tensor": jax.local_device_count()}


CONFIG = """
from configs import tiny

def get_config():
    c = tiny.get_config()
    c.sizes, c.test_problems, c.validation_problems = (16,), 8, 4
    c.sample.shard_roots, c.monte_carlo.shard_roots = 4, 4
    c.mesh.data = DATA
    c.sft.update({"epochs": 0.0, "updates": 4, "looks": 2})
    c.methods = {name: c.methods[name] for name in ("rft", "dpo_per_step")}
    return c
"""


def run_command(directory, data, name, *flags):
    config = directory / f"data{data}.py"
    config.write_text(CONFIG.replace("DATA", str(data)))
    return ["-m", "experiments.run", f"--config={config}", f"--workdir={directory / name}", *flags]


def cells_of(workdir):
    return {label: workdir / place for label, place in json.loads((workdir / "run.json").read_text())["cells"].items()}


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_each_stage_on_two_processes_agrees_with_one_on_the_same_inputs(tmp_path):
    """Parameters but for the order of sums, and what is drawn, graded and credited row for row but for near-ties."""
    import jax
    import numpy as np

    from synthrl_jax.policy import load_pretrained

    alone = start(*run_command(tmp_path, 1, "one"))
    _, errors = alone.communicate(timeout=1800)
    assert alone.returncode == 0, errors[-2000:]
    run_command(tmp_path, 2, "two")  # writes the config
    for code, _, errors in play("stages", tmp_path, seconds=3000):
        assert code == 0, errors[-2000:]
    one, two = cells_of(tmp_path / "one"), cells_of(tmp_path / "two")
    assert set(one) == set(two)
    rows, moved = 0, 0
    for label in one:
        if (one[label] / "policy").exists():
            first, second = (load_pretrained(str(cells[label] / "policy")).params for cells in (one, two))
            for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second)):
                # Adam divides a gradient by its own size: where it is near zero the order of a sum decides a whole step
                off = np.abs(np.asarray(a) - np.asarray(b))
                assert (off > 2e-4).mean() < 1e-3 and off.max() < 1e-2, (label, off.max())
            moved += 1
        for name in ("responses.jsonl", "values.jsonl", "credits.jsonl", "verdicts.jsonl", "problems.jsonl"):
            if (one[label] / name).exists():
                texts = [(cells[label] / name).read_text().splitlines() for cells in (one, two)]
                assert len(texts[0]) == len(texts[1]), (label, name)
                rows += len(texts[0])
                others = sum(a != b for a, b in zip(*texts))
                assert others <= max(1, len(texts[0]) // 1000), f"{label} {name}: {others} of {len(texts[0])}"
    assert rows > 300 and moved == 3  # pi_sft and two methods
