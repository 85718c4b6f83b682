"""The commit log: a shard counts once its commit record is written, and the record is written last."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import final

import pyarrow as pa

from storage_schemas.format.errors import ContractError, Problem, first_few
from storage_schemas.format.layout import FEATURES, table_part
from storage_schemas.format.tables import SHARDS, from_parquet
from storage_schemas.objects.store import Store

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


def record_path(unit: str, shard: int) -> str:
    """Return the name of a shard's commit record, relative to the cache."""
    return table_part("shards", unit, shard)


def to_table(records: list[ShardRecord]) -> pa.Table:
    """Return the records of a shard's objects as the table of its commit record."""
    return pa.Table.from_pylist([{name: getattr(record, name) for name in SHARDS.names} for record in records], SHARDS)


def committed_shards(store: Store, unit: str) -> list[int]:
    """Return the numbers of a unit's committed shards, sorted. It lists the commit records, and reads none."""
    prefix = f"tables/shards/{unit}"
    names = [name.removeprefix(f"{prefix}/") for name in store.listing(prefix)]
    return sorted(int(name.removesuffix(".parquet")) for name in names if _is_record(name))


def read_commit(store: Store, unit: str, shard: int) -> list[ShardRecord]:
    """Read the commit record of one shard.

    Raises:
        MissingError: the shard is not committed.
        ContractError: the record names no object, or one outside the cache's own folders.
    """
    return _read(store, unit, [shard])[shard]


def read_commits(store: Store, unit: str, shards: Iterable[int] | None = None) -> Commits:
    """Read commit records of a unit, by shard number.

    Args:
        store: the cache.
        unit: the unit's name.
        shards: whose records, all of them committed; None for all committed shards.

    Raises:
        MissingError: a shard is not committed.
        ContractError: a record names no object, or one outside the cache's own folders.
    """
    return _read(store, unit, committed_shards(store, unit) if shards is None else sorted(shards))


def read_records(store: Store, unit: str, identity: str, shards: Iterable[int] | None = None) -> Commits:
    """Read commit records of a unit that must carry an identity, by shard number.

    Args:
        store: the cache.
        unit: the unit's name.
        identity: digest that every record must carry.
        shards: whose records, all of them committed; None for all committed shards.

    Raises:
        MissingError: a shard is not committed.
        ContractError: a record carries another identity, or names no object of the cache.
    """
    commits = read_commits(store, unit, shards)
    odd = [shard for shard, records in commits.items() if any(record.identity != identity for record in records)]
    if odd:
        found = f"shards {', '.join(first_few(odd))} were computed from something else than the group says"
        raise ContractError("commit log", [Problem(place=unit, found=found)])
    return commits


def _read(store: Store, unit: str, shards: list[int]) -> Commits:
    places = [record_path(unit, shard) for shard in shards]
    return dict(zip(shards, store.read_parsed(places, _parse), strict=True))


def _parse(body: bytes, place: str) -> list[ShardRecord]:
    records = [ShardRecord(**row) for row in from_parquet(body, SHARDS, place).to_pylist()]
    if not records or any(not record.path.startswith((f"{FEATURES}/", "tables/")) for record in records):
        raise ContractError("commit record", [Problem(place=place, found="names no object of this cache")])
    if any(min(record.first_row, record.rows, record.bytes) < 0 for record in records):
        raise ContractError("commit record", [Problem(place=place, found="has a number below 0")])
    return records


def _is_record(name: str) -> bool:
    # the folder of a unit may also hold the records of a unit below it (detail), and temporary files of writers
    return name.endswith(".parquet") and name.removesuffix(".parquet").isdecimal()
