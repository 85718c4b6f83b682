"""The commit log: a shard counts once its commit record is written, and the record is written last.

Door to the log: `unit_log` reads it, sealed or not; `seal_log` seals it.
"""

from collections.abc import Iterable

from storage_schemas.format.snapshots import BASE, record_name
from storage_schemas.objects.store import Store
from storage_schemas.shard_records import Checksums, Commits, ShardRecord, to_table
from storage_schemas.unit_log import UnitLog, open_log, open_logs, read_some

__all__ = [
    "Checksums",
    "Commits",
    "ShardRecord",
    "UnitLog",
    "committed_shards",
    "open_log",
    "open_logs",
    "read_commit",
    "read_commits",
    "read_records",
    "record_path",
    "to_table",
]


def record_path(unit: str, shard: int) -> str:
    """Return the name of the commit record of a shard whose unit was never sealed, relative to the cache."""
    return record_name(unit, shard, BASE)


def committed_shards(store: Store, unit: str) -> list[int]:
    """Return the numbers of a unit's committed shards, sorted. It reads no commit record."""
    return list(open_log(store, unit))


def read_commit(store: Store, unit: str, shard: int) -> list[ShardRecord]:
    """Read the commit record of one shard.

    Raises:
        MissingError: the shard is not committed.
        ContractError: the record names no object, or one outside the cache's own folders.
    """
    return read_some(store, unit, [shard])[shard]


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
    return read_records(store, unit, "", shards)


def read_records(store: Store, unit: str, identity: str, shards: Iterable[int] | None = None) -> Commits:
    """Read commit records of a unit that must carry an identity, by shard number.

    Args:
        store: the cache.
        unit: the unit's name.
        identity: digest that every record must carry.
        shards: whose records, all of them committed; the unit's open log, for all of its shards without opening it
            again; None for all committed shards.

    Raises:
        MissingError: a shard is not committed.
        ContractError: a record carries another identity, or names no object of the cache.
    """
    if isinstance(shards, UnitLog):
        return shards.records(identity=identity)
    if shards is None:
        return open_log(store, unit).records(identity=identity)
    if not (wanted := list(shards)):
        return {}
    return read_some(store, unit, wanted, identity)
