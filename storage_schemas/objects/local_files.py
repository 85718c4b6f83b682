"""Local files without fsspec: ranges are read as bytes or into the caller's buffers, and pieces are written."""

import errno
import os
import resource
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, final
from weakref import finalize

import numpy as np

from storage_schemas.format.errors import CorruptionError, Problem
from storage_schemas.objects.refusals import refused

MOST_KEPT_OPEN = 256
"""Files that a process keeps open at most, whatever the system allows."""
AT_ONCE = 1024
"""Pieces that one call writes: the most that POSIX systems take."""
Buffer = np.ndarray | bytearray | memoryview
"""Contiguous bytes that are filled."""
Piece = bytes | memoryview
"""Contiguous bytes that are written."""


@final
class OpenFile:
    """A file that is open for reading until nobody refers to it: another thread may read it after it left the cache."""

    def __init__(self, path: str, descriptor: int) -> None:
        self._path, self._descriptor = path, descriptor
        finalize(self, os.close, descriptor)

    def fill(self, start: int, *buffers: Buffer) -> None:
        """Fill buffers, one after the other, with the bytes from `start` on.

        Args:
            start: first byte.
            buffers: filled whole.

        Raises:
            CorruptionError: the file ends too early.
            StorageError: it cannot be read.
        """
        left: list[Any] = list(buffers)  # type checkers know from Python 3.12 on that arrays are buffers
        at, stop = start, start + sum(map(len, buffers))
        while (read := self._read(left, at)) < stop - at:  # one call reads at most 2 GiB
            if not read:
                found = f"ends within bytes {start} to {stop}"
                raise CorruptionError("object", [Problem(place=self._path, found=found)])
            at += read
            while read >= len(left[0]):
                read -= len(left.pop(0))
            left[0] = memoryview(left[0])[read:]

    def _read(self, buffers: list[Any], start: int) -> int:
        try:
            return os.preadv(self._descriptor, buffers, start)
        except OSError as error:
            raise refused(self._path, error) from error


def _kept_open() -> int:
    """Return how many files this process keeps open: a quarter of what the system allows, and not too many."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_KEPT_OPEN if allowed == resource.RLIM_INFINITY else max(1, min(MOST_KEPT_OPEN, allowed // 4))


KEPT_OPEN = _kept_open()
"""Files that a process keeps open. The least recently used file is closed first."""


@lru_cache(maxsize=KEPT_OPEN)
def open_file(path: str, _reader: object) -> OpenFile:
    """Open a file, or return it as it was opened for the same reader.

    A new reader opens the file that has the name now; an older reader goes on with the file that it opened. Either way
    what is read is checked. A forked process may use it too, as every read names its own position.

    Args:
        path: the file.
        _reader: who reads; each reader opens the file for itself.

    Raises:
        MissingError: there is no such file.
        StorageError: it cannot be read.
    """
    try:
        return OpenFile(path, _opened(path))
    except OSError as error:
        raise refused(path, error) from error


def _opened(path: str) -> int:
    """Open a file for reading. Where too many are open, those that are only kept are closed first."""
    try:
        return os.open(path, os.O_RDONLY)
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
    open_file.cache_clear()
    return os.open(path, os.O_RDONLY)


def write_pieces(descriptor: int, pieces: Sequence[Piece]) -> None:
    """Write pieces one after the other at a file's position."""
    left = list(pieces)
    while left:
        written = os.writev(descriptor, left[:AT_ONCE])
        while left and written >= len(left[0]):
            written -= len(left.pop(0))
        if left:  # a full disk takes a part and refuses the rest
            left[0] = memoryview(left[0])[written:]


def read_local(path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes | BaseException]:
    """Return the bytes of each range of a file, fewer where the file ends too early; or the error that reading met."""
    try:
        descriptor = _opened(path)
        try:
            return [_read_range(descriptor, start, stop) for start, stop in ranges]
        finally:
            os.close(descriptor)
    except OSError as error:
        return [error] * len(ranges)


def read_whole(path: str, most: int) -> bytes | BaseException:
    """Return the bytes of a file, or the error that reading met.

    Args:
        path: the file.
        most: bytes that it may have.
    """
    try:
        with os.fdopen(_opened(path), "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size > most:
                found = f"has {size} bytes, expected at most {most}"
                return CorruptionError("object", [Problem(place=path, found=found)])
            return file.read()
    except OSError as error:
        return error


def _read_range(descriptor: int, start: int, stop: int) -> bytes:
    parts = []
    while start < stop and (part := os.pread(descriptor, stop - start, start)):  # one call reads at most 2 GiB
        parts.append(part)
        start += len(part)
    return b"".join(parts)
