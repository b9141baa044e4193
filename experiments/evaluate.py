"""Evaluate one policy on any problem source, e.g. out of distribution; a run's own policies lie in WORKDIR/cells/*/policy.

    python -m experiments.evaluate runs/gsm8k_llama2_7b/cells/CELL/policy --config=configs/gsm8k_llama2_7b.py \\
        --source=svamp,multiarith,gsm_hard --path=data/ood [--n=16 --k=5] [--json FILE]

The prompt, the grading convention and the sampler are those of the config, so that numbers compare with its table. Accuracy
is greedy; with --n there is pass@k too; 95 % intervals are over problems.
"""

import argparse
import json
import sys
from pathlib import Path

from experiments.cells import write_atomic
from experiments.fields import DRAWING, inherited
from experiments.settings import UsageError, parse_flags


def evaluate(policy, problems: list, c: dict, n: int, k: int, seed: int = 0) -> dict:
    """The row of the result table for one policy and one set of problems."""
    from experiments.stages.evaluate import graded_samples, summary

    own = {name: value for name, value in c["evaluate"].items() if name in DRAWING}
    settings = {**inherited(c), **own, "grading": c["grading"]}
    greedy = graded_samples(policy, problems, c["prompt"], {**settings, "temperature": 0.0}, 1, seed)
    drawn = graded_samples(policy, problems, c["prompt"], settings, n, seed) if n else [[] for _ in problems]
    rows = []
    for problem, first, several in zip(problems, greedy, drawn):
        outcomes = [verdict.outcome for _, verdict in several]
        samples = sum(outcome != "grader_error" for outcome in outcomes)
        row = {
            "id": problem.id,
            "outcome": first[0][1].outcome,
            "samples": samples,
            "correct": outcomes.count("correct"),
        }
        rows.append(row)
    return summary(rows, k)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policy", help="a directory in Hugging Face form, an Orbax checkpoint, or a shipped name")
    parser.add_argument(
        "--source", default="svamp,multiarith,gsm_hard", help="problem sources, with commas between them"
    )
    parser.add_argument("--path", default="", help="where their files are")
    parser.add_argument("--split", default="test")
    parser.add_argument("--count", type=int, help="so many problems of each (default: all)")
    parser.add_argument("--n", type=int, default=0, help="samples a problem, for pass@k (default: greedy alone)")
    parser.add_argument("--k", type=int, default=5)
    parser.add_argument("--json", help="write the rows to this file")
    try:
        args, config = parse_flags(parser, argv)
        if args.n and args.n < args.k:
            raise UsageError(f"--n={args.n} samples are too few for pass@{args.k}")
        from synthrl_jax import policy as policies
        from synthrl_jax.policy import sharding
        from synthrl_jax.problems.problem import load

        where = {"path": args.path} if args.path else {}
        sets = {name: load(name, args.split, count=args.count, **where) for name in args.source.split(",")}
        decoder_config = policies.checkpoint.read_config(args.policy)
        policy = policies.load_pretrained(args.policy, sharding.sampling_mesh(decoder_config, config.mesh.to_dict()))
        if policy.tokenizer is None:
            raise UsageError(f"{args.policy}: it holds no tokenizer")
        rows = []
        for name, problems in sets.items():
            found = evaluate(policy, problems, config.to_dict(), args.n, args.k)
            rows.append({"policy": args.policy, "source": name, "split": args.split, "config": config.name, **found})
            print(
                "{source:>12}  {problems:5} problems  accuracy {accuracy:.4f} [{accuracy_lo:.4f}, {accuracy_hi:.4f}]".format(
                    **rows[-1]
                )
            )
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.json:
        write_atomic(Path(args.json), json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
