"""Will an experiment fit on a TPU slice, how long will it take, what will it cost: told before anything is paid for.

    python -m experiments.plan --config=configs/FILE.py --topology=v5e:8x8 [--search] [--price=1.2] [--json FILE]

Compiles the config's programs (a train step for each loss, prefill, decode chunk, scoring) ahead of time for the topology, on any
Linux machine with libtpu (`pip install -e '.[plan]'`); without it the arithmetic alone. Times are bounds by the data
sheet, divided by --efficiency. Lengths and steps are assumptions, given by flags.
"""

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path

import jax

from experiments import plan_chips, plan_compile, plan_programs
from experiments.cells import write_atomic
from experiments.graph import plan as graph
from experiments.plan_chips import Slice
from experiments.plan_experiment import experiment
from experiments.plan_meshes import sampling_mesh, search, training_mesh
from experiments.plan_programs import Lengths, Program
from experiments.plan_rows import greedy_of, row_of
from experiments.plan_table import show
from experiments.settings import UsageError, parse_flags

KINDS = ("train", "prefill", "decode", "score")
COMPUTE = ("remat", "attention", "vocab_chunk")  # of how training computes, what flags may change


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
