"""Stage `base`: the policy that everything starts from, a pre-trained one or a new one of a given shape."""

import json
from pathlib import Path

import jax

from experiments.artifacts import read_problems
from experiments.cells import write_atomic
from synthrl_jax import pod
from synthrl_jax import policy as policies
from synthrl_jax.policy import decoder, hf_weights, sharding
from synthrl_jax.policy.checkpoint import find_pretrained, read_config
from synthrl_jax.policy.tokenizer import load_tokenizer, train_sentencepiece


def base(settings: dict, inputs: dict[str, Path], out: Path, seed: int, label: str) -> None:
    """`settings.pretrained` is a path or a shipped name (kept as a pointer with its checksum), or None: then a decoder of
    `settings.decoder` is initialised and a SentencePiece model of `settings.pieces` trained on the training text."""
    if settings["pretrained"]:
        place = settings["pretrained"]
        found = policies.load_pretrained(place, sharding.sampling_mesh(read_config(place), settings.get("mesh")))
        if found.tokenizer is None:
            raise ValueError(f"{settings['pretrained']} holds no tokenizer.model or tokenizer.json")
        pointer = {"pretrained": settings["pretrained"], "checksum": policies.checksum(found.params)}
        write_atomic(out / "pointer.json", json.dumps(pointer) + "\n")
        return
    texts = [text for problem in read_problems(inputs["data"]) for text in (problem.question, problem.solution)]
    tokenizer = train_sentencepiece(texts, settings["pieces"])
    # a vocabulary may be padded beyond the tokenizer's, to divide over a mesh
    config = decoder.DecoderConfig(**{"vocab_size": tokenizer.vocab_size, **settings["decoder"]})
    if config.vocab_size < tokenizer.vocab_size:
        raise ValueError(
            f"base.decoder.vocab_size is {config.vocab_size}, the tokenizer has {tokenizer.vocab_size} pieces"
        )
    params = decoder.init(config, jax.random.key(seed))
    save_policy(out, config, params, tokenizer)


def save_policy(cell: Path, config: decoder.DecoderConfig, params: decoder.Params, tokenizer) -> None:
    """Write a policy into a cell, in Hugging Face form."""
    hf_weights.save(cell / "policy", config, params)
    if pod.first():
        tokenizer.save(str(cell / "policy"))


def point_to(cell: Path, other: Path) -> None:
    """Make another cell's policy the policy of this one."""
    write_atomic(cell / "pointer.json", json.dumps({"cell": other.name}) + "\n")


def policy_place(cell: Path) -> str:
    """Where the policy of a cell lies: its own, or the one that it points to (a pre-trained one, or a cell beside it)."""
    pointer = cell / "pointer.json"
    if not pointer.exists():
        return str(cell / "policy")
    found = json.loads(pointer.read_text())
    return policy_place(cell.parent / found["cell"]) if "cell" in found else found["pretrained"]


def load_policy(cell: Path, mesh=None):
    """The policy of a cell; onto a mesh, where one is given, without a whole copy anywhere."""
    return policies.load_pretrained(policy_place(cell), mesh)


def load_sampler(cell: Path, settings: dict):
    """The policy of a cell as a process draws, scores and answers with it, split as `settings.mesh` says: `sampling_mesh`."""
    place = policy_place(cell)
    return policies.load_pretrained(place, sharding.sampling_mesh(read_config(place), settings.get("mesh")))


def load_tokenizer_of(cell: Path):
    """The tokenizer of a cell's policy, without its weights."""
    return load_tokenizer(find_pretrained(policy_place(cell)))
