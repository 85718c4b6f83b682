"""The Parquet tables: their columns, and how they are written and read.

Parquet's own checksums cover its pages, not the footer that describes the pages. So the footer of each file holds,
under the key `stillhouse.sha256`, the SHA-256 of all bytes of the file, with that value itself read as 64 zeros. Any
reader can open the file; ours refuses it where a byte has changed.
"""

import hashlib
import io
import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage_schemas.format.errors import ContractError, CorruptionError, Problem


def _columns(**types: pa.DataType) -> pa.Schema:
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in types.items()])


IMAGES = pa.schema([*_columns(image=pa.string(), uri=pa.string()), pa.field("copy_of", pa.string())])
"""The image list: stable key, and URI. `copy_of`: the key of another image that has the same bytes, where this one was
left out for that reason; null where views were drawn from it."""

VIEWS = _columns(
    row=pa.int64(),
    image=pa.string(),
    draw=pa.int32(),
    split=pa.string(),
    sha256=pa.string(),
    left=pa.float64(),
    top=pa.float64(),
    width=pa.float64(),
    height=pa.float64(),
    flip=pa.bool_(),
    image_height=pa.int32(),
    image_width=pa.int32(),
)
"""Which crop of which image each view is. `left`, `top`, `width`, `height`: the box that became the canvas (pixels of
the upright source image); `flip`: mirrored left to right after the cut; `sha256`: of the source file."""

REJECTED = _columns(image=pa.string(), draw=pa.int32(), reason=pa.string(), detail=pa.string())
"""Views that could not be cut, and why."""

PLACEMENTS = pa.schema(
    [
        *_columns(row=pa.int64(), offset_row=pa.int32(), offset_col=pa.int32()),
        pa.field("mosaic", pa.int64()),
        pa.field("cell", pa.int32()),
    ]
)
"""How one teacher saw each view: the offset of its window (patches), and its mosaic and cell, null where there is none.
The number of a mosaic is its first row slot."""

SHARDS = _columns(
    path=pa.string(),
    array=pa.string(),
    first_row=pa.int64(),
    rows=pa.int64(),
    bytes=pa.int64(),
    xxh3=pa.string(),
    chunks=pa.binary(),
    identity=pa.string(),
)
"""The commit log: one file per committed shard of a unit, one row per object. `array` is empty for a part of a
table."""

SNAPSHOTS = pa.schema([*_columns(shard=pa.int64(), epoch=pa.int32()), *SHARDS])
"""The sealed commit log: one file for many shards of a unit, with the rows of their commit records, after the shard's
number and the epoch of its record."""


LEAST_BYTES = 2**26
"""A table may always take so much memory (bytes)."""
MOST_GROWTH = 1000
"""A larger table may take so many times the bytes of its file. Real ones take 2 to 30 times as many."""
SMALL = 2**22
"""A column that cannot take more memory (bytes) is not counted exactly."""
_SEAL = "stillhouse.sha256"
_ZEROS = b"0" * 64
_SEALED = re.compile(rb"stillhouse\.sha256\x18@([0-9a-f]{64})")  # \x18@ is how Thrift begins a text of 64 bytes


def to_parquet(table: pa.Table) -> bytes:
    """Return a table as the bytes of a sealed Parquet file. The same table gives the same bytes."""
    sink = io.BytesIO()
    with pq.ParquetWriter(
        sink, table.schema, compression="zstd", write_page_checksum=True, store_schema=False
    ) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({_SEAL: _ZEROS})
    body = sink.getvalue()
    start, stop = _seal_span(body)
    return body[:start] + hashlib.sha256(body).hexdigest().encode() + body[stop:]


def from_parquet(body: bytes, schema: pa.Schema, place: str) -> pa.Table:
    """Read a Parquet file, after checking its bytes and its columns.

    Args:
        body: bytes of the file.
        schema: columns that it must have.
        place: where it lies, for the error.

    Raises:
        CorruptionError: the bytes are not those that were written, or would take far more memory than their file.
        ContractError: it has other columns.
    """
    start, stop = _seal_span(body)
    if hashlib.sha256(body[:start] + _ZEROS + body[stop:]).hexdigest().encode() != body[start:stop]:
        found = f"its bytes do not have the SHA-256 in its footer, {_SEAL}"
        raise CorruptionError("table", [Problem(place=place, found=found)])
    # in this thread, and from a buffer: a thread of Arrow that releases a Python file while the interpreter shuts down
    # aborts the process
    try:
        file = pq.ParquetFile(pa.BufferReader(body))
        if not file.schema_arrow.remove_metadata().equals(schema):
            raise _other_columns(file.schema_arrow.names, schema, place)
        _require_modest(file, body, place)
        table = file.read(use_threads=False).replace_schema_metadata(None)
    except (pa.ArrowException, OSError) as error:
        found = f"is no Parquet file that can be read: {str(error).splitlines()[0]}"
        raise CorruptionError("table", [Problem(place=place, found=found)]) from error
    if not table.schema.equals(schema):
        raise _other_columns(table.schema.names, schema, place)
    return table


def _require_modest(file: pq.ParquetFile, body: bytes, place: str) -> None:
    """Refuse a table that would take far more memory than its file: equal values take almost no place in a file."""
    most = max(LEAST_BYTES, MOST_GROWTH * len(body))
    taken = sum(_decoded_bytes(file, body, column) for column in range(file.metadata.num_columns))
    if taken > most:
        found = f"has {file.metadata.num_rows} rows and would take {taken} bytes in memory, a file of its size {most}"
        fix = "no writer of Stillhouse makes such a table: use a copy that it wrote"
        raise CorruptionError("table", [Problem(place=place, found=found, fix=fix)])


def _decoded_bytes(file: pq.ParquetFile, body: bytes, column: int) -> int:
    """Return how many bytes a column takes in memory, or a bound of it that is small enough.

    A text that repeats is stored once. Where the bound (all of the column's pages in every row) is not small, the texts
    are read once each, and their lengths are added.
    """
    groups = [file.metadata.row_group(number).column(column) for number in range(file.metadata.num_row_groups)]
    rows, stored = file.metadata.num_rows, sum(group.total_uncompressed_size for group in groups)
    if file.schema_arrow.types[column] not in (pa.string(), pa.binary()):
        return max(8 * rows, stored)
    if rows * stored <= SMALL:
        return rows * stored
    if 8 * rows + stored > max(LEAST_BYTES, MOST_GROWTH * len(body)):
        return 8 * rows + stored  # too much already; counting would take it
    return 8 * rows + _text_bytes(body, file.schema_arrow.names[column])


def _text_bytes(body: bytes, name: str) -> int:
    file, total = pq.ParquetFile(pa.BufferReader(body), read_dictionary=[name]), 0
    for chunk in file.read([name], use_threads=False)[name].chunks:
        lengths = pc.fill_null(pc.binary_length(chunk.dictionary), 0)
        total += pc.sum(pc.take(lengths, pc.drop_null(chunk.indices))).as_py() or 0
    return total


def _other_columns(names: Sequence[str], schema: pa.Schema, place: str) -> ContractError:
    found = f"has the columns {', '.join(names)}, expected {', '.join(schema.names)}, of their types"
    fix = "another version of Stillhouse wrote it: use that version, or make a new cache"
    return ContractError("table", [Problem(place=place, found=found, fix=fix)])


def _seal_span(body: bytes) -> tuple[int, int]:
    # the last match: a column may contain anything, and the footer comes after all columns
    seals = list(_SEALED.finditer(body))
    return seals[-1].span(1) if seals else (len(body), len(body))
