"""The Parquet tables: their columns, and how they are written and read, with page checksums both ways."""

import io

import pyarrow as pa
import pyarrow.parquet as pq

from storage_schemas.errors import ContractError, CorruptionError, Problem


def _columns(**types: pa.DataType) -> pa.Schema:
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in types.items()])


IMAGES = _columns(image=pa.string(), uri=pa.string())
"""The image list: stable key, and where it was read from."""

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
    sha256=pa.string(),
    identity=pa.string(),
)
"""The commit log: one file per committed shard of a unit, one row per object. `array` is empty for a table's part."""


def to_parquet(table: pa.Table) -> bytes:
    """Return a table as the bytes of a Parquet file with page checksums. The same table gives the same bytes."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue()


def from_parquet(body: bytes, schema: pa.Schema, place: str) -> pa.Table:
    """Read a Parquet file, checking its pages and its columns.

    Raises:
        CorruptionError: a checksum is wrong, or the file is not Parquet.
        ContractError: its columns are not the table's.
    """
    try:
        table = pq.read_table(io.BytesIO(body), page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise CorruptionError("table", [Problem(place=place, found=str(error))]) from error
    if not table.schema.equals(schema):
        found = f"columns are {', '.join(table.schema.names)}, expected {', '.join(schema.names)} of their types"
        raise ContractError("table", [Problem(place=place, found=found)])
    return table
