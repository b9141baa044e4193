"""One process of two, run by test_pod.py: argv is what to play, the port, the index and a directory."""

import ctypes
import json
import runpy
import sys
import threading
import time
from pathlib import Path

from synthrl_jax import pod


def together(directory: Path):
    """Agreement, shares, a disagreement, and a barrier at which process 1 is missing."""
    report = {"agreed": pod.agree("a", f"from {pod.index()}")}
    names = [f"row {i}" for i in range(20)]
    report["share"] = pod.share(names)
    report["shared"] = pod.shared(names, lambda places: [(i, pod.index()) for i in places])
    found = pod.check_alike(pod.facts(config="same"))
    report["banner"] = pod.banner(found)
    try:
        pod.check_alike(pod.facts(config=f"of {pod.index()}"))
    except pod.PodError as error:
        report["disagreement"] = str(error)
    (directory / f"{pod.index()}.json").write_text(json.dumps(report))
    if pod.index():
        time.sleep(10)
        return
    try:
        pod.barrier("nobody comes", seconds=1.5)
    except pod.PodError as error:
        report["missing"] = str(error)
    pod._POD.seconds = 1.5
    try:
        pod.shared(names, lambda places: places, "grading")
    except pod.PodError as error:
        report["idle"] = str(error)
    (directory / "0.json").write_text(json.dumps(report))
    time.sleep(3 * pod.BEAT_SECONDS)  # it holds the service that tells the other one


def fails(directory: Path):
    """Process 1 fails while process 0 waits for it."""
    if pod.index():
        pod.fail("ValueError: this shard is damaged", 2)
    pod.barrier("never")


def stages(directory: Path):
    """Every cell of the config data2.py, each from the inputs that one process left in the work directory `one`."""
    from experiments.cells import MANIFEST, Cell
    from experiments.graph import plan
    from experiments.run import make_cell

    def left(label: str, place: str) -> Cell:
        path = directory / "one" / place
        manifest = json.loads((path / MANIFEST).read_text())
        return Cell(label, path, manifest["key"], manifest["fingerprint"])

    one = json.loads((directory / "one" / "run.json").read_text())["cells"]
    config = runpy.run_path(str(directory / "data2.py"))["get_config"]()
    made = {}
    for node in plan(config):
        inputs = {role: left(label, one[label]) for role, label in node.inputs.items()}
        made[node.label] = str(make_cell(str(directory / "two"), node, inputs).path.relative_to(directory / "two"))
    if pod.first():
        (directory / "two" / "run.json").write_text(json.dumps({"cells": made}))
    pod.finish()


def stuck():
    """Alone, the main thread in a call that no Python handler interrupts."""
    pod.dump_stacks_on_sigterm()
    threading.Thread(target=lambda: (time.sleep(0.2), print("stuck", flush=True)), daemon=True).start()
    ctypes.CDLL(None).pause()
    ctypes.CDLL(None).sleep(30)


if __name__ == "__main__":
    if sys.argv[1] == "stuck":
        stuck()
    else:
        pod.start(f"127.0.0.1:{sys.argv[2]},2,{sys.argv[3]}", seconds=120)
        globals()[sys.argv[1]](Path(sys.argv[4]))
        sys.stdout.flush()
        pod._end() if sys.argv[1] == "together" else None
