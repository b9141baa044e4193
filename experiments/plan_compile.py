"""Compile one program for a TPU topology on a machine without TPU, in a process of its own that can be ended.

python -m experiments.plan_compile < request.json > answer.json      (experiments/plan.py calls it)
"""

import dataclasses
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

from experiments.plan_chips import parse
from experiments.plan_programs import Program

# libtpu asks for a machine's metadata unless it is told not to
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # it holds a lock file, though nothing here holds a chip
}
INSTALL = (
    "libtpu is not installed: `pip install -e '.[plan]'` (the version that jax asks for, Linux on x86-64) lets this command "
    "compile; the arithmetic needs none"
)


def available() -> bool:
    """Whether this Python finds libtpu."""
    import importlib.util

    return importlib.util.find_spec("libtpu") is not None


def compile_program(program: Program, config, topology: str, slices: int, mesh: dict[str, int], limit: float) -> dict:
    """What the compiler says of a program: `compiled`, `peak_bytes`, arguments, temporaries, traffic; or `error`.

    Never raises for a program that does not fit or compile in `limit` seconds: that is an answer.
    """
    request = {"program": dataclasses.asdict(program), "config": dataclasses.asdict(config), "mesh": mesh}
    request |= {"topology": topology, "slices": slices}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "experiments.plan_compile"],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            timeout=limit,
            env={**os.environ, **ENVIRONMENT},
            cwd=Path(__file__).parent.parent,
        )
    except subprocess.TimeoutExpired:
        return {"compiled": False, "error": f"not compiled within {limit:.0f} s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return {"compiled": False, "error": last[:500]}
    return json.loads(lines[-1])


def answer(request: dict) -> dict:
    """The child's work."""
    import jax
    import numpy as np
    from jax.experimental import topologies

    from experiments import plan_hlo, plan_programs
    from synthrl_jax.policy import sharding
    from synthrl_jax.policy.decoder import DecoderConfig

    where, mesh_shape = parse(request["topology"], request["slices"]), request["mesh"]
    more = {"num_slices": where.slices} if where.slices > 1 else {}
    if math.prod(where.shape) == 1:
        more["chips_per_host_bounds"] = (1, 1, 1)  # it takes hosts of four for granted
    try:
        topology = topologies.get_topology_desc(platform="tpu", topology_name=where.name, **more)
    except Exception as error:
        return {"compiled": False, "error": f"the compiler does not take {where.name} x {where.slices}: {_line(error)}"}
    # the two cores of a v4 chip are devices of their own to the compiler, though one on a machine: what is said is for both
    cores = max(1, len(topology.devices) // where.chips)
    axis = "fsdp" if request["program"]["kind"] == "train" else "tensor"
    mesh_shape = mesh_shape | {axis: mesh_shape[axis] * cores}
    count = math.prod(mesh_shape.values())
    if len(topology.devices) < count:
        return {
            "compiled": False,
            "error": f"{where.name} x {where.slices} has {len(topology.devices)} devices, not {count}",
        }
    if cores > 1:  # make_mesh wants one device a chip
        devices = sorted(topology.devices, key=lambda device: (getattr(device, "slice_index", 0) or 0, device.id))[
            :count
        ]
        axis_types = (jax.sharding.AxisType.Auto,) * 3
        mesh = jax.sharding.Mesh(
            np.array(devices).reshape(tuple(mesh_shape.values())), tuple(mesh_shape), axis_types=axis_types
        )
    else:
        mesh = sharding.make_mesh(**mesh_shape, devices=topology.devices[:count])
    program, config = Program(**request["program"]), DecoderConfig(**request["config"])
    try:
        function, arguments = plan_programs.build(program, config, mesh)
        with jax.set_mesh(mesh):
            compiled = function.lower(*arguments).compile()
    except Exception as error:
        out = {"compiled": False, "error": _line(error)}
        if (used := used_bytes(str(error))) is not None:
            out["peak_bytes"] = used * cores
        return out
    memory = compiled.memory_analysis()
    arguments_bytes, temporaries = memory.argument_size_in_bytes, memory.temp_size_in_bytes
    outputs = memory.output_size_in_bytes - memory.alias_size_in_bytes
    moved = plan_hlo.traffic(compiled.as_text(), mesh_shape, program.trips)
    # what peaks is at most arguments, results of their own and temporaries; the compiler's own figure where it gives one
    peak = getattr(memory, "peak_memory_in_bytes", 0) or arguments_bytes + temporaries + outputs
    return {
        "compiled": True,
        "argument_bytes": arguments_bytes * cores,
        "temporary_bytes": temporaries * cores,
        "peak_bytes": peak * cores,
        "memory_traffic": moved.memory * cores,
        "collectives": [
            {"collective": op, "axis": axis, "count": n, "bytes": sent * cores}
            for (op, axis), (n, sent) in moved.collectives.items()
        ],
    }


def used_bytes(message: str) -> float | None:
    """What a program would need, from the compiler's complaint that it does not fit."""
    found = re.search(
        r"Used ([\d.]+)([KMGT])i?B? of [\d.]+[KMGT]|required for [^(]*\(([\d.]+)([KMGT])\) exceeds", message
    )
    if not found:
        return None
    number, unit = found[1] or found[3], found[2] or found[4]
    return float(number) * 1024.0 ** " KMGT".index(unit)


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:400]


if __name__ == "__main__":
    print(json.dumps(answer(json.load(sys.stdin))))
