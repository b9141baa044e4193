"""Policies of any kind from a path: a Hugging Face directory, our Orbax checkpoint, or a shipped name."""

import contextlib
import dataclasses
import hashlib
import json
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh

from synthrl_jax.policy import decoder, hf_weights, sharding
from synthrl_jax.policy.tensor_files import open_tensors

ASSETS = epath.Path(__file__).parent.parent / "assets"
CONFIG, PARAMS = "decoder.json", "params"


@dataclasses.dataclass(frozen=True)
class Policy:
    """A decoder with its parameters; `tokenizer` is None where its directory has none."""

    config: decoder.DecoderConfig
    params: decoder.Params
    tokenizer: Any = None


def load_pretrained(path, mesh: Mesh | None = None, dtype=None) -> Policy:
    """Policy of a directory in Hugging Face form, an Orbax checkpoint of ours, or a shipped name.

    dtype: float32 on CPU and bfloat16 on accelerators unless told. FileNotFoundError: nothing of the kind is there.
    """
    directory = find_pretrained(path)
    if (directory / CONFIG).exists():
        config, params = load_checkpoint(directory, mesh, dtype)
    else:
        config, params = hf_weights.load(directory, mesh, dtype)
    from synthrl_jax.policy.tokenizer import load_tokenizer

    return Policy(config, params, load_tokenizer(directory))


def read_config(path) -> decoder.DecoderConfig:
    """The decoder's config of what `load_pretrained` takes, in the type that it would compute in; no weights are read."""
    directory = find_pretrained(path)
    if (directory / CONFIG).exists():
        return decoder.with_dtype(_own_config(directory))
    return decoder.with_dtype(hf_weights.read_config(directory))


def _own_config(directory) -> decoder.DecoderConfig:
    try:
        return decoder.DecoderConfig(**json.loads((directory / CONFIG).read_text()))
    except (TypeError, ValueError) as error:
        raise hf_weights.WeightsError(f"{directory / CONFIG}: {error}") from None


def find_pretrained(path):
    """The directory of a path or a shipped name. FileNotFoundError: neither."""
    directory = epath.Path(path)
    if not directory.exists() and (ASSETS / str(path)).is_dir():
        directory = ASSETS / str(path)
    if not directory.is_dir():
        shipped = sorted(child.name for child in ASSETS.iterdir() if child.is_dir()) if ASSETS.exists() else []
        raise FileNotFoundError(f"{path} is neither a directory nor a shipped model ({', '.join(shipped) or 'none'})")
    return directory


def save_checkpoint(directory, config: decoder.DecoderConfig, params: decoder.Params, tokenizer=None):
    """Write parameters as an Orbax checkpoint with the decoder's config and the tokenizer's files; replaces one that is there.

    Every process of a multi-host run calls it and writes what its devices hold.
    """
    import orbax.checkpoint as ocp

    directory = epath.Path(directory).absolute() if "://" not in str(directory) else epath.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(directory / PARAMS, params, force=True)
    if jax.process_index() == 0:
        if tokenizer is not None:
            tokenizer.save(str(directory))
        # last: a directory with a config holds whole parameters
        (directory / CONFIG).write_text(json.dumps(dataclasses.asdict(config), indent=2) + "\n")


def load_checkpoint(directory, mesh: Mesh | None = None, dtype=None) -> tuple[decoder.DecoderConfig, decoder.Params]:
    """(config, params) that `save_checkpoint` wrote, onto any mesh; WeightsError if they do not fit each other."""
    import orbax.checkpoint as ocp

    directory = epath.Path(directory).absolute() if "://" not in str(directory) else epath.Path(directory)
    if not (directory / CONFIG).exists() or not (directory / PARAMS).exists():
        raise FileNotFoundError(f"{directory} is not a checkpoint: it lacks {CONFIG} or {PARAMS}")
    config = decoder.with_dtype(_own_config(directory), dtype)
    if mesh is None:
        one = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        placement = jax.tree.map(lambda _: one, decoder.shapes(config))
    else:
        placement = sharding.shardings(config, mesh)
    target = jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, config.dtype, sharding=where),
        decoder.shapes(config),
        placement,
    )
    with ocp.StandardCheckpointer() as checkpointer:
        try:
            found = checkpointer.metadata(directory / PARAMS).item_metadata.tree
        except (FileNotFoundError, ValueError, AttributeError) as error:
            raise hf_weights.WeightsError(f"{directory / PARAMS} holds no parameters: {error}") from None
        _check_shapes(directory, found, target)
        return config, checkpointer.restore(directory / PARAMS, target)


def _check_shapes(directory, found, target):
    def named(tree):
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        return {jax.tree_util.keystr(path): tuple(leaf.shape) for path, leaf in leaves}

    found, wanted = named(found), named(target)
    for name in sorted(set(found) ^ set(wanted)):
        raise hf_weights.WeightsError(f"{directory}: {name} is {'extra' if name in found else 'missing'}")
    for name, shape in wanted.items():
        if found[name] != shape:
            raise hf_weights.WeightsError(f"{directory}: {name} has shape {found[name]}, the config asks for {shape}")


def stored_dtype(directory) -> str:
    """The type to keep when a pretrained directory is converted: bfloat16 where it is stored so, else float32."""
    directory = epath.Path(directory)
    if (directory / CONFIG).exists():
        return json.loads((directory / CONFIG).read_text()).get("dtype", "float32")
    hf_weights.read_config(directory)
    with contextlib.ExitStack() as stack:
        kinds = {tensor.dtype for tensor in open_tensors(directory, stack).values() if tensor.is_float}
    return "bfloat16" if kinds == {"BF16"} else "float32"


def checksum(params: decoder.Params) -> str:
    """Stable hash (16 hex digits) of the parameters' names, shapes, types and bytes; the same for any sharding."""
    digest = hashlib.blake2b(digest_size=8)
    for path, leaf in sorted((jax.tree_util.keystr(p), x) for p, x in jax.tree_util.tree_leaves_with_path(params)):
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            from jax.experimental import multihost_utils

            leaf = multihost_utils.process_allgather(leaf, tiled=True)
        array = np.ascontiguousarray(leaf)
        digest.update(f"{path} {array.shape} {array.dtype}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8))
    return digest.hexdigest()
