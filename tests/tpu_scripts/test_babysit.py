"""Babysit: through preemptions to the end, and no further than it should go."""

import signal
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


def test_wrong_use_is_not_repeated(cloud):
    cloud.program("python", "echo error: no such field; exit 2")
    done = cloud.call("babysit.sh", *ARGUMENTS, code=2)
    assert "wrong use" in done.stderr and "no such field" in done.stderr
    assert verbs(cloud.calls()).count("tpu-vm create") == 1


def test_it_gives_up_after_the_limit(cloud):
    cloud.workdir.mkdir()
    cloud.script(common={"BUCKET": str(cloud.workdir)})
    cloud.program("python", counted("exit 1"))
    done = cloud.call("babysit.sh", "--restarts=1", *ARGUMENTS[1:], code=1)
    assert "gave up after 1 restarts" in done.stderr and "ended with 1" in done.stderr
    assert {path.read_text() for path in cloud.workdir.glob("*.n")} == {"2\n"}
