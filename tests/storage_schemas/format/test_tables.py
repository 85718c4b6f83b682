"""A table comes back as it went in; any other bytes, and any other columns, are refused."""

import io
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage_schemas.format.errors import ContractError, CorruptionError
from storage_schemas.format.tables import IMAGES, PLACEMENTS, REJECTED, SHARDS, VIEWS, from_parquet, to_parquet

SCHEMAS = {"images": IMAGES, "views": VIEWS, "rejected": REJECTED, "placements": PLACEMENTS, "shards": SHARDS}
VALUES = {
    pa.string(): st.text(max_size=5),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.int32(): st.integers(-(2**31), 2**31 - 1),
    pa.float64(): st.floats(allow_nan=False),
    pa.bool_(): st.booleans(),
    pa.binary(): st.binary(max_size=5),
}
every_schema = pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
DAMAGED = "table is damaged:\n  tables/x.parquet: its bytes do not have the SHA-256 in its footer, stillhouse.sha256"


@st.composite
def tables(draw: st.DrawFn) -> tuple[pa.Schema, pa.Table]:
    """Draw one of the schemas and a table of it, nulls where they are allowed."""
    schema = draw(st.sampled_from(list(SCHEMAS.values())))
    values = {field.name: VALUES[field.type] | st.none() if field.nullable else VALUES[field.type] for field in schema}
    return schema, pa.Table.from_pylist(draw(st.lists(st.fixed_dictionaries(values), max_size=4)), schema)


@given(tables())
def test_a_table_comes_back_as_it_went_in_and_the_same_table_gives_the_same_bytes(
    drawn: tuple[pa.Schema, pa.Table],
) -> None:
    schema, table = drawn
    body = to_parquet(table)
    read = from_parquet(body, schema, "here")
    assert read.equals(table, check_metadata=True)
    assert to_parquet(table) == body == to_parquet(read)


VIEW = {
    "row": 3,
    "image": "a.jpg",
    "draw": 0,
    "split": "train",
    "sha256": "0" * 64,
    "left": 1.5,
    "top": 2.5,
    "width": 100.0,
    "height": 90.0,
    "flip": True,
    "image_height": 480,
    "image_width": 640,
}


def test_any_parquet_reader_opens_a_table_and_can_check_its_pages() -> None:
    table = pa.Table.from_pylist([VIEW], VIEWS)
    body = to_parquet(table)
    assert pq.read_table(io.BytesIO(body)).replace_schema_metadata(None).equals(table)
    assert list(pq.read_metadata(io.BytesIO(body)).metadata) == [b"stillhouse.sha256"]
    with pytest.raises(OSError, match="CRC checksum verification failed"):
        pq.read_table(io.BytesIO(body.replace(b"a.jpg", b"b.jpg", 1)), page_checksum_verification=True)


def test_every_flipped_bit_of_a_table_is_found() -> None:
    body = to_parquet(pa.Table.from_pylist([VIEW, VIEW | {"row": 4}], VIEWS))
    for position in range(len(body)):
        for bit in range(8):
            torn = bytearray(body)
            torn[position] ^= 1 << bit
            with pytest.raises(CorruptionError) as refusal:
                from_parquet(bytes(torn), VIEWS, "tables/x.parquet")
            assert str(refusal.value) == DAMAGED


def test_a_table_cut_short_or_continued_is_damaged() -> None:
    body = to_parquet(pa.Table.from_pylist([VIEW], VIEWS))
    for other in [*(body[:length] for length in range(len(body))), body + b"\0", body + body]:
        with pytest.raises(CorruptionError) as refusal:
            from_parquet(other, VIEWS, "tables/x.parquet")
        assert str(refusal.value) == DAMAGED


def test_a_value_that_looks_like_the_seal_is_only_a_value() -> None:
    seal = "stillhouse.sha256\x18@" + "a" * 64
    table = pa.Table.from_pylist([{"image": seal, "uri": seal}], IMAGES)
    assert from_parquet(to_parquet(table), IMAGES, "here").equals(table)


def test_a_table_that_another_program_wrote_is_refused() -> None:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([VIEW], VIEWS), sink)
    with pytest.raises(CorruptionError) as refusal:
        from_parquet(sink.getvalue(), VIEWS, "tables/x.parquet")
    assert str(refusal.value) == DAMAGED


@every_schema
def test_the_columns_of_another_table_are_refused_by_name(schema: pa.Schema) -> None:
    for other in SCHEMAS.values():
        if other is not schema:
            with pytest.raises(ContractError) as refusal:
                from_parquet(to_parquet(other.empty_table()), schema, "tables/x.parquet")
            assert str(refusal.value) == (
                "table breaks the storage contract:\n"
                f"  tables/x.parquet: has the columns {', '.join(other.names)}, "
                f"expected {', '.join(schema.names)}, of their types "
                "(another version of Stillhouse wrote it: use that version, or make a new cache)"
            )


@every_schema
def test_columns_of_other_types_or_in_another_order_are_refused(schema: pa.Schema) -> None:
    first, *others = schema
    for fields in (
        [first.with_type(pa.int16()), *others],
        [first.with_nullable(not first.nullable), *others],
        [*others, first],
        others,
    ):
        with pytest.raises(ContractError):
            from_parquet(to_parquet(pa.schema(fields).empty_table()), schema, "here")


def test_only_images_of_their_own_and_placements_without_a_mosaic_hold_nulls() -> None:
    nullable = [(name, field.name) for name, schema in SCHEMAS.items() for field in schema if field.nullable]
    assert nullable == [("images", "copy_of"), ("placements", "mosaic"), ("placements", "cell")]


@pytest.mark.slow
def test_a_process_that_read_tables_ends_in_peace(tmp_path: Path) -> None:
    path = tmp_path / "images.parquet"
    path.write_bytes(to_parquet(pa.Table.from_pylist([{"image": "a.jpg", "uri": "file:///a.jpg"}], IMAGES)))
    program = (
        "import sys, torch\n"
        "from storage_schemas.format.tables import IMAGES, from_parquet\n"
        "body = open(sys.argv[1], 'rb').read()\n"
        "for _ in range(100): from_parquet(body, IMAGES, 'images')\n"
    )
    ends = [subprocess.run([sys.executable, "-c", program, str(path)], check=False).returncode for _ in range(12)]
    assert ends == [0] * 12
