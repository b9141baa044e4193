"""A whole experiment on a slice: hours, chip-hours, cost and bytes of its stages, from the rows of its programs."""

from experiments import plan_arithmetic as arithmetic
from experiments import plan_programs
from experiments.graph import plan as graph
from experiments.plan_chips import Slice
from experiments.plan_programs import Lengths, Program


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
