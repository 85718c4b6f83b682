"""The file systems that hold images. Requests to a file system behind a network are retried, as for a cache."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, final

import fsspec
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.local import LocalFileSystem

from storage_schemas.objects.file_systems import ask, file_system_of, read_spans
from storage_schemas.objects.retry_policy import RetryPolicy

CONCURRENT_REQUESTS = 16
"""Images or archives that are requested from a store behind a network at the same time."""
BLOCK_BYTES = 8 * 2**20
"""Bytes of an archive that one request over a network reads."""
LISTING_TRIES = 5
"""How often the S3 client tries each request of a long listing. Its waits then add up to 15 seconds at most."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A file system that holds images."""

    filesystem: fsspec.AbstractFileSystem
    retries: RetryPolicy
    """How long it may fail, where it is behind a network."""

    @property
    def is_local(self) -> bool:
        """Whether it is a file system of this machine."""
        return isinstance(self.filesystem, LocalFileSystem)

    @property
    def is_networked(self) -> bool:
        """Whether it is behind a network and answers many requests at once."""
        return isinstance(self.filesystem, AsyncFileSystem)

    def uri(self, path: str) -> str:
        """Return the URI of a path."""
        return self.filesystem.unstrip_protocol(path)

    def kind(self, path: str) -> Literal["file", "directory"] | None:
        """Return what is at a path; None where nothing is, or something else."""
        if not self.is_networked:
            system = self.filesystem
            return "file" if system.isfile(path) else "directory" if system.isdir(path) else None
        try:  # not `isfile`, which returns False in an outage
            kind = self._ask("info", path)["type"]
        except FileNotFoundError:
            return None
        return kind if kind in ("file", "directory") else None

    def files_below(self, path: str) -> list[str]:
        """Return the paths of all files below a folder."""
        return self._ask("find", path)

    def files_matching(self, pattern: str) -> list[str]:
        """Return the paths of all files that match a pattern of `*`, `?` and `[…]`."""
        if not self.is_networked:  # not `detail=True`, which calls a link neither a file nor a folder
            return [path for path in self.filesystem.glob(pattern) if self.filesystem.isfile(path)]
        found = self._ask("glob", pattern, detail=True)
        return [path for path, info in found.items() if info["type"] == "file"]

    def read(self, path: str, start: int | None = None, stop: int | None = None) -> bytes:
        """Return the bytes of a file, or only those from `start` to `stop`."""
        if not self.is_networked:
            return bytes(self.filesystem.cat_file(path, start=start, end=stop))
        [body] = read_spans(self.filesystem, [(path, start, stop)], [self.uri(path)], self.retries)
        if isinstance(body, BaseException):
            raise body
        return body

    def open(self, path: str) -> io.IOBase:
        """Open a file for random access."""
        if not self.is_networked:
            return self.filesystem.open(path, "rb")
        size = int(self._ask("info", path)["size"])
        return io.BufferedReader(_RangeReader(lambda start, stop: self.read(path, start, stop), size), BLOCK_BYTES)

    def _ask(self, method: str, path: str, **settings: bool) -> Any:
        return ask(self.filesystem, method, path, self.uri(path), self.retries, **settings)


def source_of(uri: str, retries: RetryPolicy, tries: int = 1) -> tuple[Source, str]:
    """Return the file system of a URI, and the path in it; arguments and errors as for `file_system_of`."""
    filesystem, path = file_system_of(uri, retries, tries)
    return Source(filesystem=filesystem, retries=retries), path


@final
class _RangeReader(io.RawIOBase):
    """A file whose byte ranges are read by a function."""

    def __init__(self, read: Callable[[int, int], bytes], size: int) -> None:
        self._read, self._size, self._position = read, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        return self._position

    def readinto(self, into: Any) -> int:
        stop = min(self._position + len(into), self._size)
        body = self._read(self._position, stop) if self._position < self._size else b""
        into[: len(body)] = body
        self._position += len(body)
        return len(body)
