"""safetensors files by byte range: a header says where each tensor lies, and only what is asked for is read.

The safetensors library maps whole files into memory, so that a loading process counts every page it passes as its own, and it
opens local paths alone; the format itself is a length, a JSON header and the bytes (github.com/huggingface/safetensors).
"""

import contextlib
import json
import math
import struct
from collections.abc import Iterable, Iterator

import ml_dtypes
import numpy as np
from etils import epath

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FLOATS = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
OTHER_BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "I32": 4, "U32": 4}
OTHER_BYTES |= {"I64": 8, "U64": 8}
HEADER_LIMIT = 100_000_000  # of the format itself


class WeightsError(ValueError):
    """Weights that do not fit their config or are damaged; the message names the tensor or file."""


class StoredTensor:
    """One tensor of an open file: its name, dtype (the format's word) and shape; `read` gives parts of it."""

    def __init__(self, path, file, name: str, entry: dict, start: int):
        self.path, self.name, self._file = path, name, file
        self.dtype, self.shape = entry["dtype"], tuple(entry["shape"])
        self._start = start + entry["data_offsets"][0]

    @property
    def is_float(self) -> bool:
        return self.dtype in FLOATS

    def read(self, rows: tuple[int, int], columns: tuple[int, int]) -> np.ndarray:
        """Rows [a, b) and columns [c, d) of a matrix, [b - a, d - c] in the stored type; a vector is a single column.

        Whole rows are one read; parts of rows are one read each, so that no byte is read for nothing.
        """
        dtype = np.dtype(FLOATS[self.dtype])
        width = math.prod(self.shape[1:])
        (a, b), (c, d) = rows, columns
        out = np.empty((b - a, d - c), dtype)
        raw = out.reshape(-1).view(np.uint8).reshape(b - a, -1)
        if d - c == width:
            self._fill(raw.reshape(-1), (a * width) * dtype.itemsize)
        else:
            for row, line in zip(range(a, b), raw):
                self._fill(line, (row * width + c) * dtype.itemsize)
        return out

    def _fill(self, out: np.ndarray, offset: int) -> None:
        self._file.seek(self._start + offset)
        view, done = memoryview(out), 0
        while done < len(view):
            count = self._file.readinto(view[done:])
            if not count:
                raise WeightsError(f"{self.path} is truncated inside of tensor {self.name}")
            done += count


def open_tensors(directory, stack: contextlib.ExitStack) -> dict[str, StoredTensor]:
    """Every tensor by name, over all safetensors files of a directory; `stack` closes the files.

    With an index, the files that it lists. FileNotFoundError: no file, or one that the index lists is missing;
    WeightsError: a damaged file, a tensor that the index places in a file that lacks it, or one that two files hold.
    """
    directory = epath.Path(directory)
    listed = None
    if (directory / INDEX).exists():
        try:
            listed = json.loads((directory / INDEX).read_text())["weight_map"]
            paths = [directory / name for name in sorted(set(listed.values()))]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise WeightsError(f"{directory / INDEX} is no index of tensors: {error!r}") from None
    else:
        paths = sorted(path for path in directory.iterdir() if path.name.endswith(".safetensors"))
    if not paths:
        raise FileNotFoundError(
            f"{directory} is not a pretrained directory: it has no *.safetensors{_other(directory)}"
        )
    tensors: dict[str, StoredTensor] = {}
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{path} is listed in {INDEX} and is missing")
        for tensor in _open_file(path, stack):
            if tensor.name in tensors:
                raise WeightsError(f"tensor {tensor.name} is in {tensors[tensor.name].path} and in {path}")
            tensors[tensor.name] = tensor
    for name, file in sorted((listed or {}).items()):
        if name not in tensors or tensors[name].path.name != file:
            raise WeightsError(f"{directory}: {INDEX} places tensor {name} in {file}, where it is missing")
    return tensors


def _other(directory) -> str:
    if any(path.name.endswith(".bin") for path in directory.iterdir()):
        return (
            "; its *.bin are PyTorch pickles, write them anew with transformers: AutoModelForCausalLM.from_pretrained(OLD)"
            ".save_pretrained(NEW)"
        )
    return ""


