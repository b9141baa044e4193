"""Decoder parameters from and to a Hugging Face directory: config.json and *.safetensors."""

import contextlib
import json
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import Mesh

from synthrl_jax.policy import decoder, families, sharding
from synthrl_jax.policy.tensor_files import StoredTensor, WeightsError, open_tensors, write_tensors
from synthrl_jax.progress import Progress

__all__ = ["WeightsError", "count_parameters", "layout", "load", "read_config", "save"]

CHUNK_BYTES = 8 << 20  # read at once, beside the arrays themselves
BATCH_BYTES = 1 << 30  # of one parameter, put together on the host before it goes to the devices
SHARD_BYTES = 5 << 30  # of one written file

Box = tuple[tuple[int, int], ...]  # bounds per axis


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

    def stored_box(self, view: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], tuple[int, int]]:
        """(row bounds, column bounds) in the HF tensor of bounds in the view; a vector is a single column.

        Heads are taken whole: no mesh axis splits head_dim.
        """
        bounds = list(view)
        if self.heads is not None:
            a, head_dim = self.heads, self.view[self.heads + 1]
            if bounds[a + 1] != (0, head_dim):
                raise ValueError(f"{self.name}: a sharding that splits head_dim is not supported")
            bounds[a : a + 2] = [(bounds[a][0] * head_dim, bounds[a][1] * head_dim)]
        return bounds[0], bounds[1] if len(bounds) > 1 else (0, 1)

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

    dtype of parameters and computation: float32 on CPU and bfloat16 on accelerators unless told. A process reads the bytes
    that its own devices hold and no others. FileNotFoundError: no such files; WeightsError: a tensor is missing, extra,
    truncated or misshapen.
    """
    directory = epath.Path(directory)
    config = decoder.with_dtype(read_config(directory), dtype)
    dtype = jnp.dtype(config.dtype)
    placement = None if mesh is None else sharding.shardings(config, mesh)
    params: decoder.Params = {}
    with contextlib.ExitStack() as stack:
        files = open_tensors(directory, stack)
        _check(directory, config, files)
        megabytes = sum(math.prod(files[n].shape) for t in layout(config) for n in t.names(config.layers)) >> 20
        bar = stack.enter_context(Progress("weights", megabytes, unit="M parameters"))
        bar.disable = bar.disable or jax.process_index() != 0
        done = 0
        for tensor in layout(config):
            stored = [files[name] for name in tensor.names(config.layers)]
            where = placement
            for key in tensor.path if placement else ():
                where = where[key]
            *parents, last = tensor.path
            parent = params
            for key in parents:
                parent = parent.setdefault(key, {})
            parent[last] = _place(tensor, stored, where, dtype)
            done += sum(math.prod(s.shape) for s in stored)
            bar.to(done >> 20)
    return config, params


def _place(tensor: Tensor, stored: Sequence[StoredTensor], where, dtype) -> jax.Array:
    """One of our parameters, in the sharding `where` (None: the default device)."""
    shape = tuple(tensor.view[axis] for axis in tensor.order)
    if tensor.path[0] == "layers":
        shape = (len(stored), *shape)
    if where is None:
        whole = tuple((0, size) for size in shape)
        return jnp.asarray(read_boxes(tensor, stored, [whole], dtype)[whole])
    devices: dict[Box, list] = {}
    for device, index in where.addressable_devices_indices_map(shape).items():
        box = tuple(part.indices(size)[:2] for part, size in zip(index, shape))
        devices.setdefault(box, []).append(device)
    arrays = []
    for boxes in _batches(devices, np.dtype(dtype).itemsize):
        parts = read_boxes(tensor, stored, boxes, dtype)
        arrays += [jax.device_put(parts[box], device) for box in boxes for device in devices[box]]
    return jax.make_array_from_single_device_arrays(shape, where, arrays)


def _batches(boxes, itemsize: int) -> Iterator[list[Box]]:
    """Boxes in batches of at most BATCH_BYTES, or of one."""
    batch, size = [], 0
    for box in boxes:
        own = math.prod(b - a for a, b in box) * itemsize
        if batch and size + own > BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(box)
        size += own
    if batch:
        yield batch


def read_boxes(tensor: Tensor, stored: Sequence[StoredTensor], boxes: Sequence[Box], dtype) -> dict[Box, np.ndarray]:
    """Parts of one of our parameters, by their bounds; what several parts share of a row is read once.

    stored: the HF tensors, one per layer for layer parameters, whose boxes have the layer's bounds in front.
    """
    out = {box: _aligned([b - a for a, b in box], dtype) for box in boxes}
    stacked = tensor.path[0] == "layers"
    for layer, source in enumerate(stored):
        wanted: dict[tuple, list] = {}  # row bounds -> (column bounds, view of our array in HF axes)
        for box, array in out.items():
            if stacked and not box[0][0] <= layer < box[0][1]:
                continue
            own = array[layer - box[0][0]] if stacked else array
            bounds = box[1:] if stacked else box
            view, inverse = [(0, 0)] * len(tensor.view), np.argsort(tensor.order)
            for ours, theirs in enumerate(tensor.order):
                view[theirs] = bounds[ours]
            rows, columns = tensor.stored_box(view)
            wanted.setdefault(rows, []).append((columns, own.transpose(inverse)))
        for rows, parts in wanted.items():
            for hull, members in _runs(parts):
                _read_run(tensor, source, rows, hull, members)
    return out


def _runs(parts: list) -> Iterator[tuple[tuple[int, int], list]]:
    """Parts whose column bounds touch or overlap, as (bounds of all of them, parts)."""
    run, hull = [], (0, 0)
    for columns, array in sorted(parts, key=lambda part: part[0]):
        if run and columns[0] > hull[1]:
            yield hull, run
            run = []
        hull = (hull[0], max(hull[1], columns[1])) if run else columns
        run.append((columns, array))
    if run:
        yield hull, run


def _read_run(tensor: Tensor, source: StoredTensor, rows, hull, members) -> None:
    """Read rows [a, b) of columns `hull` by chunks, and copy each chunk into every member's array."""
    unit = tensor.view[1] if tensor.heads == 0 else 1  # rows of one index of the view's first axis
    width = (hull[1] - hull[0]) * 4
    step = max(1, CHUNK_BYTES // (width * unit)) * unit
    for start in range(*rows, step):
        stop = min(start + step, rows[1])
        chunk = source.read((start, stop), hull)
        span = slice((start - rows[0]) // unit, (stop - rows[0]) // unit)
        for columns, array in members:
            part = chunk[:, columns[0] - hull[0] : columns[1] - hull[0]]
            target = array[span]
            np.copyto(target, part.reshape(target.shape), casting="unsafe")


def _aligned(shape: Sequence[int], dtype) -> np.ndarray:
    """An empty array that jax on CPU takes as its own buffer, without a copy: at a multiple of 64 bytes."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape)


def _check(directory, config: decoder.DecoderConfig, files: dict):
    wanted = {name: tensor.shape for tensor in layout(config) for name in tensor.names(config.layers)}
    missing = sorted(set(wanted) - set(files))
    if missing:
        raise WeightsError(f"{directory}: {len(missing)} tensors are missing, first {missing[0]}")
    for name, shape in wanted.items():
        if files[name].shape != shape:
            raise WeightsError(f"{directory}: {name} has shape {files[name].shape} where config.json asks for {shape}")
        if not files[name].is_float:
            raise WeightsError(
                f"{directory}: {name} has the type {files[name].dtype}: floating-point weights are needed"
            )
    repeated = {"lm_head.weight"} if config.tied else set()
    extra = sorted(n for n in set(files) - set(wanted) - repeated if not n.endswith("rotary_emb.inv_freq"))
    if extra:
        raise WeightsError(f"{directory}: {len(extra)} tensors have no place in the decoder, first {extra[0]}")


def save(
    directory, config: decoder.DecoderConfig, params: decoder.Params, extra=None, dtype=None, shard_bytes=SHARD_BYTES
):
    """Write config.json and the weights as transformers reads them: one file, or shards with an index beyond `shard_bytes`.

    Parameters keep their type unless dtype is given; one HF tensor at a time is on the host. `extra`: fields added to
    config.json, such as bos_token_id. Every process of a multi-host run calls it; the first one writes.
    """
    directory = epath.Path(directory)
    dtype = np.dtype(params["embed"].dtype if dtype is None else dtype)
    places = {
        name: (tensor, layer) for tensor in layout(config) for layer, name in enumerate(tensor.names(config.layers))
    }

    def value(name: str) -> np.ndarray:
        tensor, layer = places[name]
        array = params
        for key in tensor.path:
            array = array[key]
        part = _on_host(_layer(array, layer) if tensor.path[0] == "layers" else array)
        return part.transpose(np.argsort(tensor.order)).reshape(tensor.shape)

    if jax.process_index() != 0:
        for name in places:
            value(name)
        return
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").unlink(missing_ok=True)  # written last: a directory with a config holds whole weights
    write_tensors(directory, [(name, t.shape) for name, (t, _) in places.items()], value, dtype, shard_bytes)
    fields = families.to_hf(config) | {"dtype": dtype.name, "torch_dtype": dtype.name} | (extra or {})
    (directory / "config.json").write_text(json.dumps(fields, indent=2) + "\n")


def _layer(array, layer: int):
    if not isinstance(array, jax.Array):
        return array[layer]
    return _take(array, jnp.int32(layer))


# the layer as data: one program for all of them
_take = jax.jit(lambda array, layer: jax.lax.dynamic_index_in_dim(array, layer, keepdims=False))


def _on_host(array) -> np.ndarray:
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        from jax.experimental import multihost_utils

        return multihost_utils.process_allgather(array, tiled=True)
    return np.asarray(array)


def count_parameters(config: decoder.DecoderConfig) -> int:
    """Number of parameters, the tied embedding counted once."""
    return sum(math.prod(t.shape) * len(t.names(config.layers)) for t in layout(config))
