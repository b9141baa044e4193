"""A program on a slice as a row: what it computes, holds and moves, what bounds it, and what to change where it does not fit."""

import dataclasses
import math

from experiments import plan_arithmetic as arithmetic
from experiments import plan_chips, plan_compile, plan_count, plan_programs
from experiments.plan_chips import GIB, Slice
from experiments.plan_programs import Program
from synthrl_jax.policy import scoring, sharding


def row_of(
    program: Program, config, where: Slice, mesh: dict[str, int], options, greedy: Program | None = None
) -> dict:
    """A program's row: counted and hand-made FLOPs, memory, traffic, time bounds, and what to change. greedy: of a train step
    what draws its looks at validation."""
    shape, config, base = None, program.config_of(config), config
    chips = math.prod(mesh.values())
    if program.kind in ("prefill", "decode"):
        shape = plan_programs.sampler_shape(program)
    if program.kind == "score":
        rows = scoring.rows_within(config, program.length, program.rows, chips)
        program = dataclasses.replace(program, rows=rows)
    function, arguments = plan_programs.build(program, config)
    chip = where.chip
    row = {
        "program": program.name,
        "kind": program.kind,
        "topology": where.name,
        "slices": where.slices,
        "chips": chips,
        "mesh": "x".join(map(str, mesh.values())),
        "rows": program.rows,
        "micro_batches": program.micro,
        "length": program.length,
        "chip_bytes": where.usable,
        "flops": arithmetic.program_flops(program, config, shape),
        "counted_flops": plan_count.flops(function, *arguments, trips=program.trips),
        "model_flops": arithmetic.model_flops(program, config, shape),
        "resident_bytes": arithmetic.resident_bytes(program, config, mesh, shape),
        "parameters": arithmetic.parameters(config),
        "remat": config.remat,
        "attention": config.attention,
        "vocab_chunk": config.vocab_chunk,
    }
    row |= {"peak_bytes": None, "fits": None, "compiled": False, "note": ""}
    row["held_bytes"] = arithmetic.held_bytes(program, config, mesh)
    look = look_of(program, base, where, mesh, greedy)
    row |= {"look_bytes": look} if look else {}
    divides = program.micro_rows % (mesh["data"] * mesh["fsdp"]) == 0
    if program.kind == "train" and not divides:
        row |= {
            "fits": False,
            "note": f"{program.micro_rows} rows do not divide over {mesh['data'] * mesh['fsdp']} chips",
        }
    elif row["resident_bytes"] + row["held_bytes"] > where.usable:
        row |= {"fits": False, "peak_bytes": row["resident_bytes"]}
        row["note"] = "not compiled: what it cannot do without exceeds the chip's memory"
    elif look > where.usable:
        row |= {"fits": False, "peak_bytes": row["resident_bytes"]}
        row["note"] = f"not compiled: a look at validation takes {look / GIB:.1f} GiB a chip beside the training state"
    elif options.compile:
        topology, slices = where.name, where.slices
        if program.kind != "train" and chips <= 8:  # a replica is a slice of its own: its devices are numbered from 0
            topology, slices = plan_chips.smallest(chip, chips), 1
        found = plan_compile.compile_program(program, config, topology, slices, mesh, options.limit)
        row["note"] = found.pop("error", "")
        row |= {name: value for name, value in found.items() if name != "collectives"}
        row["collectives"] = found.get("collectives")
        if row["peak_bytes"] is not None:  # of a failed compilation only where it ran out of memory
            row["fits"] = found["compiled"] and row["peak_bytes"] + row["held_bytes"] <= where.usable
            if found["compiled"] and not row["fits"]:
                row["note"] = "its peak and what is kept beside it exceed the chip's memory"
        elif "does not divide" in row["note"]:
            row["fits"] = False
    memory = row.get("memory_traffic") or arithmetic.memory_traffic(program, config, mesh, shape)
    row["memory_traffic"] = memory
    row["sent"] = sent(program, config, mesh, row.get("collectives"), shape)
    inside, outside = split(row["sent"], where)
    row |= {"interconnect_bytes": inside, "network_bytes": outside}
    row["compute_seconds"] = row["counted_flops"] / chips / chip.flops
    row["memory_seconds"] = memory / chip.bandwidth
    row["interconnect_seconds"] = inside / chip.interconnect + outside / plan_chips.DATA_CENTRE
    bounds = {name: row[f"{name}_seconds"] for name in ("compute", "memory", "interconnect")}
    row["bound"] = max(bounds, key=bounds.get)
    row["seconds"] = max(bounds.values())
    row["mfu"] = row["model_flops"] / chips / chip.flops / row["seconds"]
    if row["fits"] is False:
        row["advice"] = advice(program, config, where, mesh, row)
    return row


