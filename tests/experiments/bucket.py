"""A bucket for tests: gs:// paths on a local directory, whose requests fail now and then."""

import os

import fsspec
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem


class Unavailable(OSError):
    """What a service answers that asks to come again."""


class Bucket(DirFileSystem):
    """gs://NAME/... below $BUCKETS; every `EVERY`-th request is refused once. Renames are copies, as in a bucket."""

    protocol, cachable = ("gs", "gcs"), False
    EVERY = 7
    requests = refused = 0

    def __init__(self, **_):
        super().__init__(path=os.environ["BUCKETS"], fs=LocalFileSystem(auto_mkdir=True), skip_instance_cache=True)

    @classmethod
    def _strip_protocol(cls, path):
        return str(path).removeprefix("gs://").removeprefix("gcs://").rstrip("/")

    def _join(self, path):
        if isinstance(path, str):
            Bucket.requests += 1
            if Bucket.requests % Bucket.EVERY == 0:
                Bucket.refused += 1
                raise Unavailable("503 Service Unavailable")
            path = self._strip_protocol(path)
        return super()._join(path)


def install(directory) -> None:
    """Let etils' gs:// paths lie below a directory."""
    from etils.epath import backend

    os.environ["BUCKETS"] = str(directory)
    Bucket.requests = Bucket.refused = 0
    fsspec.register_implementation("gs", Bucket, clobber=True)
    fsspec.register_implementation("gcs", Bucket, clobber=True)
    backend._FileSystemSpecBackend._get_filesystem.cache_clear()
