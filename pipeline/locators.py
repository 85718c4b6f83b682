"""Where an image's bytes are, and reading them.

A locator is a URI; where the image is not the whole object, a fragment says which part it is:

    s3://bucket/00001.jpg
    file:///data/00001.tar#bytes=1536-35747
    hf://datasets/a/b/00001.parquet#group=3&row=17&column=image.bytes
"""

import re
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import final

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.core import split_protocol

from storage_schemas.errors import MissingError, Problem

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


def file_system(uri: str) -> fsspec.AbstractFileSystem:
    """Return the file system of a URI, which may hold any sign: `#`, `?` and `::` stand for themselves."""
    return fsspec.filesystem(split_protocol(uri)[0] or "file")


@final
@dataclass(slots=True, eq=False, kw_only=True)
class ImageReader:
    """Reads images by their locators. It keeps the last row groups of Parquet files, as far as they have room."""

    room: int = HELD_BYTES
    """Bytes of row groups that are kept; of one that is larger, all the same, until the next is read."""
    _groups: OrderedDict[tuple[str, int, str], pa.ChunkedArray] = field(default_factory=OrderedDict)

    def read(self, locator: str) -> bytes:
        """Return an image's bytes; none of them where a Parquet cell is null.

        What cannot be read says nothing of the image in it: a disk that is full or gone, a key that expired, an
        archive cut short. So it ends the run, which resumes, and is not put down as rejected, which is for good.

        Raises:
            MissingError: they cannot be read.
        """
        try:
            return self._read(locator)
        except Exception as error:  # each of fsspec's file systems has exceptions of its own
            found = f"cannot be read: {type(error).__name__}"
            fix = "bring it back and run again, it resumes; or put an empty file in its place, which is then rejected"
            raise MissingError("source image", [Problem(place=locator, found=found, fix=fix)]) from error

    def _read(self, locator: str) -> bytes:
        if part := _STRETCH.fullmatch(locator):
            return _read_stretch(part[1], int(part[2]), int(part[3]))
        if part := _CELL.fullmatch(locator):
            return self._row_group(part[1], int(part[2]), part[4])[int(part[3])].as_py() or b""
        if locator.startswith(LOCAL):  # fsspec's own way there costs as much again as reading
            with open(locator.removeprefix(LOCAL), "rb", buffering=0) as file:
                return file.read()
        with file_system(locator).open(locator, "rb") as file:
            return file.read()

    def _row_group(self, uri: str, group: int, column: str) -> pa.ChunkedArray:
        key = (uri, group, column)
        if key not in self._groups:
            self._groups[key] = _read_row_group(uri, group, column)
            while len(self._groups) > 1 and sum(one.nbytes for one in self._groups.values()) > self.room:
                self._groups.popitem(last=False)
        self._groups.move_to_end(key)
        return self._groups[key]


def _read_stretch(uri: str, start: int, stop: int) -> bytes:
    body = bytes(file_system(uri).cat_file(uri, start=start, end=stop))
    if len(body) != stop - start:
        raise EOFError(f"the archive ends within bytes {start} to {stop}")
    return body


def _read_row_group(uri: str, group: int, column: str) -> pa.ChunkedArray:
    # in this thread: one of Arrow's that lets go of a Python file while the interpreter ends aborts the process
    with file_system(uri).open(uri, "rb") as file, pq.ParquetFile(file, pre_buffer=False) as parquet:
        table = parquet.read_row_group(group, columns=[column], use_threads=False)
    return (table.flatten() if "." in column and column not in table.column_names else table)[column]
