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


def passes(error: Exception) -> bool:
    """Whether asking again may help: by an HTTP status where the error carries one (gcsfs, google.api_core), else by type."""
    code = getattr(error, "code", None)
    if isinstance(code, int):
        return code in (408, 429) or code >= 500
    if isinstance(error, FINAL) or str(error).startswith("Forbidden"):  # gcsfs says 403 in words
        return False
    return isinstance(error, OSError | TimeoutError | RuntimeError) or type(error).__name__ == "ChecksumError"


def retried(function: Callable, *arguments, **named):
    """The function's result, asked for again with growing pauses after errors that may pass (503, resets, time-outs)."""
    for attempt in range(TRIES):
        try:
            return function(*arguments, **named)
        except Exception as error:
            if not passes(error):
                raise
            if attempt == TRIES - 1:
                name = getattr(function, "__name__", "request")
                raise OSError(f"{name} {arguments[:1]} failed {TRIES} times: {error}") from error
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


class Download(io.RawIOBase):
    """A file being read: after an error in the middle it is opened again and read on from there."""

    def __init__(self, opener: Callable[[], Any]):
        self._open, self._at = opener, 0
        self._file = retried(opener)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        def move():
            self._there().seek(offset, whence)
            return self._file.tell()

        if whence == io.SEEK_CUR:
            offset, whence = self._at + offset, io.SEEK_SET
        self._at = self._tried(move)
        return self._at

    def readinto(self, buffer) -> int:
        data = self._tried(lambda: self._there().read(len(buffer)))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _there(self):
        if self._file is None:
            self._file = self._open()
            self._file.seek(self._at)
        return self._file

    def _tried(self, function: Callable):
        def once():
            try:
                return function()
            except Exception:
                self._file = None
                raise

        return retried(once)

    def close(self):
        if not self.closed and self._file is not None:
            self._file.close()
        super().close()


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
            file = io.BufferedReader(Download(lambda: self.backend.open(path, "rb")), 1 << 20)
            return file if "b" in mode else io.TextIOWrapper(file, encoding="utf-8")

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
