"""Decoder parameters from and to a Hugging Face directory: config.json and *.safetensors."""

import contextlib
import json
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import Mesh

from synthrl_jax.policy import decoder, families, sharding

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


class WeightsError(ValueError):
    """Weights that do not fit their config; the message names the tensor or file."""


class Tensor(NamedTuple):
    """Where one of our parameters lies in a Hugging Face checkpoint."""

    path: tuple[str, ...]  # in our parameters; under "layers" one HF tensor per layer
    name: str  # HF name, {} for the layer
    view: tuple[int, ...]  # HF shape with its head axis split into (heads, head_dim)
    order: tuple[int, ...]  # our axes, as axes of the view
    heads: int | None = None  # HF axis that the view splits

    @property
    def shape(self) -> tuple[int, ...]:
        """HF's own shape."""
        if self.heads is None:
            return self.view
        a = self.heads
        return self.view[:a] + (self.view[a] * self.view[a + 1],) + self.view[a + 2 :]

    def names(self, layers: int) -> list[str]:
        """HF names, one per layer for layer parameters."""
        return [self.name.format(i) for i in range(layers)] if self.path[0] == "layers" else [self.name]


def layout(config: decoder.DecoderConfig) -> list[Tensor]:
    """Every parameter of the decoder with its place in a Hugging Face checkpoint of the Llama naming."""
    c = config
    layer, attention, mlp = "model.layers.{}.", "model.layers.{}.self_attn.", "model.layers.{}.mlp."
    tensors = [
        Tensor(("embed",), "model.embed_tokens.weight", (c.vocab_size, c.width), (0, 1)),
        Tensor(("final_norm", "scale"), "model.norm.weight", (c.width,), (0,)),
        Tensor(("layers", "attention_norm", "scale"), layer + "input_layernorm.weight", (c.width,), (0,)),
        Tensor(("layers", "mlp_norm", "scale"), layer + "post_attention_layernorm.weight", (c.width,), (0,)),
        Tensor(("layers", "o"), attention + "o_proj.weight", (c.width, c.heads, c.head_dim), (1, 2, 0), heads=1),
        Tensor(("layers", "gate"), mlp + "gate_proj.weight", (c.mlp_width, c.width), (1, 0)),
        Tensor(("layers", "up"), mlp + "up_proj.weight", (c.mlp_width, c.width), (1, 0)),
        Tensor(("layers", "down"), mlp + "down_proj.weight", (c.width, c.mlp_width), (1, 0)),
    ]
    for name, heads in {"q": c.heads, "k": c.kv_heads, "v": c.kv_heads}.items():
        theirs = f"{attention}{name}_proj"
        tensors.append(Tensor(("layers", name), theirs + ".weight", (heads, c.head_dim, c.width), (2, 0, 1), heads=0))
        if c.qkv_bias:
            tensors.append(Tensor(("layers", f"{name}_bias"), theirs + ".bias", (heads, c.head_dim), (0, 1), heads=0))
        if c.qk_norm and name != "v":
            tensors.append(
                Tensor(("layers", f"{name}_norm", "scale"), f"{attention}{name}_norm.weight", (c.head_dim,), (0,))
            )
    if not c.tied:
        tensors.append(Tensor(("unembed",), "lm_head.weight", (c.vocab_size, c.width), (1, 0)))
    return tensors


def read_config(directory) -> decoder.DecoderConfig:
    """DecoderConfig of the directory's config.json; FileNotFoundError if it is no pretrained directory."""
    path = epath.Path(directory) / "config.json"
    if not path.exists():
        raise FileNotFoundError(f"{directory} is not a pretrained directory: it has no config.json")
    try:
        return families.from_hf(json.loads(path.read_text()))
    except ValueError as error:
        raise WeightsError(f"{path}: {error}") from error


def load(directory, mesh: Mesh | None = None, dtype=None) -> tuple[decoder.DecoderConfig, decoder.Params]:
    """(config, params) of a Hugging Face directory, straight into the mesh's sharding where one is given.

    dtype of parameters and computation: float32 on CPU and bfloat16 on accelerators unless told. Each device's part is
    read by itself. FileNotFoundError: no such files; WeightsError: a tensor is missing, extra or misshapen.
    """
    directory = epath.Path(directory)
    config = decoder.with_dtype(read_config(directory), dtype)
    dtype = jnp.dtype(config.dtype)
    placement = None if mesh is None else sharding.shardings(config, mesh)
    params: decoder.Params = {}
    with contextlib.ExitStack() as stack:
        files = _open(directory, stack)
        _check(directory, config, files)
        for tensor in layout(config):
            slices = [files[name] for name in tensor.names(config.layers)]
            *parents, last = tensor.path
            where = placement
            for key in tensor.path if placement else ():
                where = where[key]
            shape = tuple(tensor.view[axis] for axis in tensor.order)
            if tensor.path[0] == "layers":
                shape = (config.layers, *shape)

            def read(index, tensor=tensor, slices=slices, shape=shape):
                index = tuple(slice(*part.indices(size)) for part, size in zip(index, shape))
                if tensor.path[0] != "layers":
                    return _read(tensor, slices[0], index).astype(dtype)
                chosen = slices[index[0]]
                out = np.empty([len(chosen), *(part.stop - part.start for part in index[1:])], dtype)
                for row, source in zip(out, chosen):
                    row[...] = _read(tensor, source, index[1:])
                return out

            parent = params
            for key in parents:
                parent = parent.setdefault(key, {})
            if where is None:
                parent[last] = jnp.asarray(read((slice(None),) * len(shape)))
            else:
                parent[last] = jax.make_array_from_callback(shape, where, read)
    return config, params


