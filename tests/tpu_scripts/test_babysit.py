"""Babysit: through preemptions to the end, and no further than it should go."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cloud import Cloud, printed
from test_scripts import until, verbs

ARGUMENTS = ("--restarts=4", "--backoff=0", "--", "--config=configs/tiny.py")


@pytest.fixture
def cloud(tmp_path):
    cloud = Cloud(tmp_path)
    yield cloud
    cloud.kill()


def counted(then):
    """A run that counts its starts in the work directory and goes on as `then` says, $n being the count."""
    return f'f=$(hostname).n; cd "$BUCKET"; n=$(($(cat "$f" 2>/dev/null || echo 0) + 1)); echo $n >"$f"; {then}'


def test_the_dry_run_prints_what_a_smooth_run_calls(cloud):
    cloud.program("python", "exit 0")
    dry = printed(cloud.call("babysit.sh", "--dry-run", *ARGUMENTS).stdout)
    cloud.call("babysit.sh", *ARGUMENTS)
    calls = cloud.calls()
    kept = [call for i, call in enumerate(calls) if call not in calls[:i]]  # looks repeat until the end
    wanted = [call for i, call in enumerate(dry) if call[0] == "gcloud" and call not in dry[:i]]
    assert kept == wanted


def test_preempted_and_failing_runs_are_brought_back_to_the_end(cloud):
    cloud.workdir.mkdir()
    cloud.script(common={"BUCKET": str(cloud.workdir)})
    cloud.program("python", counted("[[ $n == 1 ]] && sleep 1000; [[ $n == 2 ]] && exit 1; exit 0"))
    sitter = cloud.start("babysit.sh", *ARGUMENTS)
    until(lambda: len(list(cloud.workdir.glob("*.n"))) == 2)
    cloud.preempt()
    assert sitter.wait(120) == 0
    assert {path.read_text() for path in cloud.workdir.glob("*.n")} == {"3\n"}
    called = verbs(cloud.calls())
    assert called.count("tpu-vm create") == 2 and called.count("tpu-vm delete") == 1


def test_it_looks_after_a_run_that_goes_already(cloud):
    cloud.call("create.sh")
    cloud.call("setup.sh")
    cloud.call("run.sh", *ARGUMENTS[2:])
    cloud.calls()
    sitter = cloud.start("babysit.sh", *ARGUMENTS)
    time.sleep(1)
    sitter.send_signal(signal.SIGTERM)
    sitter.wait(30)
    assert set(verbs(cloud.calls())) <= {"tpu-vm describe", "tpu-vm ssh"}


def test_how_an_earlier_run_ended_is_no_verdict_on_this_one(cloud):
    """Flags that were wrong, and are corrected; and a small run first, then the real one."""
    cloud.program("python", "[[ $* == *wrong* ]] && exit 2; exit 0")
    cloud.call("babysit.sh", *ARGUMENTS[:-1], "--config=configs/wrong.py", code=2)
    cloud.call("babysit.sh", *ARGUMENTS[:-1], "--config=configs/small.py")
    cloud.call("babysit.sh", *ARGUMENTS[:-1], "--config=configs/real.py")
    for i in range(2):
        begun = [line.split("/")[-1] for line in (cloud.home(i) / "started").read_text().splitlines()]
        assert begun == ["wrong.py", "small.py", "real.py"]


def test_wrong_use_is_not_repeated(cloud):
    cloud.program("python", "echo error: no such field; exit 2")
    done = cloud.call("babysit.sh", *ARGUMENTS, code=2)
    assert "wrong use" in done.stderr and "no such field" in done.stderr
    assert verbs(cloud.calls()).count("tpu-vm create") == 1


def test_a_run_that_saved_after_sigterm_is_started_again(cloud):
    """75: nothing is wrong; 2 on a later start ends it, though another worker has not ended."""
    cloud.workdir.mkdir()
    cloud.script(common={"BUCKET": str(cloud.workdir)})
    cloud.program("python", counted("[[ $n == 1 ]] && exit 75; [[ $f == *-0.n ]] && exit 2; sleep 1000"))
    done = cloud.call("babysit.sh", *ARGUMENTS, code=2)
    assert "restart 1 of 4" in done.stderr and "ended with 75" in done.stderr and "wrong use" in done.stderr
    assert (cloud.workdir / "pod-w-0.n").read_text() == "2\n"


def test_a_tpu_that_cannot_be_had_is_asked_for_again_and_wrong_use_is_not(cloud):
    cloud.script(create_error="quota")
    done = cloud.call("babysit.sh", "--restarts=2", *ARGUMENTS[1:], code=1)
    assert "-> quota" in done.stderr and "gave up after 2 restarts" in done.stderr
    assert verbs(cloud.calls()).count("tpu-vm create") == 3
    done = cloud.call("babysit.sh", "--type=v3-8", *ARGUMENTS, code=2)
    assert "wrong use" in done.stderr and verbs(cloud.calls()).count("tpu-vm create") == 0
    dry = cloud.call("babysit.sh", "--dry-run", "--type=v3-8", *ARGUMENTS, code=2)
    assert "TYPE=v3-8" in dry.stderr


def test_each_start_waits_longer_than_the_one_before_up_to_half_an_hour(cloud):
    """Numbers are decimal, also with a nought before them."""
    (cloud.fake / "tools").mkdir()
    (cloud.fake / "tools/sleep").write_text('#!/bin/sh\necho "$1" >>"$FAKE/slept"\n')
    (cloud.fake / "tools/sleep").chmod(0o755)
    cloud.more["PATH"] = f"{cloud.fake / 'tools'}:{cloud.environment['PATH']}"
    cloud.script(create_error="quota")
    done = cloud.call("babysit.sh", "--restarts=05", "--backoff=0300", *ARGUMENTS[2:], code=1)
    assert "gave up after 5 restarts" in done.stderr
    slept = [line for line in (cloud.fake / "slept").read_text().split() if len(line) > 2 and "." not in line]
    assert slept == ["300", "600", "1200", "1800", "1800"]


def test_a_worker_that_is_silent_is_not_a_run_that_is_done(cloud):
    """Nothing said is no good news: after some looks the worker is set up again."""
    cloud.program("python", "exit 0")
    cloud.call("create.sh")
    cloud.script(ssh_fails={"1": "status"})
    sitter = cloud.start("babysit.sh", "--restarts=1", *ARGUMENTS[1:], stderr=subprocess.PIPE)
    until(lambda: "tpu-vm scp" in verbs(cloud.calls(forget=False)))
    cloud.script()
    assert "every worker is done" in sitter.communicate(timeout=300)[1] and sitter.returncode == 0


def test_it_gives_up_after_the_limit(cloud):
    cloud.workdir.mkdir()
    cloud.script(common={"BUCKET": str(cloud.workdir)})
    cloud.program("python", counted("exit 1"))
    done = cloud.call("babysit.sh", "--restarts=1", *ARGUMENTS[1:], code=1)
    assert "gave up after 1 restarts" in done.stderr and "ended with 1" in done.stderr
    assert {path.read_text() for path in cloud.workdir.glob("*.n")} == {"2\n"}
