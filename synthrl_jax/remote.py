"""Work directories: local ones as pathlib, gs:// ones through etils, their requests repeated where the service asks for it."""

import io
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from etils import epath
from etils.epath import backend as backends

TRIES, FIRST_WAIT, LONGEST_WAIT = 8, 0.5, 30.0
# answers, not troubles: asking again gives the same
FINAL = (
    FileNotFoundError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
    NotImplementedError,
)


def path(place) -> Any:
    """`place` as a path: absolute pathlib for local ones, etils' for gs:// (then with retries)."""
    if not is_remote(place):
        return Path(place).resolve()
    install()
    return epath.Path(place)


def is_remote(place) -> bool:
    """Whether it lies in a bucket."""
    return str(place).startswith("gs://")


def retried(function: Callable, *arguments, **named):
    """The function's result, asked for again with growing pauses after errors that may pass (503, resets, time-outs)."""
    for attempt in range(TRIES):
        try:
            return function(*arguments, **named)
        except FINAL:
            raise
        except (OSError, TimeoutError, RuntimeError) as error:
            if attempt == TRIES - 1:
                raise OSError(f"{function.__name__} {arguments[:1]} failed {TRIES} times: {error}") from error
            # random, so that a pod's processes do not all come back at once
            time.sleep(min(LONGEST_WAIT, FIRST_WAIT * 2**attempt) * random.uniform(0.5, 1.0))


class Upload(io.BytesIO):
    """A file being written: it is sent as a whole when it is closed, so that nobody sees half of it and a failed request can be
    repeated."""

    def __init__(self, send: Callable[[bytes], None]):
        super().__init__()
        self._send = send

    def close(self):
        if not self.closed:
            data = self.getvalue()
            super().close()
            self._send(data)

    def __exit__(self, kind, *_):
        if kind is not None:
            super().close()  # what was not written to its end is not sent
        else:
            self.close()


class Retrying:
    """An etils backend whose requests are repeated."""

    def __init__(self, backend: backends.Backend):
        self.backend = backend

    def __getattr__(self, name: str):
        function = getattr(self.backend, name)
        if not callable(function):
            return function

        def call(*arguments, **named):
            return retried(function, *arguments, **named)

        return call

    def open(self, path, mode: str):
        if "w" not in mode:
            return retried(self.backend.open, path, mode)

        def send(data: bytes):
            def write(_):
                with self.backend.open(path, "wb") as file:
                    file.write(data)

            retried(write, path)

        upload = Upload(send)
        return upload if "b" in mode else io.TextIOWrapper(upload, encoding="utf-8", write_through=True)


def install() -> None:
    """Give etils' gs:// paths retries, once."""
    from etils.epath import gpath

    if not isinstance(gpath._PREFIX_TO_BACKEND["gs"], Retrying):
        gpath._PREFIX_TO_BACKEND["gs"] = Retrying(gpath._PREFIX_TO_BACKEND["gs"])


def files(directory) -> list:
    """Every file below a directory, local or remote, sorted by path."""
    if isinstance(directory, Path):
        return sorted(p for p in directory.rglob("*") if p.is_file())
    out = []  # not etils' walk, whose paths have lost their gs://
    for child in directory.iterdir():
        out += files(child) if child.is_dir() else [child]
    return sorted(out)


def remove_tree(directory) -> None:
    """Delete a directory with all that it holds, if it is there."""
    import shutil

    if isinstance(directory, Path):
        shutil.rmtree(directory, ignore_errors=True)
    elif directory.exists():
        directory.rmtree()


def copy(source, target, leave: tuple[str, ...] = ()) -> None:
    """Copy a tree file by file, without directories whose name begins with one of `leave`."""
    for file in files(source):
        inside = file.relative_to(source)
        if not any(part.startswith(leave) for part in inside.parts[:-1]) or not leave:
            place = target / inside
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(file.read_bytes())