def look_of(program: Program, config, where: Slice, mesh: dict[str, int], greedy: Program | None) -> float:
    """Bytes of a chip at a train step's looks at validation; 0 for other programs."""
    if program.kind != "train" or greedy is None:
        return 0.0
    sizes = sharding.decoding_sizes(config, math.gcd(mesh["fsdp"] * mesh["tensor"], where.host), where.chips)
    return arithmetic.look_bytes(program, config, mesh, sizes, plan_programs.sampler_shape(greedy))


def sent(program, config, mesh, collectives, shape=None) -> dict[str, float]:
    """Bytes that a chip sends, by mesh axes: as compiled, or on paper."""
    if collectives is None:
        return arithmetic.interconnect_traffic(program, config, mesh, shape)
    by_axis: dict[str, float] = {}
    for entry in collectives:
        by_axis[entry["axis"]] = by_axis.get(entry["axis"], 0.0) + entry["bytes"]
    return by_axis


def split(by_axis: dict[str, float], where: Slice) -> tuple[float, float]:
    """Bytes that stay inside of a slice, and those that go between slices."""
    outside = sum(n for axis, n in by_axis.items() if where.slices > 1 and "data" in axis)
    return sum(by_axis.values()) - outside, outside


def advice(program: Program, config, where: Slice, mesh: dict[str, int], row: dict) -> str:
    """What to change first where a program does not fit."""
    ways = mesh["data"] * mesh["fsdp"]
    if program.kind == "train" and program.micro_rows % ways:
        return f"make train.batch / micro a multiple of {ways}, or a mesh with fewer ways"
    if "does not divide" in row["note"]:
        return "mesh: axes that divide the decoder's dimensions (fsdp the width, tensor heads, key-value heads and vocabulary)"
    if row.get("look_bytes", 0.0) > where.usable and row["resident_bytes"] + row["held_bytes"] <= where.usable:
        return "fewer rows (sample.rows), or a mesh of more chips"
    if program.kind in ("prefill", "decode", "score"):
        if mesh["data"] * mesh["fsdp"] * mesh["tensor"] < where.host:
            return f"--sampling-tensor={where.host}: weights and caches over more chips; or fewer rows (sample.rows)"
        return "fewer rows (sample.rows) or shorter continuations (sample.max_tokens)"
    trained, moments, frozen = arithmetic.state_bytes(program, config)
    whole = 2 * trained + moments + frozen + row["held_bytes"] * mesh["fsdp"] * mesh["tensor"]
    state = whole / (mesh["fsdp"] * mesh["tensor"])
    if state > 0.6 * where.usable:
        other = "" if program.settings.get("lora") else ", or LoRA"
        return (
            f"mesh: parameters, moments and gradients take {state / GIB:.1f} GiB a chip; fsdp x tensor of "
            f"{math.ceil(whole / (0.6 * where.usable))} or more (a larger slice){other}"
        )
    if config.remat != "full":
        return "remat: 'full' keeps only each layer's input"
    if program.micro_rows > ways:
        return f"micro-batch: train.micro={max(1, program.micro_rows // 2)} halves the activations"
    if config.attention == "xla":
        return "attention: 'splash' never holds the scores"
    if not config.vocab_chunk:
        return "vocab_chunk: 4096 never holds the logits"
    return "mesh: a larger tensor axis splits each row's activations; or a larger slice"


def greedy_of(programs: list[Program]) -> Program:
    """What draws greedy answers."""
    return next(p for p in programs if p.name == plan_programs.GREEDY)
