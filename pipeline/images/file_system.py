"""The file systems that images lie in. One behind a network is asked again where it fails, as that of a cache is."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, final

import fsspec
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.local import LocalFileSystem

from storage_schemas.objects.file_systems import ask, file_system_of, read_spans
from storage_schemas.objects.patience import Patience

AT_ONCE = 16
"""Images of a store behind a network, or archives, that are asked for before the first of them has come."""
BLOCK_BYTES = 8 * 2**20
"""Of an archive over a network, read at a time."""
TRIES = 5
"""Of each request of a long listing, by S3's own client, whose waits then come to a quarter of a minute at most."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A file system that images lie in."""

    filesystem: fsspec.AbstractFileSystem
    patience: Patience

    @property
    def is_local(self) -> bool:
        """True for this machine's file systems."""
        return isinstance(self.filesystem, LocalFileSystem)

    @property
    def is_networked(self) -> bool:
        """True for a store behind a network that answers many at once."""
        return isinstance(self.filesystem, AsyncFileSystem)

    def uri(self, path: str) -> str:
        """Return the URI of a path."""
        return self.filesystem.unstrip_protocol(path)

    def kind(self, path: str) -> Literal["file", "directory"] | None:
        """Say what is at a path; None for nothing, and for anything else."""
        if not self.is_networked:
            there = self.filesystem
            return "file" if there.isfile(path) else "directory" if there.isdir(path) else None
        try:  # fsspec's `isfile` takes an outage for an answer
            kind = self._ask("info", path)["type"]
        except FileNotFoundError:
            return None
        return kind if kind in ("file", "directory") else None

    def below(self, path: str) -> list[str]:
        """Return the paths of all files below one."""
        return self._ask("find", path)

    def matching(self, pattern: str) -> list[str]:
        """Return the paths of all files that a pattern of `*`, `?` and `[…]` fits."""
        if not self.is_networked:  # what is told beside a name there calls a link neither a file nor a folder
            return [path for path in self.filesystem.glob(pattern) if self.filesystem.isfile(path)]
        found = self._ask("glob", pattern, detail=True)
        return [path for path, about in found.items() if about["type"] == "file"]

    def read(self, path: str, start: int | None = None, stop: int | None = None) -> bytes:
        """Return the bytes of a file, from `start` to `stop` where they are given."""
        if not self.is_networked:
            return bytes(self.filesystem.cat_file(path, start=start, end=stop))
        [body] = read_spans(self.filesystem, [(path, start, stop)], [self.uri(path)], self.patience)
        if isinstance(body, BaseException):
            raise body
        return body

    def open(self, path: str) -> io.IOBase:
        """Open a file to read here and there in it."""
        if not self.is_networked:
            return self.filesystem.open(path, "rb")
        size = int(self._ask("info", path)["size"])
        return io.BufferedReader(_Stretches(lambda start, stop: self.read(path, start, stop), size), BLOCK_BYTES)

    def _ask(self, question: str, path: str, **settings: bool) -> Any:
        return ask(self.filesystem, question, path, self.uri(path), self.patience, **settings)


def source_of(uri: str, patience: Patience, tries: int = 1) -> tuple[Source, str]:
    """Return the file system of a URI, and its path there; the arguments and errors are `file_system_of`'s."""
    filesystem, path = file_system_of(uri, patience, tries)
    return Source(filesystem=filesystem, patience=patience), path


@final
class _Stretches(io.RawIOBase):
    """A file that is read a stretch at a time."""

    def __init__(self, read: Callable[[int, int], bytes], size: int) -> None:
        self._read, self._size, self._place = read, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        return self._place

    def readinto(self, into: Any) -> int:
        body = self._read(self._place, min(self._place + len(into), self._size)) if self._place < self._size else b""
        into[: len(body)] = body
        self._place += len(body)
        return len(body)
