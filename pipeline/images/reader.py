"""Where an image's bytes are, and reading them.

A locator is a URI; where the image is not the whole object, a fragment says which part it is:

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

from pipeline.images.file_system import AT_ONCE, source_of
from pipeline.workers.prefetch import ahead
from storage_schemas.format.errors import MissingError, Problem, SettingError, StorageError
from storage_schemas.objects.patience import Patience

_STRETCH = re.compile(r"(.*)#bytes=(\d+)-(\d+)", re.DOTALL)
_CELL = re.compile(r"(.*)#group=(\d+)&row=(\d+)&column=([^#&]+)", re.DOTALL)
LOCAL = "file://"
HELD_BYTES = 256 * 2**20
"""Parquet row groups that a worker keeps: views are shuffled, and a row group is the least that can be read."""


def stretch(uri: str, start: int, stop: int) -> str:
    """Return the locator of the bytes `start … stop` of an object: a member of a tar."""
    return f"{uri}#bytes={start}-{stop}"


def cell(uri: str, group: int, row: int, column: str) -> str:
    """Return the locator of a cell: a row of a row group, in a column of bytes (`image.bytes`: in a struct)."""
    return f"{uri}#group={group}&row={row}&column={column}"


def is_here(locator: str) -> bool:
    """Say whether an image lies on this machine's file systems."""
    return locator.startswith(LOCAL)


@final
@dataclass(slots=True, eq=False, kw_only=True)
class ImageReader:
    """Reads images by their locators. It keeps the last row groups of Parquet files, as far as they have room."""

    room: int = HELD_BYTES
    """Bytes of row groups that are kept; of one that is larger, all the same, until the next is read."""
    patience: Patience = field(default_factory=Patience)
    """How long a store may fail, where it is behind a network."""
    _groups: OrderedDict[tuple[str, int, str], pa.ChunkedArray] = field(default_factory=OrderedDict)
    _one_at_a_time: threading.Lock = field(default_factory=threading.Lock)
    """Held for what is kept here, and for file systems that were not made for many threads."""

    def read(self, locator: str) -> bytes:
        """Return an image's bytes; none of them where a Parquet cell is null.

        What cannot be read says nothing of the image in it: a disk that is full or gone, a key that expired, an
        archive cut short. So it ends the run, which resumes, and is not put down as rejected, which is for good.

        Raises:
            MissingError: they cannot be read.
            StorageError: a store behind a network failed for too long, or refuses.
            SettingError: its file system takes a package that is not installed.
        """
        try:
            return self._read(locator)
        except StorageError:
            raise
        except ImportError as error:
            problem = Problem(place=locator, found=f"cannot be asked: {error}", fix="run again after it")
            raise SettingError("file system", [problem]) from error
        except Exception as error:  # each of fsspec's file systems has exceptions of its own
            found = f"cannot be read: {type(error).__name__}"
            fix = "bring it back and run again, it resumes; or put an empty file in its place, which is then rejected"
            raise MissingError("source image", [Problem(place=locator, found=found, fix=fix)]) from error

    def read_all(self, locators: Sequence[str]) -> Iterator[bytes]:
        """Yield what `read` returns for each, in order. What does not lie on this machine is asked for ahead."""
        if all(map(is_here, locators)):  # a thread costs more than it hides
            return map(self.read, locators)
        return ahead(self.read, locators, depth=AT_ONCE, threads=AT_ONCE)

    def _read(self, locator: str) -> bytes:
        if part := _STRETCH.fullmatch(locator):
            return self._stretch(part[1], int(part[2]), int(part[3]))
        if part := _CELL.fullmatch(locator):
            with self._one_at_a_time:
                return self._row_group(part[1], int(part[2]), part[4])[int(part[3])].as_py() or b""
        if is_here(locator):  # fsspec's own way there costs as much again as reading
            with open(locator.removeprefix(LOCAL), "rb", buffering=0) as file:
                return file.read()
        return self._bytes(locator)

    def _stretch(self, uri: str, start: int, stop: int) -> bytes:
        body = self._bytes(uri, start, stop)
        if len(body) != stop - start:
            raise EOFError(f"the archive ends within bytes {start} to {stop}")
        return body

    def _bytes(self, uri: str, start: int | None = None, stop: int | None = None) -> bytes:
        source, path = source_of(uri, self.patience)
        if source.is_networked:
            return source.read(path, start, stop)
        with self._one_at_a_time:
            return source.read(path, start, stop)

    def _row_group(self, uri: str, group: int, column: str) -> pa.ChunkedArray:
        key = (uri, group, column)
        if key not in self._groups:
            self._groups[key] = self._read_row_group(uri, group, column)
            while len(self._groups) > 1 and sum(one.nbytes for one in self._groups.values()) > self.room:
                self._groups.popitem(last=False)
        self._groups.move_to_end(key)
        return self._groups[key]

    def _read_row_group(self, uri: str, group: int, column: str) -> pa.ChunkedArray:
        source, path = source_of(uri, self.patience)
        # in this thread: one of Arrow's that lets go of a Python file while the interpreter ends aborts the process
        with source.open(path) as file, pq.ParquetFile(file, pre_buffer=False) as parquet:
            table = parquet.read_row_group(group, columns=[column], use_threads=False)
        return (table.flatten() if "." in column and column not in table.column_names else table)[column]
