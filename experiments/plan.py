"""Will an experiment fit on a TPU slice, how long will it take, what will it cost: told before anything is paid for.

    python -m experiments.plan --config=configs/FILE.py --topology=v5e:8x8 [--search] [--price=1.2] [--json FILE]

Compiles the config's programs (a train step for each loss, prefill, decode chunk, scoring) ahead of time for the topology, on any
Linux machine with libtpu (`pip install -e '.[plan]'`); without it the arithmetic alone. Times are bounds by the data
sheet, divided by --efficiency. Lengths and steps are assumptions, given by flags.
"""

import argparse
import dataclasses
import json
import math
import os
import sys
from pathlib import Path

import jax

from experiments import plan_arithmetic as arithmetic
from experiments import plan_chips, plan_compile, plan_count, plan_programs
from experiments.cells import write_atomic
from experiments.graph import plan as graph
from experiments.plan_chips import GIB, Slice
from experiments.plan_programs import Lengths, Program
from experiments.plan_table import show
from experiments.settings import UsageError, parse_flags
from synthrl_jax.policy import scoring, sharding

KINDS = ("train", "prefill", "decode", "score")
COMPUTE = ("remat", "attention", "vocab_chunk")  # of how training computes, what flags may change


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


def experiment(
    c: dict, config, rows: list[dict], made: list[Program], lengths: Lengths, where: Slice, options
) -> list[dict]:
    """Rows a stage: cells, tokens, rollouts, hours, chip-hours, bytes stored, cost; and their sum."""
    by_name = {row["program"]: row for row in rows}
    decode, prefill, score = (
        next((r for r in rows if r["kind"] == kind), None) for kind in ("decode", "prefill", "score")
    )
    replicas = where.chips // decode["chips"]
    decode_rate = decode["rows"] * 32 / decode["seconds"] * replicas
    prefill_rate = prefill_tokens(made) / prefill["seconds"] * replicas
    score_rate = score["rows"] * score["length"] / score["seconds"] * replicas
    out = []
    for stage in arithmetic.stages(graph(options.locked), c, lengths, config, made):
        seconds = stage.generated / decode_rate + stage.prefilled / prefill_rate + stage.scored / score_rate
        seconds += sum(updates * by_name[name]["seconds"] for name, updates in stage.programs)
        hours = seconds / 3600 / options.efficiency
        entry = {
            "stage": stage.stage,
            "cells": stage.cells,
            "tokens_generated": stage.generated,
            "rollouts": stage.rollouts,
        }
        entry |= {
            "updates": stage.updates,
            "hours": hours,
            "chip_hours": hours * where.chips,
            "stored_bytes": stage.stored,
        }
        entry["cost"] = entry["chip_hours"] * options.price if options.price else None
        used = [by_name[name]["fits"] for name, _ in stage.programs]
        drawn = ((decode, stage.generated), (prefill, stage.prefilled), (score, stage.scored))
        used += [row["fits"] for row, amount in drawn if amount]
        entry["fits"] = all_fit(used)
        out.append(entry)
    total = {"stage": "total", **{k: sum(e[k] or 0 for e in out) for k in out[0] if k not in ("stage", "fits")}}
    total["cost"] = total["cost"] if options.price else None
    total["fits"] = all_fit([entry["fits"] for entry in out])
    # the trained parameters and the optimiser's state, of the largest step; the exported policy in bfloat16
    states = (arithmetic.state_bytes(program, program.config_of(config)) for program in made if program.kind == "train")
    total["checkpoint_bytes"] = max(trained + moments for trained, moments, _ in states)
    total["policy_bytes"] = 2.0 * arithmetic.parameters(config)
    return [*out, total]


def all_fit(known: list[bool | None]) -> bool | None:
    """False where one does not fit, None where one is not known."""
    return False if False in known else None if None in known else True


def prefill_tokens(made: list[Program]) -> float:
    """Tokens that one prefill takes."""
    shape = plan_programs.sampler_shape(next(p for p in made if p.kind == "prefill"))
    return shape.jobs * shape.prefix


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


def greedy_of(programs: list[Program]) -> Program:
    """What draws greedy answers."""
    return next(p for p in programs if p.name == plan_programs.GREEDY)


def wanted(program: Program, words: list[str]) -> bool:
    """Whether a word is the program's kind or a part of its name."""
    return any(word == program.kind or (word not in KINDS and word in program.name) for word in words)


