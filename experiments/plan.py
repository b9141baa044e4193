"""Will an experiment fit on a TPU slice, how long will it take, what will it cost: told before anything is paid for.

    python -m experiments.plan --config=configs/FILE.py --topology=v5e:8x8 [--search] [--price=1.2] [--json FILE]

Compiles the config's programs (a train step for each loss, prefill, decode chunk, scoring) ahead of time for the topology, on any
Linux machine with libtpu (`pip install 'synthrl_jax[plan]'`); without it the arithmetic alone. Times are bounds by the data
sheet, divided by --efficiency. Lengths and steps are assumptions, given by flags.
"""

import argparse
import dataclasses
import json
import math
import sys

import jax

from experiments import plan_arithmetic as arithmetic
from experiments import plan_chips, plan_compile, plan_count, plan_programs
from experiments.cells import write_atomic
from experiments.graph import plan as graph
from experiments.plan_chips import GIB, Slice
from experiments.plan_programs import Lengths, Program
from experiments.settings import UsageError, parse_flags

KINDS = ("train", "prefill", "decode", "score")


def meshes(
    c: dict, where: Slice, sampling_tensor: int, config, decode: Program
) -> tuple[dict[str, int], dict[str, int]]:
    """(training mesh over all chips, mesh of one sampling replica). The config's mesh if it fits the slice, else its tensor axis
    kept, `data` over the slices and `fsdp` over the chips of one."""
    asked = dict(c["mesh"])
    tensor = max(1, asked["tensor"])
    if math.prod(asked.values()) != where.chips or -1 in asked.values():
        if where.chips % (tensor * where.slices):
            raise UsageError(f"mesh.tensor={tensor} does not divide the {where.chips} chips of {where.name}")
        asked = {"data": where.slices, "fsdp": where.chips // where.slices // tensor, "tensor": tensor}
    most = min(where.chip.host_chips, where.chips)
    replica = sampling_tensor or 1
    while not sampling_tensor and replica < most:  # the fewest chips of a host that hold weights and caches
        mesh = {"data": 1, "fsdp": 1, "tensor": replica}
        if arithmetic.resident_bytes(decode, config, mesh, plan_programs.sampler_shape(decode)) < 0.85 * where.usable:
            break
        replica *= 4
    return asked, {"data": 1, "fsdp": 1, "tensor": replica}


def row_of(program: Program, config, where: Slice, mesh: dict[str, int], options) -> dict:
    """A program's row: counted and hand-made FLOPs, memory, traffic, time bounds, and what to change."""
    shape = None
    if program.kind in ("prefill", "decode"):
        shape = plan_programs.sampler_shape(program)
    chips = math.prod(mesh.values())
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
    }
    row |= {"peak_bytes": None, "fits": None, "compiled": False, "note": ""}
    divides = program.micro_rows % (mesh["data"] * mesh["fsdp"]) == 0
    if program.kind in ("train", "score") and not divides:
        row |= {
            "fits": False,
            "note": f"{program.micro_rows} rows do not divide over {mesh['data'] * mesh['fsdp']} chips",
        }
    elif row["resident_bytes"] > where.usable:
        row |= {"fits": False, "peak_bytes": row["resident_bytes"]}
        row["note"] = "not compiled: what it cannot do without exceeds the chip's memory"
    elif options.compile:
        topology, slices = where.name, where.slices
        if program.kind in ("prefill", "decode"):  # a replica is a slice of its own: its devices are numbered from 0
            topology, slices = plan_chips.smallest(chip, chips), 1
        found = plan_compile.compile_program(program, config, topology, slices, mesh, options.limit)
        row["note"] = found.pop("error", "")
        row |= {name: value for name, value in found.items() if name != "collectives"}
        row["collectives"] = found.get("collectives")
        if row["peak_bytes"] is not None:  # of a failed compilation only where it ran out of memory
            row["fits"] = found["compiled"] and row["peak_bytes"] <= chip.memory
    memory = row.get("memory_traffic") or arithmetic.memory_traffic(program, config, mesh, shape)
    row["memory_traffic"] = memory
    inside, outside = sent(program, config, mesh, where, row.get("collectives"), shape)
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


def sent(program, config, mesh, where: Slice, collectives, shape=None) -> tuple[float, float]:
    """Bytes that a chip sends inside of its slice and between slices."""
    if collectives is None:
        by_axis = arithmetic.interconnect_traffic(program, config, mesh, shape)
    else:
        by_axis = {}
        for entry in collectives:
            by_axis[entry["axis"]] = by_axis.get(entry["axis"], 0.0) + entry["bytes"]
    outside = sum(n for axis, n in by_axis.items() if where.slices > 1 and "data" in axis)
    return sum(by_axis.values()) - outside, outside


