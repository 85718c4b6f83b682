"""Commit records: what is known of each object of a committed shard, and the table that holds it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import pyarrow as pa

from storage_schemas.format.errors import ContractError, Problem
from storage_schemas.format.layout import FEATURES
from storage_schemas.format.tables import SHARDS, from_parquet

Checksums = bytes
"""CRC32C of chunks, one after the other."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRecord:
    """One object of a committed shard."""

    path: str
    """The object, relative to the cache."""
    array: str
    """The array inside `features.zarr` that it holds a shard of; empty for a part of a table."""
    first_row: int
    """First row slot of the shard."""
    rows: int
    """Views in the shard. They fill its first slots."""
    bytes: int
    """Size of the object (bytes)."""
    xxh3: str
    """XXH3 (128 bits) of the object's bytes, hexadecimal."""
    chunks: Checksums
    """CRC32C of each chunk, in order of row slot: the four bytes that end the chunk; empty for a part of a table. By
    them a reader recognises a chunk of the shard that was committed, without reading the rest of the shard."""
    identity: str
    """Digest of what the shard was computed from."""


Commits = dict[int, list[ShardRecord]]
"""Commit records of a unit, by shard number."""


def to_table(records: Sequence[ShardRecord]) -> pa.Table:
    """Return the records of a shard's objects as the table of its commit record."""
    return pa.Table.from_pylist([record_row(record) for record in records], SHARDS)


def record_row(record: ShardRecord) -> dict[str, Any]:
    """Return a record as a row of a table."""
    return {name: getattr(record, name) for name in SHARDS.names}


def parse_record(body: bytes, place: str) -> list[ShardRecord]:
    """Return the records of a shard's objects from the bytes of its commit record.

    Raises:
        CorruptionError: they are damaged.
        ContractError: the record names no object, or one outside the cache's own folders.
    """
    return checked_records(from_parquet(body, SHARDS, place).to_pylist(), place)


def checked_records(rows: Sequence[Mapping[str, Any]], place: str) -> list[ShardRecord]:
    """Return the records of one shard from rows of a table, after checking what they name.

    Raises:
        ContractError: they name no object, or one outside the cache's own folders.
    """
    records = [ShardRecord(**row) for row in rows]
    if not records or any(not record.path.startswith((f"{FEATURES}/", "tables/")) for record in records):
        raise ContractError("commit record", [Problem(place=place, found="names no object of this cache")])
    if any(min(record.first_row, record.rows, record.bytes) < 0 for record in records):
        raise ContractError("commit record", [Problem(place=place, found="has a number below 0")])
    return records