def settings_of(options, lengths: Lengths, where: Slice, argv: list[str]) -> dict:
    """What a plan was made with: every row carries it. `overrides`: the flags that change the config, as given."""
    changes = [f"--{name.replace('_', '-')}" for name in COMPUTE]
    told = []
    for i, word in enumerate(argv):
        flag, equals, _ = word.partition("=")
        if flag.startswith("--config.") or flag in changes:
            told.append(word if equals else f"{word}={argv[i + 1]}")
    flags = ("config", "efficiency", "price", "decoder", "sampling_tensor", "sampling_rows", "limit", "compile")
    kept = {name: getattr(options, name) for name in flags}
    slices = {"topology": where.name, "slices": where.slices}
    return kept | slices | dataclasses.asdict(lengths) | {"overrides": " ".join(told)}


def divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--topology", required=True, help="CHIP:SHAPE, e.g. v5e:8x8, v5p:4x4x4, v6e:8x8, v4:2x2x4")
    parser.add_argument("--slices", type=int, default=1, help="so many of them, the mesh's data axis across")
    parser.add_argument("--search", action="store_true", help="try meshes and micro-batches of the dearest train step")
    parser.add_argument(
        "--programs", default=",".join(KINDS), help="kinds (train, prefill, decode, score) or parts of names"
    )
    parser.add_argument("--price", type=float, default=0.0, help="of a chip-hour")
    parser.add_argument("--efficiency", type=float, default=1.0, help="share of the bound that a run reaches")
    parser.add_argument("--decoder", help="the base model's config.json, where base.pretrained is not on this machine")
    parser.add_argument("--sampling-tensor", type=int, default=0, help="chips of one sampling replica (0: chosen)")
    parser.add_argument("--sampling-rows", type=int, default=0, help="rows of one replica (0: sample.rows)")
    parser.add_argument("--limit", type=float, default=900.0, help="seconds that one program may compile")
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="the arithmetic alone")
    for field in dataclasses.fields(Lengths):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default)
    for name, kind in (("remat", str), ("attention", str), ("vocab_chunk", int)):
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, help=f"instead of the config's {name}")
    parser.add_argument("--json", help="write the rows to this file")
    try:
        jax.config.update("jax_platforms", "cpu")  # with libtpu installed jax would look for a TPU here, for minutes
        options, options.locked = parse_flags(parser, argv)
        c = options.locked.to_dict()
        where = plan_chips.parse(options.topology, options.slices)
        lengths = Lengths(**{f.name: getattr(options, f.name) for f in dataclasses.fields(Lengths)})
        changes = {name: getattr(options, name) for name in COMPUTE}
        config = plan_programs.decoder_config(c, options.decoder, changes)
        training, note = training_mesh(c, where, config)
        options.compile = options.compile and plan_compile.available()
        graph(options.locked)  # a config that would not run is not planned either
        programs = plan_programs.programs(c, lengths, options.sampling_rows, changes)
        words = options.programs.split(",")
        if unknown := [word for word in words if not any(wanted(program, [word]) for program in programs)]:
            names = ", ".join(program.name for program in programs)
            raise UsageError(f"--programs: nothing is {', '.join(unknown)}; there are {', '.join(KINDS)}, and {names}")
        if min(lengths.prompt, lengths.mean_prompt, lengths.mean_response) <= 0 or lengths.steps < 1:
            raise UsageError("--prompt, --mean-prompt and --mean-response must be above 0, --steps at least 1")
        if options.price < 0 or not 0 < options.efficiency <= 1 or options.limit <= 0 or options.sampling_rows < 0:
            raise UsageError(
                "--price and --sampling-rows must not be negative, --limit above 0, --efficiency in (0, 1]"
            )
        if options.json and (Path(options.json).is_dir() or not os.access(Path(options.json).parent, os.W_OK)):
            raise UsageError(f"--json={options.json}: no file can be written there")
        replica = sampling_mesh(options.sampling_tensor, where, config, training)
        options.notes = [note] if note else []
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    rows = []
    for program in programs:
        if wanted(program, words):
            mesh = training if program.kind == "train" else replica
            rows.append(row_of(program, config, where, mesh, options, greedy_of(programs)))
            print(f"looked at {program.name}", file=sys.stderr, flush=True)
    stages = experiment(c, config, rows, programs, lengths, where, options) if len(rows) == len(programs) else []
    if options.search:
        found = [row | {"program": f"search: {row['program']}"} for row in search(c, config, where, programs, options)]
        rows += found
        if not found:
            options.notes.append(
                "search: no mesh and micro-batch of this slice holds the train step: a larger slice, or LoRA"
            )
    print(show(rows, stages, where, options))
    if options.json:
        settings = settings_of(options, lengths, where, sys.argv[1:] if argv is None else argv)
        flat = [
            {k: v for k, v in row.items() if k not in ("collectives", "sent")}
            | {
                f"{e['collective']}_{e['axis']}_bytes".replace("-", "_"): e["bytes"]
                for e in row.get("collectives") or []
            }
            for row in rows
        ]
        write_atomic(Path(options.json), json.dumps([settings | row for row in [*flat, *stages]], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
