"""The pool under load and under attack: killed workers cost their item only, and nothing is left behind."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from synthrl_jax.grading import Pool, grade, grade_many
from synthrl_jax.grading import pool as pool_module

HARD = [(f"\\boxed{{{n}+\\sqrt{{{n}}}}}", f"\\sqrt{{{n}}}+{n + (n % 3 == 0)}", "boxed") for n in range(2, 32)]
BAD = "hostile_kinds:misbehave"
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def children() -> set[int]:
    """Processes whose parent this process is."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that ended since it was listed
            found |= set(map(int, (task / "children").read_text().split()))
    return found


@pytest.fixture(autouse=True)
def nothing_is_left_behind():
    before, descriptors = children(), len(os.listdir("/proc/self/fd"))
    yield
    assert children() <= before
    assert len(os.listdir("/proc/self/fd")) <= descriptors


def outcomes(answers: list[str], **settings) -> list[str]:
    rows = [(f"\\boxed{{{answer}}}", "\\frac{x}{2}", "boxed") for answer in answers]
    return [verdict.outcome for verdict in grade_many(rows, grader=BAD, **settings)]


def test_the_pool_says_what_grade_says_in_order():
    assert grade_many(HARD, workers=2) == [grade(*row) for row in HARD]
    assert grade_many([]) == []


def test_easy_rows_start_no_worker(monkeypatch):
    monkeypatch.setattr(pool_module, "_Worker", None)
    verdicts = grade_many([("#### 1,000", "1000", "gsm8k_hash"), ("#### 5", "6", "gsm8k_hash"), ("5", "5", "boxed")])
    assert [verdict.outcome for verdict in verdicts] == ["correct", "wrong", "no_answer"]


def test_identical_pairs_are_graded_once(monkeypatch):
    asked = []
    decide = Pool.decide
    monkeypatch.setattr(Pool, "decide", lambda self, pairs, tick: asked.extend(pairs) or decide(self, pairs, tick))
    rows = [(f"it is {n}, so \\boxed{{0.5x}}", "\\frac{x}{2}", "boxed") for n in range(50)]
    assert {verdict.outcome for verdict in grade_many([*rows, *HARD], workers=1)[:50]} == {"correct"}
    assert len(asked) == 1 + len(HARD)


@pytest.mark.parametrize(
    "bad", ["hang", "sleep", "crash", "segfault", "exit", "memory", "memory at once", "raise", "deaf"]
)
def test_a_bad_item_costs_itself_only(bad):
    answers = ["0.5x", bad, "x/2", "x", bad + " twice", "\\frac{1}{2}x"]
    start = time.monotonic()
    found = outcomes(answers, workers=1, seconds=4, memory_mb=300)
    assert found == ["correct", "grader_error", "correct", "wrong", "wrong", "correct"]
    assert time.monotonic() - start < 60


def test_many_bad_items_do_not_stall_the_good_ones():
    answers = []
    for n in range(8):
        answers += [f"{n + 1}x", ["crash", "exit", "memory at once", "segfault"][n % 4] + " " * n, "0.5x", f"x/{n + 3}"]
    rows = [(f"\\boxed{{{answer}}}", f"\\frac{{x}}{{2}}+{n}-{n}", "boxed") for n, answer in enumerate(answers)]
    found = [verdict.outcome for verdict in grade_many(rows, workers=2, seconds=5, memory_mb=300, grader=BAD)]
    assert found == ["wrong", "grader_error", "correct", "wrong"] * 8


