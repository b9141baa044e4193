"""The meshes of a slice: the one that training and sampling get, and a search for better ones."""

import dataclasses
import math

from experiments import plan_arithmetic as arithmetic
from experiments import plan_chips
from experiments.plan_chips import Slice
from experiments.plan_programs import Program
from experiments.plan_rows import greedy_of, look_of, row_of, sent, split
from experiments.settings import UsageError
from synthrl_jax.policy import sharding


def training_mesh(c: dict, where: Slice, config) -> tuple[dict[str, int], str]:
    """(mesh over all chips, what to tell). The config's mesh if it fits the slice, else its tensor axis kept, `data` over the
    slices and `fsdp` over the chips of one."""
    asked = {axis: int(size) for axis, size in c["mesh"].items()}
    if any(size < 1 and size != -1 for size in asked.values()) or list(asked.values()).count(-1) > 1:
        raise UsageError(f"mesh {asked}: sizes of at least 1, at most one of them -1")
    known = math.prod(size for size in asked.values() if size != -1)
    mesh = {axis: where.chips // known if size == -1 else size for axis, size in asked.items()}
    if math.prod(mesh.values()) == where.chips and mesh["data"] % where.slices == 0:
        return mesh, ""
    inside, tensor = where.chips // where.slices, max(1, asked["tensor"])
    if inside % tensor:
        raise UsageError(f"mesh.tensor={tensor} does not divide the {inside} chips of {where.name}")
    fsdp = math.gcd(inside // tensor, config.width)
    mesh = {"data": where.chips // tensor // fsdp, "fsdp": fsdp, "tensor": tensor}
    flags = " ".join(f"--config.mesh.{axis}={size}" for axis, size in mesh.items() if size != asked[axis])
    reason = f"of {math.prod(asked.values())} devices" if -1 not in asked.values() else "not of its size"
    if math.prod(asked.values()) == where.chips:
        reason = f"not over {where.slices} slices"
    return mesh, f"the config's mesh is {reason}: planned, and to be run, with {flags}"


def sampling_mesh(asked: int, where: Slice, config, training: dict[str, int]) -> dict[str, int]:
    """The mesh of one sampling replica: over a host's chips, as a run lays it out, or `asked` chips."""
    if asked:
        if where.chips % asked or (asked > 8 and asked != where.chips):
            raise UsageError(f"--sampling-tensor={asked}: 1 to 8, dividing the {where.chips} chips")
        return {"data": 1, "fsdp": 1, "tensor": asked}
    ways, host = training["fsdp"] * training["tensor"], where.host
    found = sharding.decoding_sizes(config, ways if where.chips > 1 else 1, host)
    if where.chips > host and 2.0 * arithmetic.parameters(config) / found["tensor"] > where.usable / 2:
        found = sharding.decoding_sizes(config, ways, where.chips)
    return found


def search(c: dict, config, where: Slice, programs: list[Program], options, best: int = 3) -> list[dict]:
    """The dearest train step on every mesh and micro-batch that divides, by paper time; the best few compiled."""
    program = max((p for p in programs if p.kind == "train"), key=lambda p: arithmetic.program_flops(p, config))
    base, config, greedy = config, program.config_of(config), greedy_of(programs)
    found = []
    inside = where.chips // where.slices
    for tensor in [n for n in (1, 2, 4, 8) if inside % n == 0 and config.heads % n == 0 and config.kv_heads % n == 0]:
        for fsdp in [n for n in divisors(inside // tensor) if config.width % n == 0]:
            mesh = {"data": where.chips // tensor // fsdp, "fsdp": fsdp, "tensor": tensor}
            for micro in [m for m in divisors(program.rows) if program.rows // m % (mesh["data"] * fsdp) == 0]:
                candidate = dataclasses.replace(program, micro=micro)
                state = arithmetic.resident_bytes(candidate, config, mesh)
                state += arithmetic.held_bytes(candidate, config, mesh)
                # activations come on top of the state (compiling decides by how much); a look is all that it takes
                holds = state < 0.9 * where.usable and look_of(candidate, base, where, mesh, greedy) <= where.usable
                if mesh["data"] % where.slices == 0 and holds:
                    found.append((paper_seconds(candidate, config, where, mesh), micro, candidate, mesh))
    found.sort(key=lambda entry: entry[:2])
    kept, seen = [], set()
    for _, _, candidate, mesh in found:
        if str(mesh) not in seen and len(kept) < best:  # of a mesh the fewest micro-batches first
            seen.add(str(mesh))
            kept.append(row_of(candidate, base, where, mesh, options, greedy))
            if kept[-1]["fits"] is False and candidate.micro < program.rows:
                halved = dataclasses.replace(candidate, micro=candidate.micro * 2)
                if halved.micro_rows % (mesh["data"] * mesh["fsdp"]) == 0:
                    kept.append(row_of(halved, base, where, mesh, options, greedy))
    return sorted(kept, key=lambda row: (row["fits"] is False, row["seconds"]))


def paper_seconds(program: Program, config, where: Slice, mesh: dict[str, int]) -> float:
    """The largest of the three bounds, from arithmetic alone."""
    chips, chip = math.prod(mesh.values()), where.chip
    inside, outside = split(sent(program, config, mesh, None), where)
    compute = arithmetic.program_flops(program, config) / chips / chip.flops
    memory = arithmetic.memory_traffic(program, config, mesh) / chip.bandwidth
    return max(compute, memory, inside / chip.interconnect + outside / plan_chips.DATA_CENTRE)


def divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]
