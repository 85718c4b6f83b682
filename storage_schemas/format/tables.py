"""The Parquet tables: their columns, and how they are written and read.

Parquet's own checksums cover its pages, not the footer that says what the pages are. So each file holds in its footer,
under the key `stillhouse.sha256`, the SHA-256 of all its bytes with that value read as 64 zeros: any reader can open
the file, and ours opens no other bytes than those that were written.
"""

import hashlib
import io
import re

import pyarrow as pa
import pyarrow.parquet as pq

from storage_schemas.format.errors import ContractError, CorruptionError, Problem


def _columns(**types: pa.DataType) -> pa.Schema:
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in types.items()])


IMAGES = pa.schema([*_columns(image=pa.string(), uri=pa.string()), pa.field("copy_of", pa.string())])
"""The image list: stable key, and where it was read from. `copy_of`: the key of the image whose bytes it has, where it
was left out for that; null where views were drawn of it."""

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
"""What was cut from where. `left`, `top`, `width`, `height`: the canvas's box (pixels of the upright source image);
`flip`: mirrored left to right after the cut; `sha256`: of the source's bytes."""

REJECTED = _columns(image=pa.string(), draw=pa.int32(), reason=pa.string(), detail=pa.string())
"""Views that could not be cut, and why."""

PLACEMENTS = pa.schema(
    [
        *_columns(row=pa.int64(), offset_row=pa.int32(), offset_col=pa.int32()),
        pa.field("mosaic", pa.int64()),
        pa.field("cell", pa.int32()),
    ]
)
"""How one teacher saw each view: its window's offset (patches), and its mosaic and cell, null where there is none.
Mosaics are numbered by their first row slot."""

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
"""The commit log: one file per committed shard of a unit, one row per object. `array` is empty for a table's part."""


_SEAL = "stillhouse.sha256"
_ZEROS = b"0" * 64
_SEALED = re.compile(rb"stillhouse\.sha256\x18@([0-9a-f]{64})")  # between them, Thrift's "text of 64 bytes"


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
    """Read a Parquet file, checking its bytes and its columns.

    Raises:
        CorruptionError: the bytes are not those that were written.
        ContractError: its columns are not the table's.
    """
    start, stop = _seal_span(body)
    if hashlib.sha256(body[:start] + _ZEROS + body[stop:]).hexdigest().encode() != body[start:stop]:
        found = f"its bytes do not have the SHA-256 that its footer names as {_SEAL}"
        raise CorruptionError("table", [Problem(place=place, found=found)])
    # in this thread, and from a buffer: a thread of Arrow's that lets go of a Python file while the interpreter ends
    # aborts the process
    table = pq.ParquetFile(pa.BufferReader(body)).read(use_threads=False).replace_schema_metadata(None)
    if not table.schema.equals(schema):
        found = f"columns are {', '.join(table.schema.names)}, expected {', '.join(schema.names)} of their types"
        fix = "it was written by another version: use that one, or make the cache anew"
        raise ContractError("table", [Problem(place=place, found=found, fix=fix)])
    return table


def _seal_span(body: bytes) -> tuple[int, int]:
    # the last one: a column may hold anything, the footer stands after all columns
    seals = list(_SEALED.finditer(body))
    return seals[-1].span(1) if seals else (len(body), len(body))
