"""Reading the bytes of an image, wherever they are.

A locator is a URI. Where the image is only a part of the object, a fragment says which part:

    s3://bucket/00001.jpg
    file:///data/00001.tar#bytes=1536-35747
    hf://datasets/a/b/00001.parquet#group=3&row=17&column=image.bytes
"""

import re
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import final

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.images.file_system import CONCURRENT_REQUESTS, source_of
from pipeline.workers.prefetch import ahead
from storage_schemas.format.errors import MissingError, Problem, SettingError, StorageError
from storage_schemas.objects.retry_policy import RetryPolicy

_RANGE = re.compile(r"(.*)#bytes=(\d+)-(\d+)", re.DOTALL)
_CELL = re.compile(r"(.*)#group=(\d+)&row=(\d+)&column=([^#&]+)", re.DOTALL)
LOCAL = "file://"
CACHED_BYTES = 256 * 2**20
"""Parquet row groups that a worker keeps: views are shuffled, and a row group is the smallest unit that can be read."""


def range_locator(uri: str, start: int, stop: int) -> str:
    """Return the locator of the bytes `start … stop` of an object, such as a member of a tar."""
    return f"{uri}#bytes={start}-{stop}"


def cell_locator(uri: str, group: int, row: int, column: str) -> str:
    """Return the locator of a Parquet cell: a row of a row group, and a column (`image.bytes` for a struct's field)."""
    return f"{uri}#group={group}&row={row}&column={column}"


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

        Raises:
            MissingError: the bytes cannot be read.
            StorageError: a store behind a network failed for too long, or refuses.
            SettingError: its file system needs a package that is not installed.
        """
        try:
            return self._read(locator)
        except StorageError:
            raise
        except ImportError as error:
            found = f"needs a package that is not installed: {error}"
            problem = Problem(place=locator, found=found, fix="install it, then run the same command again")
            raise SettingError("file system", [problem]) from error
        except Exception as error:  # each of fsspec's file systems has its own exceptions
            found = f"cannot be read: {type(error).__name__}"
            fix = (
                "restore it and run the same command again, which resumes; or put an empty file in its place, which is "
                "then rejected"
            )
            raise MissingError("source image", [Problem(place=locator, found=found, fix=fix)]) from error

    def read_all(self, locators: Sequence[str]) -> Iterator[bytes]:
        """Yield what `read` returns for each locator, in order.

        Where one is not on this machine, several are read ahead, in threads. For local files a thread costs more than
        it hides: the caller's own thread reads them.
        """
        if all(map(is_local, locators)):
            return map(self.read, locators)
        return ahead(self.read, locators, depth=CONCURRENT_REQUESTS, threads=CONCURRENT_REQUESTS)

    def _read(self, locator: str) -> bytes:
        if part := _RANGE.fullmatch(locator):
            return self._range(part[1], int(part[2]), int(part[3]))
        if part := _CELL.fullmatch(locator):
            with self._lock:
                return self._row_group(part[1], int(part[2]), part[4])[int(part[3])].as_py() or b""
        if is_local(locator):  # reading through fsspec takes twice the time
            with open(locator.removeprefix(LOCAL), "rb", buffering=0) as file:
                return file.read()
        return self._bytes(locator)

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
            table = parquet.read_row_group(group, columns=[column], use_threads=False)
        return (table.flatten() if "." in column and column not in table.column_names else table)[column]
