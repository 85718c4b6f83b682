"""Reading the bytes of an image, wherever they are.

A locator is a URI. Where the image is only a part of the object, a fragment says which part:

    s3://bucket/00001.jpg
    file:///data/00001.tar#bytes=1536-35747
    hf://datasets/a/b/00001.parquet#group=3&row=17&column=image.bytes
"""

import errno
import os
import re
import stat
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import final

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.images.file_system import CONCURRENT_REQUESTS, source_of
from pipeline.images.limits import CACHED_BYTES, FILE_BYTES, GROUP_BYTES, GROUP_RATIO
from pipeline.images.unusable import UnusableImageError
from pipeline.workers.prefetch import ahead
from storage_schemas.format.errors import MissingError, Problem, SettingError, StorageError
from storage_schemas.objects.file_systems import is_unknown_host
from storage_schemas.objects.retry_policy import RetryPolicy

_RANGE = re.compile(r"(.*)#bytes=(\d+)-(\d+)", re.DOTALL)
_PART = re.compile(r"#(bytes|group)=")
_CELL = re.compile(r"(.*)#group=(\d+)&row=(\d+)&column=([^#&]+)", re.DOTALL)
LOCAL = "file://"
NOT_A_FILE = "it is a pipe, a socket, a device or a folder"
WEB = ("http://", "https://")
GONE = frozenset({401, 403, 404, 410, 451})
"""HTTP statuses of a web server that will not give an image later either."""


def range_locator(uri: str, start: int, stop: int) -> str:
    """Return the locator of the bytes `start … stop` of an object, such as a member of a tar."""
    return f"{uri}#bytes={start}-{stop}"


def cell_locator(uri: str, group: int, row: int, column: str) -> str:
    """Return the locator of a Parquet cell: a row of a row group, and a column (`image.bytes` for a struct's field)."""
    return f"{uri}#group={group}&row={row}&column={column}"


def range_of(locator: str) -> tuple[int, int]:
    """Return `start` and `stop` of a locator that `range_locator` made."""
    found = _RANGE.fullmatch(locator)
    assert found is not None
    return int(found[2]), int(found[3])


def cell_of(locator: str) -> tuple[int, int]:
    """Return the row group and the row of a locator that `cell_locator` made."""
    found = _CELL.fullmatch(locator)
    assert found is not None
    return int(found[2]), int(found[3])


def is_local(locator: str) -> bool:
    """Say whether an image is in a file system of this machine."""
    return locator.startswith(LOCAL)


