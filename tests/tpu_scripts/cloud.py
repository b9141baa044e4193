"""A laptop with the scripts and a fake gcloud, and what was called there."""

import contextlib
import json
import os
import shlex
import signal
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(__file__).parent / "bin"
ENV_FILE = "PROJECT=my-project\nZONE=us-west4-a\nNAME=pod\nTYPE=v5litepod-8\nWORKDIR={workdir}\nPOLL=0.1\n"

# Plays `python -m experiments.run` on a worker: appends its arguments to a file, then does what `then` says.
RUN = """#!/usr/bin/env bash
if [[ ${{1:-}} == --version ]]; then echo Python 3.11; exit; fi
echo "$@" >>"$HOME/started"
echo "hello from $(hostname)"
{then}
"""


class Cloud:
    def __init__(self, directory: Path):
        self.fake, self.bin = directory / "fake", directory / "bin"
        self.workdir, self.more = directory / "bucket", {}  # more: variables of the laptop's environment
        for place in (self.fake, self.bin):
            place.mkdir()
        self.env_file = directory / "tpu.env"
        self.env_file.write_text(ENV_FILE.format(workdir=self.workdir))
        self.program("python", "sleep 1000")
        self.script()

    def script(self, **what):
        """What the cloud is to play; see bin/gcloud."""
        common = {"SYNTHRL_PYTHON": str(self.bin / "python"), "SYNTHRL_CHIPS": "4"} | what.pop("common", {})
        (self.fake / "script.json").write_text(json.dumps({"common": common, **what}))

    def program(self, name: str, then: str):
        """What the run does on every worker."""
        path = self.bin / name
        path.write_text(RUN.format(then=then))
        path.chmod(0o755)

    @property
    def environment(self):
        kept = {name: os.environ[name] for name in ("LANG",) if name in os.environ}
        kept["TMPDIR"] = str(self.fake)  # setup's archive: tests side by side would write the same file
        path = f"{BIN}:{os.environ['PATH']}"
        return {
            **kept,
            "PATH": path,
            "HOME": str(self.fake),
            "FAKE": str(self.fake),
            "TPU_ENV": str(self.env_file),
        } | self.more

    def start(self, script: str, *flags: str, **options):
        return subprocess.Popen(
            [str(ROOT / "tpu_scripts" / script), *flags], env=self.environment, text=True, **options
        )

    def call(self, script: str, *flags: str, stdin: str = "", code: int | None = 0):
        """The finished script; its exit code is checked unless None is given."""
        done = subprocess.run(
            [str(ROOT / "tpu_scripts" / script), *flags],
            env=self.environment, capture_output=True, text=True, input=stdin, timeout=3000,
        )  # fmt: skip
        if code is not None:
            assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return done

    def calls(self, forget: bool = True) -> list[list[str]]:
        """The commands called since the last look, each an argument list."""
        path = self.fake / "calls.jsonl"
        found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        if forget:
            path.unlink(missing_ok=True)
        return found

    def home(self, i: int, node: str = "pod") -> Path:
        return self.fake / "workers" / f"{node}-w-{i}"

    def states(self, *states: str, node: str = "pod"):
        """The answers that the node's next describes give."""
        (self.fake / "nodes" / f"{node}.json").write_text(json.dumps({"states": states}))

    def preempt(self, node: str = "pod"):
        """Every process of the node is killed, and it is PREEMPTED."""
        self.kill(node)
        self.states("PREEMPTED", node=node)

    def kill(self, node: str = "pod"):
        for pids in (self.fake / "workers").glob(f"{node}-w-*/.fake_pids"):
            for mark in pids.read_text().split():
                kill_group(mark)


def kill_group(mark: str) -> None:
    """Kill a process group noted as `number:start`, unless the number is another process's by now."""
    pid, began = mark.split(":")
    try:
        if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19] != began:
            return
    except OSError:
        pass  # the leader is gone; its children may be there still, and keep the number
    with contextlib.suppress(OSError):
        os.killpg(int(pid), signal.SIGKILL)


def printed(text: str) -> list[list[str]]:
    """The commands that a dry run printed, as argument lists."""
    return [shlex.split(line) for line in text.splitlines()]