def test_printing_does_not_disturb_the_replies():
    assert outcomes(["print", "0.5x", "print", "x"], workers=1) == ["wrong", "correct", "wrong", "wrong"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_workers_killed_or_stopped_from_outside_are_replaced(how):
    with Pool(workers=2, seconds=20 if how == signal.SIGKILL else 4) as pool:
        grade_many(HARD, pool=pool)
        for worker in pool.workers:
            os.kill(worker.process.pid, how)
        assert how != signal.SIGKILL or gone([worker.process.pid for worker in pool.workers], 10)
        verdicts = grade_many(HARD, pool=pool)
        errors = sum(verdict.outcome == "grader_error" for verdict in verdicts)
        assert errors <= (0 if how == signal.SIGKILL else 2)
        assert sum(a == grade(*row) for a, row in zip(verdicts, HARD)) == len(HARD) - errors


def test_workers_that_cannot_start_end_in_errors_not_in_a_stall():
    start = time.monotonic()
    verdicts = grade_many(HARD[:3], workers=1, grader="no_such_module:compare")
    assert {verdict.outcome for verdict in verdicts} == {"grader_error"}
    assert time.monotonic() - start < 120


def test_it_works_from_any_thread_and_from_several_at_once():
    expected, found = [grade(*row) for row in HARD], {}

    def work(number):
        found[number] = grade_many(HARD, workers=1)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(found.values()) == [expected] * 4


def test_an_exception_in_the_caller_ends_the_workers(monkeypatch):
    def fail(self, done):
        raise RuntimeError("stop")

    monkeypatch.setattr(pool_module._Progress, "__call__", fail)
    with pytest.raises(RuntimeError, match="stop"):
        grade_many(HARD, workers=2)


def test_a_kept_pool_serves_several_calls_with_the_same_workers():
    with Pool(workers=1) as pool:
        grade_many(HARD, pool=pool)
        first = [worker.process.pid for worker in pool.workers]
        assert grade_many(HARD, pool=pool) == [grade(*row) for row in HARD]
        assert [worker.process.pid for worker in pool.workers] == first


def test_the_progress_line(capfd):
    grade_many(HARD, workers=1, progress=True)
    assert f"of {len(HARD)} pairs" in capfd.readouterr().err
    grade_many(HARD, workers=1)
    assert capfd.readouterr().err == ""


def script(tmp_path: Path, text: str) -> subprocess.Popen:
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(text))
    return subprocess.Popen(
        [sys.executable, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )


def gone(pids: list[int], seconds: float) -> bool:
    """Whether no such process runs any more."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not any(alive(pid) for pid in pids):
            return True
        time.sleep(0.1)
    return False


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_script_without_a_main_guard_and_an_exit_handler(tmp_path):
    done = script(
        tmp_path,
        r"""
        import atexit
        from synthrl_jax import grading
        rows = [("\\boxed{\\sqrt8}", "2\\sqrt2", "boxed"), ("\\boxed{x}", "y", "boxed")]
        def late():
            print("late", [v.outcome for v in grading.grade_many(rows, workers=1)], flush=True)
        atexit.register(late)
        print("now", [v.outcome for v in grading.grade_many(rows, workers=2)], flush=True)
        """,
    )
    out, err = done.communicate(timeout=60)
    assert done.returncode == 0, err
    assert out.splitlines() == ["now ['correct', 'wrong']", "late ['correct', 'wrong']"]


ENDLESS = r"""
    import signal, sys, threading
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from synthrl_jax.grading import Pool, pool, grade_many
    start = pool._Worker.__init__
    def noted(self, *args):
        start(self, *args)
        print(self.process.pid, flush=True)
    pool._Worker.__init__ = noted
    rows = [("\\boxed{hang%s}" % (" " * n), "x+%d" % n, "boxed") for n in range(50)]
    grade_many(rows, workers=2, seconds=8, grader="hostile_kinds:misbehave")
"""


@pytest.mark.parametrize(("how", "seconds"), [(signal.SIGINT, 5), (signal.SIGTERM, 20), (signal.SIGKILL, 20)])
def test_no_worker_outlives_its_parent(tmp_path, how, seconds):
    process = script(tmp_path, ENDLESS)
    pids = [int(process.stdout.readline()) for _ in range(2)]
    time.sleep(1.0)  # let them take their items: both hang in a loop
    assert all(alive(pid) for pid in pids)
    process.send_signal(how)
    _, err = process.communicate(timeout=30)
    assert process.returncode != 0
    if how == signal.SIGINT:
        assert "KeyboardInterrupt" in err
    assert gone(pids, seconds)


def test_an_item_whose_worker_is_killed_by_another_is_tried_once_more(tmp_path, monkeypatch):
    first = tmp_path / "first"
    given = pool_module._Worker.give

    def give(worker, item, message):
        if not first.exists():
            first.touch()
            os.kill(worker.process.pid, signal.SIGSTOP)
            given(worker, item, message)
            os.kill(worker.process.pid, signal.SIGKILL)
        else:
            given(worker, item, message)

    monkeypatch.setattr(pool_module._Worker, "give", give)
    assert grade_many(HARD, workers=2) == [grade(*row) for row in HARD]
    assert first.exists()
