"""Turn a model in Hugging Face form into an Orbax checkpoint, or the other way; either one can be a config's `base.pretrained`.

    python -m experiments.convert Llama-2-7b-hf checkpoints/llama2      # Hugging Face -> Orbax
    python -m experiments.convert checkpoints/llama2 Llama-2-7b-again   # Orbax -> Hugging Face, as transformers loads it

SOURCE may also be a shipped name. `--to` asks for a form (default: the other one than the source's), `--dtype` for a type
(default: the stored one; float16 becomes float32). On several devices `--fsdp` and `--tensor` spread the parameters over them.
"""

import argparse
import json
import sys
from pathlib import Path

from experiments.settings import UsageError

FORMS = ("hf", "orbax")
DTYPES = ("float32", "bfloat16")


def convert(source: str, target: str, to: str | None = None, dtype: str | None = None, mesh=None) -> dict:
    """Convert, and give the row that the command prints. UsageError: the target is taken; ValueError: a damaged source."""
    from synthrl_jax.policy import checkpoint, hf_weights

    directory = checkpoint.find_pretrained(source)
    form = "orbax" if (directory / checkpoint.CONFIG).exists() else "hf"
    to = to or FORMS[FORMS.index(form) - 1]
    if Path(target).exists() and any(Path(target).iterdir()):
        raise UsageError(f"{target} is not empty: give a directory of its own")
    policy = checkpoint.load_pretrained(str(directory), mesh=mesh, dtype=dtype or checkpoint.stored_dtype(directory))
    if to == "orbax":
        checkpoint.save_checkpoint(target, policy.config, policy.params, policy.tokenizer)
    else:
        ids = {} if policy.tokenizer is None else {"eos_token_id": policy.tokenizer.eos_id}
        if policy.tokenizer is not None and policy.tokenizer.bos_id is not None:
            ids["bos_token_id"] = policy.tokenizer.bos_id
        hf_weights.save(target, policy.config, policy.params, extra=ids)
        if policy.tokenizer is not None:
            policy.tokenizer.save(target)
    return {
        "source": str(source), "target": str(target), "from": form, "to": to, "dtype": policy.config.dtype,
        "parameters": hf_weights.count_parameters(policy.config), "tokenizer": policy.tokenizer is not None,
        "checksum": checkpoint.checksum(policy.params),
    }  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "source", help="a directory in Hugging Face form, an Orbax checkpoint of ours, or a shipped name"
    )
    parser.add_argument("target", help="a directory that is not there yet, or empty")
    parser.add_argument("--to", choices=FORMS, help="the form to write; default: the other one than the source's")
    parser.add_argument("--dtype", choices=DTYPES, help="the type to write; default: the stored one")
    parser.add_argument("--fsdp", type=int, default=1, help="devices over which parameters are spread by width")
    parser.add_argument("--tensor", type=int, default=1, help="devices over which parameters are spread by heads")
    parser.add_argument("--json", help="write the row to this file")
    args = parser.parse_args(argv)
    try:
        mesh = None
        if args.fsdp * args.tensor > 1:
            from synthrl_jax.policy import sharding

            mesh = sharding.make_mesh(fsdp=args.fsdp, tensor=args.tensor)
        row = convert(args.source, args.target, args.to, args.dtype, mesh)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(
        "{source} ({from}) -> {target} ({to}): {parameters:,} parameters, {dtype}, checksum {checksum}".format(**row)
        + ("" if row["tokenizer"] else "; no tokenizer")
    )
    if args.json:
        Path(args.json).write_text(json.dumps([row], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