def _open_file(path, stack: contextlib.ExitStack) -> Iterator[StoredTensor]:
    size = path.stat().length
    # unbuffered where it is local: a buffer would read bytes that nobody asked for
    file = stack.enter_context(path.open("rb") if "://" in str(path) else open(path, "rb", buffering=0))  # noqa: SIM115
    head = file.read(8)
    length = struct.unpack("<Q", head)[0] if len(head) == 8 else -1
    if not 2 <= length <= HEADER_LIMIT:
        raise WeightsError(f"{path} is truncated or no safetensors file: it begins with no header length")
    if 8 + length > size:
        raise WeightsError(f"{path} is truncated or no safetensors file: it ends inside of its header")
    try:
        header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        spans = {name: _span(path, name, entry) for name, entry in header.items()}
    except WeightsError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise WeightsError(f"{path} is no safetensors file: its header cannot be read ({error!r})") from None
    place = 0
    for name, (start, end) in sorted(spans.items(), key=lambda item: item[1]):
        if start != place:
            raise WeightsError(f"{path} is damaged: tensor {name} begins at byte {start} of the data, not at {place}")
        place = end
        if 8 + length + end > size:
            raise WeightsError(
                f"{path} is truncated: it has {size:,} bytes, and tensor {name} ends at {8 + length + end:,}"
            )
    if 8 + length + place != size:
        raise WeightsError(f"{path} is damaged: {size - 8 - length - place:,} bytes follow its last tensor")
    for name, entry in header.items():
        yield StoredTensor(path, file, name, entry, 8 + length)


def _span(path, name: str, entry: dict) -> tuple[int, int]:
    start, end = entry["data_offsets"]
    shape, dtype = entry["shape"], entry["dtype"]
    size = np.dtype(FLOATS[dtype]).itemsize if dtype in FLOATS else OTHER_BYTES.get(dtype)
    if not all(isinstance(n, int) and n >= 0 for n in (start, end, *shape)) or end < start:
        raise WeightsError(f"{path} is damaged: tensor {name} has offsets {start}..{end} and shape {shape}")
    if size is not None and end - start != size * math.prod(shape):
        raise WeightsError(f"{path} is damaged: tensor {name} has {end - start:,} bytes for {dtype} {shape}")
    return start, end


def write_tensors(directory, tensors: Iterable[tuple[str, tuple[int, ...]]], value, dtype, shard_bytes: int) -> None:
    """Write tensors in order, one in memory at a time: one file, or shards of at most `shard_bytes` with an index.

    tensors: (name, shape); `value(name)` gives an array of that shape, cast to dtype. Older *.safetensors go.
    """
    directory, dtype = epath.Path(directory), np.dtype(dtype)
    word = next(word for word, kind in FLOATS.items() if np.dtype(kind) == dtype)
    shards: list[list[tuple[str, tuple[int, ...]]]] = [[]]
    room = shard_bytes
    for name, shape in tensors:
        size = math.prod(shape) * dtype.itemsize
        if size > room and shards[-1]:
            shards.append([])
            room = shard_bytes
        shards[-1].append((name, shape))
        room -= size
    for path in [p for p in directory.iterdir() if p.name.endswith(".safetensors") or p.name == INDEX]:
        path.unlink()
    placed, total = {}, 0
    for number, shard in enumerate(shards, 1):
        name = SINGLE if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        header, offset = {"__metadata__": {"format": "pt"}}, 0
        for tensor, shape in shard:
            end = offset + math.prod(shape) * dtype.itemsize
            header[tensor] = {"dtype": word, "shape": list(shape), "data_offsets": [offset, end]}
            placed[tensor], offset = name, end
        total += offset
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with (directory / name).open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for tensor, shape in shard:
                array = np.ascontiguousarray(np.asarray(value(tensor)).astype(dtype, copy=False))
                if array.shape != tuple(shape):
                    raise ValueError(f"tensor {tensor} has shape {array.shape}, not {tuple(shape)}")
                file.write(array.reshape(-1).view(np.uint8).data)
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": placed}
        (directory / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