@final
@dataclass(slots=True, eq=False, kw_only=True)
class ImageReader:
    """Reads images by their locators. It keeps the last row groups of Parquet files, up to a number of bytes."""

    cached_bytes: int = CACHED_BYTES
    """Most bytes of row groups to keep. The last row group is kept even if it is larger, until the next is read."""
    retries: RetryPolicy = field(default_factory=RetryPolicy)
    """How long a store behind a network may fail."""
    _groups: OrderedDict[tuple[str, int, str], pa.ChunkedArray] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    """Guards the row groups, and file systems that are not safe to use from several threads."""

    def read(self, locator: str) -> bytes:
        """Return an image's bytes; no bytes for a Parquet cell that is null.

        A failure to read says nothing about the image itself: the disk is full or gone, a key has expired, an archive
        is truncated. So it ends the run, which can be resumed. The image is not recorded as rejected, which is final.
        A web address is an exception: the user cannot restore what a server on the web no longer gives.

        Raises:
            UnusableImageError: it is too large, or no longer on the web.
            MissingError: the bytes cannot be read.
            StorageError: a store behind a network failed for too long, or refuses.
            SettingError: its file system needs a package that is not installed, or its row group inflates too much.
        """
        try:
            return self._read(locator)
        except (StorageError, SettingError, UnusableImageError):
            raise
        except ImportError as error:
            found = f"needs a package that is not installed: {error}"
            problem = Problem(place=locator, found=found, fix="install it, then run the same command again")
            raise SettingError("file system", [problem]) from error
        except Exception as error:  # each of fsspec's file systems has its own exceptions
            if locator.startswith(WEB) and (answer := _why_gone(error)):
                raise UnusableImageError("gone", answer) from error
            fix = "restore it and run the same command again, which resumes"
            if is_local(locator) and not _PART.search(locator):
                fix += "; or put an empty file in its place, which is then rejected"
            problem = Problem(place=locator, found=f"cannot be read: {_described(error)}", fix=fix)
            raise MissingError("source image", [problem]) from error

    def read_all(self, locators: Sequence[str]) -> Iterator[bytes | UnusableImageError]:
        """Yield for each locator, in order, what `read` returns, or the reason why the image is unusable.

        Where one is not on this machine, several are read ahead, in threads. For local files a thread costs more than
        it hides: the caller's own thread reads them.
        """
        if all(map(is_local, locators)):
            return map(self._read_or_reason, locators)
        return ahead(self._read_or_reason, locators, depth=CONCURRENT_REQUESTS, threads=CONCURRENT_REQUESTS)

    def _read_or_reason(self, locator: str) -> bytes | UnusableImageError:
        try:
            return self.read(locator)
        except UnusableImageError as error:
            return error

    def _read(self, locator: str) -> bytes:
        if part := _RANGE.fullmatch(locator):
            _require_few_bytes(int(part[3]) - int(part[2]))
            return self._range(part[1], int(part[2]), int(part[3]))
        if part := _CELL.fullmatch(locator):
            with self._lock:
                body = self._row_group(part[1], int(part[2]), part[4])[int(part[3])].as_py() or b""
        else:  # reading through fsspec takes twice the time
            body = _local_bytes(locator.removeprefix(LOCAL)) if is_local(locator) else self._bytes(locator)
        _require_few_bytes(len(body))
        return body

    def _range(self, uri: str, start: int, stop: int) -> bytes:
        body = self._bytes(uri, start, stop)
        if len(body) != stop - start:
            raise EOFError(f"the archive ends between byte {start} and byte {stop}")
        return body

    def _bytes(self, uri: str, start: int | None = None, stop: int | None = None) -> bytes:
        source, path = source_of(uri, self.retries)
        if source.is_networked:
            return source.read(path, start, stop)
        with self._lock:
            return source.read(path, start, stop)

    def _row_group(self, uri: str, group: int, column: str) -> pa.ChunkedArray:
        key = (uri, group, column)
        if key not in self._groups:
            self._groups[key] = self._read_row_group(uri, group, column)
            while len(self._groups) > 1 and sum(cells.nbytes for cells in self._groups.values()) > self.cached_bytes:
                self._groups.popitem(last=False)
        self._groups.move_to_end(key)
        return self._groups[key]

    def _read_row_group(self, uri: str, group: int, column: str) -> pa.ChunkedArray:
        source, path = source_of(uri, self.retries)
        # without Arrow's threads: one that releases a Python file while the interpreter ends aborts the process
        with source.open(path) as file, pq.ParquetFile(file, pre_buffer=False) as parquet:
            chunk = _column_chunk(parquet, group, column)
            _require_moderate(uri, group, chunk)
        # a value that many rows repeat stays one value
        repeated = [chunk.path_in_schema] if chunk.has_dictionary_page else None
        with source.open(path) as file, pq.ParquetFile(file, pre_buffer=False, read_dictionary=repeated) as parquet:
            table = parquet.read_row_group(group, columns=[column], use_threads=False)
        return (table.flatten() if "." in column and column not in table.column_names else table)[column]


def _local_bytes(path: str) -> bytes:
    """Return the bytes of a file. To open a pipe would wait for a writer, and to read a device may never end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb", buffering=0) as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, NOT_A_FILE)
        _require_few_bytes(status.st_size)
        return file.read()


def _require_few_bytes(count: int) -> None:
    if count > FILE_BYTES:
        raise UnusableImageError("too many bytes", f"{count}, at most {FILE_BYTES}")


def _column_chunk(parquet: pq.ParquetFile, group: int, column: str) -> pq.ColumnChunkMetaData:
    rows = parquet.metadata.row_group(group)
    chunks = (rows.column(number) for number in range(rows.num_columns))
    return next(chunk for chunk in chunks if chunk.path_in_schema == column)


def _require_moderate(uri: str, group: int, chunk: pq.ColumnChunkMetaData) -> None:
    """Refuse a row group that inflates to far more than images do."""
    inflated, packed = chunk.total_uncompressed_size, chunk.total_compressed_size
    if inflated > max(GROUP_BYTES, GROUP_RATIO * packed):
        found = f"row group {group} inflates from {packed} to {inflated} bytes"
        fix = "leave the file out if it is not yours; otherwise write it again with fewer rows in a group"
        raise SettingError("Parquet file", [Problem(place=uri, found=found, fix=fix)])


def _why_gone(error: Exception) -> str | None:
    """Return why a web server does not give an image; None where it may give it later."""
    if isinstance(error, FileNotFoundError):
        return "HTTP 404"
    status = getattr(error, "status", None)
    if status in GONE:
        return f"HTTP {status}"
    return "there is no such host" if is_unknown_host(error) else None


def _described(error: Exception) -> str:
    return str(error.strerror) if isinstance(error, OSError) and error.strerror == NOT_A_FILE else type(error).__name__