def _open(directory: epath.Path, stack: contextlib.ExitStack) -> dict:
    """Lazy slices by tensor name, over all safetensors files of the directory."""
    from safetensors import SafetensorError, safe_open

    if (directory / INDEX).exists():
        listed = json.loads((directory / INDEX).read_text())["weight_map"]
        paths = [directory / name for name in sorted(set(listed.values()))]
    else:
        paths = sorted(path for path in directory.iterdir() if path.name.endswith(".safetensors"))
    if not paths:
        raise FileNotFoundError(f"{directory} is not a pretrained directory: it has no *.safetensors")
    slices = {}
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{path} is listed in {INDEX} and is missing")
        try:
            file = stack.enter_context(safe_open(str(path), framework="np"))
        except SafetensorError as error:
            raise WeightsError(f"{path} is truncated or no safetensors file: {error}") from None
        slices |= {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    return slices


def _check(directory, config: decoder.DecoderConfig, files: dict):
    wanted = {name: tensor.shape for tensor in layout(config) for name in tensor.names(config.layers)}
    missing = sorted(set(wanted) - set(files))
    if missing:
        raise WeightsError(f"{directory}: {len(missing)} tensors are missing, first {missing[0]}")
    for name, shape in wanted.items():
        found = tuple(files[name].get_shape())
        if found != shape:
            raise WeightsError(f"{directory}: {name} has shape {found} where config.json asks for {shape}")
    repeated = {"lm_head.weight"} if config.tied else set()
    extra = sorted(n for n in set(files) - set(wanted) - repeated if not n.endswith("rotary_emb.inv_freq"))
    if extra:
        raise WeightsError(f"{directory}: {len(extra)} tensors have no place in the decoder, first {extra[0]}")


def _read(tensor: Tensor, source, index: tuple[slice, ...]) -> np.ndarray:
    """The part `index` (our axes, explicit bounds) of a HF tensor, reading only the rows that hold it."""
    view = [slice(None)] * len(tensor.view)
    for ours, theirs in enumerate(tensor.order):
        view[theirs] = index[ours]
    if tensor.heads is None:
        return source[tuple(view)].transpose(tensor.order)
    a, head_dim = tensor.heads, tensor.view[tensor.heads + 1]
    rows = slice(view[a].start * head_dim, view[a].stop * head_dim)
    part = source[(*view[:a], rows, *view[a + 2 :])]
    part = part.reshape(part.shape[:a] + (-1, head_dim) + part.shape[a + 1 :])
    return part[(slice(None),) * (a + 1) + (view[a + 1],)].transpose(tensor.order)


def save(directory, config: decoder.DecoderConfig, params: decoder.Params, tokenizer_file=None, extra=None):
    """Write config.json, model.safetensors and the tokenizer file, as transformers reads them.

    Parameters keep their type. `extra`: fields added to config.json, such as bos_token_id.
    """
    from safetensors.numpy import save_file

    directory = epath.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for tensor in layout(config):
        value = params
        for key in tensor.path:
            value = value[key]
        value = np.asarray(value)
        inverse = np.argsort(tensor.order)
        for part, name in zip(value if tensor.path[0] == "layers" else [value], tensor.names(config.layers)):
            tensors[name] = np.ascontiguousarray(part.transpose(inverse).reshape(tensor.shape))
    dtype = next(iter(tensors.values())).dtype.name
    fields = families.to_hf(config) | {"dtype": dtype, "torch_dtype": dtype} | (extra or {})
    save_file(tensors, str(directory / SINGLE), metadata={"format": "pt"})
    if tokenizer_file is not None:
        tokenizer_file = epath.Path(tokenizer_file)
        (directory / tokenizer_file.name).write_bytes(tokenizer_file.read_bytes())
    (directory / "config.json").write_text(json.dumps(fields, indent=2) + "\n")


def count_parameters(config: decoder.DecoderConfig) -> int:
    """Number of parameters, the tied embedding counted once."""
    return sum(math.prod(t.shape) * len(t.names(config.layers)) for t in layout(config))