def advice(program: Program, config, where: Slice, mesh: dict[str, int], row: dict) -> str:
    """What to change first where a program does not fit."""
    ways = mesh["data"] * mesh["fsdp"]
    if program.kind in ("train", "score") and program.micro_rows % ways:
        return f"make train.batch / micro a multiple of {ways}, or a mesh with fewer ways"
    if program.kind in ("prefill", "decode"):
        most = where.chip.host_chips
        if mesh["tensor"] < most:
            return f"--sampling-tensor={most}: weights and caches over more chips; or fewer rows (sample.rows)"
        return "fewer rows (sample.rows) or shorter continuations (sample.max_tokens)"
    state = arithmetic.parameters(config) * 16.0 / (mesh["fsdp"] * mesh["tensor"])
    if state > 0.6 * where.usable:
        least = arithmetic.parameters(config) * 16.0 / (0.6 * where.usable)
        return (
            f"mesh: parameters, moments and gradients take {state / GIB:.1f} GiB a chip; fsdp x tensor of {math.ceil(least)} or "
            "more (a larger slice), or LoRA"
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
    score_rate = score["rows"] * score["length"] / score["seconds"]
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
        out.append(entry)
    total = {"stage": "total", **{k: sum(e[k] or 0 for e in out) for k in out[0] if k != "stage"}}
    total["cost"] = total["cost"] if options.price else None
    # float32 parameters and both moments; the exported policy in bfloat16
    total["checkpoint_bytes"] = 12.0 * arithmetic.parameters(config)
    total["policy_bytes"] = 2.0 * arithmetic.parameters(config)
    return [*out, total]


def prefill_tokens(made: list[Program]) -> float:
    """Tokens that one prefill takes."""
    shape = plan_programs.sampler_shape(next(p for p in made if p.kind == "prefill"))
    return shape.jobs * shape.prefix


def search(c: dict, config, where: Slice, programs: list[Program], options, best: int = 3) -> list[dict]:
    """The dearest train step on every mesh and micro-batch that divides, by paper time; the best few compiled."""
    program = max((p for p in programs if p.kind == "train"), key=lambda p: arithmetic.program_flops(p, config))
    found = []
    inside = where.chips // where.slices
    for tensor in [n for n in (1, 2, 4, 8) if inside % n == 0 and config.heads % n == 0 and config.kv_heads % n == 0]:
        for fsdp in [n for n in divisors(inside // tensor) if config.width % n == 0]:
            mesh = {"data": where.chips // tensor // fsdp, "fsdp": fsdp, "tensor": tensor}
            for micro in [m for m in divisors(program.rows) if program.rows // m % (mesh["data"] * fsdp) == 0]:
                candidate = dataclasses.replace(program, micro=micro)
                need = arithmetic.resident_bytes(candidate, config, mesh)
                if need < 0.8 * where.usable:
                    found.append((paper_seconds(candidate, config, where, mesh), micro, candidate, mesh))
    found.sort(key=lambda entry: entry[:2])
    kept, seen = [], set()
    for _, _, candidate, mesh in found:
        if str(mesh) not in seen and len(kept) < best:  # of a mesh the fewest micro-batches first
            seen.add(str(mesh))
            kept.append(row_of(candidate, config, where, mesh, options))
            if kept[-1]["fits"] is False and candidate.micro < program.rows:
                halved = dataclasses.replace(candidate, micro=candidate.micro * 2)
                if halved.micro_rows % (mesh["data"] * mesh["fsdp"]) == 0:
                    kept.append(row_of(halved, config, where, mesh, options))
    return sorted(kept, key=lambda row: (row["fits"] is False, row["seconds"]))


def paper_seconds(program: Program, config, where: Slice, mesh: dict[str, int]) -> float:
    """The largest of the three bounds, from arithmetic alone."""
    chips, chip = math.prod(mesh.values()), where.chip
    inside, outside = sent(program, config, mesh, where, None)
    compute = arithmetic.program_flops(program, config) / chips / chip.flops
    memory = arithmetic.memory_traffic(program, config, mesh) / chip.bandwidth
    return max(compute, memory, inside / chip.interconnect + outside / plan_chips.DATA_CENTRE)


def divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


def number(value, unit: float = 1.0, digits: int = 2) -> str:
    return "-" if value is None else f"{value / unit:,.{digits}f}"


def show(rows: list[dict], stages: list[dict], where: Slice, options) -> str:
    """The tables that the terminal gets."""
    chip = where.chip
    lines = [
        f"{where.name} x {where.slices}: {where.chips} chips of {chip.flops / 1e12:.0f} TFLOP/s (dense bfloat16), "
        f"{where.usable / GIB:.2f} GiB for programs, {chip.bandwidth / 1e9:.0f} GB/s memory, {chip.interconnect / 1e9:.0f} GB/s "
        "interconnect one way (data sheet)",
        "",
        f"{'program':32} {'mesh':>9} {'rows':>6} {'GiB args':>9} {'temps':>7} {'peak':>7} {'fits':>5} {'TFLOP':>10} "
        f"{'compute s':>10} {'memory s':>9} {'network s':>9} {'MFU':>5}  bound",
    ]
    for row in rows:
        fits = {None: "?", True: "yes", False: "NO"}[row["fits"]]
        lines.append(
            f"{row['program'][:32]:32} {row['mesh']:>9} {row['rows']:>6} {number(row.get('argument_bytes'), GIB):>9} "
            f"{number(row.get('temporary_bytes'), GIB):>7} {number(row['peak_bytes'], GIB):>7} {fits:>5} "
            f"{number(row['counted_flops'], 1e12, 1):>10} {row['compute_seconds']:>10.4f} {row['memory_seconds']:>9.4f} "
            f"{row['interconnect_seconds']:>9.4f} {row['mfu']:>5.2f}  {row['bound']}"
        )
        for entry in row.get("collectives") or []:
            lines.append(
                f"    {entry['collective']} over {entry['axis']}: {entry['count']:,.0f} x, {entry['bytes'] / 1e9:,.3f} GB a chip"
            )
        if row["note"]:
            lines.append(f"    {row['note']}")
        if row.get("advice"):
            lines.append(f"    change: {row['advice']}")
    if stages:
        head = (
            f"{'stage':12} {'cells':>5} {'tokens':>16} {'rollouts':>13} {'updates':>9} {'hours':>9} {'chip-hours':>11} "
        )
        lines += ["", head + f"{'stored GB':>10} {'cost':>10}"]
        for e in stages:
            lines.append(
                f"{e['stage']:12} {e['cells']:>5} {e['tokens_generated']:>16,.0f} {e['rollouts']:>13,.0f} {e['updates']:>9,.0f} "
                f"{e['hours']:>9.2f} {e['chip_hours']:>11.1f} {e['stored_bytes'] / 1e9:>10.2f} {number(e['cost']):>10}"
            )
        total = stages[-1]
        lines.append(
            f"a training checkpoint is {total['checkpoint_bytes'] / 1e9:.1f} GB, an exported policy "
            f"{total['policy_bytes'] / 1e9:.1f} GB; hours are data-sheet bounds over an efficiency of {options.efficiency:g}"
        )
    if not plan_compile.available():
        lines += ["", plan_compile.INSTALL]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--topology", required=True, help="CHIP:SHAPE, e.g. v5e:8x8, v5p:4x4x4, v6e:8x8, v4:2x2x4")
    parser.add_argument("--slices", type=int, default=1, help="so many of them, the mesh's data axis across")
    parser.add_argument("--search", action="store_true", help="try meshes and micro-batches of the dearest train step")
    parser.add_argument("--programs", default=",".join(KINDS), help="kinds to look at, of train,prefill,decode,score")
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
        changes = {name: getattr(options, name) for name in ("remat", "attention", "vocab_chunk")}
        config = plan_programs.decoder_config(c, options.decoder, changes)
        kinds = options.programs.split(",")
        if unknown := set(kinds) - set(KINDS):
            raise UsageError(f"--programs: no kind {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
        options.compile = options.compile and plan_compile.available()
        graph(options.locked)  # a config that would not run is not planned either
        programs = plan_programs.programs(c, lengths, options.sampling_rows)
        training, replica = meshes(
            c, where, options.sampling_tensor, config, next(p for p in programs if p.kind == "decode")
        )
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    rows = []
    for program in programs:
        if program.kind in kinds:
            mesh = replica if program.kind in ("prefill", "decode") else training
            rows.append(row_of(program, config, where, mesh, options))
            print(f"looked at {program.name}", file=sys.stderr, flush=True)
    stages = experiment(c, config, rows, programs, lengths, where, options) if set(kinds) == set(KINDS) else []
    if options.search:
        rows += [row | {"program": f"search: {row['program']}"} for row in search(c, config, where, programs, options)]
    print(show(rows, stages, where, options))
    if options.json:
        settings = {
            "config": options.config,
            "topology": where.name,
            "slices": where.slices,
            "efficiency": options.efficiency,
        }
        flat = [
            {k: v for k, v in row.items() if k != "collectives"}
            | {
                f"{e['collective']}_{e['axis']}_bytes".replace("-", "_"): e["bytes"]
                for e in row.get("collectives") or []
            }
            for row in rows
        ]
        from pathlib import Path

        write_atomic(Path(options.json), json.dumps([settings | row for row in [*flat, *stages]], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
