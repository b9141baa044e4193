"""Stage `base`: the policy that everything starts from, a pre-trained one or a new one of a given shape."""

import json
from pathlib import Path

import jax

from experiments.artifacts import read_problems
from experiments.cells import write_atomic
from synthrl_jax import pod
from synthrl_jax import policy as policies
from synthrl_jax.policy import decoder, hf_weights, sharding
from synthrl_jax.policy.tokenizer import train_sentencepiece


def base(settings: dict, inputs: dict[str, Path], out: Path, seed: int, label: str) -> None:
    """`settings.pretrained` is a path or a shipped name (kept as a pointer with its checksum), or None: then a decoder of
    `settings.decoder` is initialised and a SentencePiece model of `settings.pieces` trained on the training text."""
    if settings["pretrained"]:
        found = policies.load_pretrained(settings["pretrained"])
        if found.tokenizer is None:
            raise ValueError(f"{settings['pretrained']} holds no tokenizer.model or tokenizer.json")
        pointer = {"pretrained": settings["pretrained"], "checksum": policies.checksum(found.params)}
        write_atomic(out / "pointer.json", json.dumps(pointer) + "\n")
        return
    texts = [text for problem in read_problems(inputs["data"]) for text in (problem.question, problem.solution)]
    tokenizer = train_sentencepiece(texts, settings["pieces"])
    config = decoder.DecoderConfig(vocab_size=tokenizer.vocab_size, **settings["decoder"])
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


def load_policy(cell: Path, mesh=None):
    """The policy of a cell: its own, or the one that it points to (a pre-trained one, or a cell beside it); onto a mesh, where
    one is given, without a whole copy anywhere."""
    pointer = cell / "pointer.json"
    if pointer.exists():
        found = json.loads(pointer.read_text())
        if "cell" in found:
            return load_policy(cell.parent / found["cell"], mesh)
        return policies.load_pretrained(found["pretrained"], mesh)
    return policies.load_pretrained(str(cell / "policy"), mesh)


def host_mesh():
    """The mesh on which a process draws, scores and answers by itself: all chips of its host, each with a part of every matrix;
    None on a CPU and where there is one chip."""
    if jax.default_backend() == "cpu" or jax.local_device_count() == 1:
        return None
    return sharding.make_mesh(data=1, tensor=jax.local_device_count(), devices=jax.local_devices())


def load_sampler(cell: Path):
    """The policy of a cell, on this process's own chips."""
    return load_policy(cell, host_mesh())
