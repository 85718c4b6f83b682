"""Sealing a unit's commit log: the records become snapshots, which one head lists. The records themselves stay.

The order keeps the log whole wherever it is stopped:

1. snapshots: nothing names them yet
2. the cache's format, once: versions that know no heads refuse the cache from now on
3. the head, replaced as a whole: from now on the snapshots count, and new records go to a folder of its epoch

A caller owns the lease on what is sealed, so that one process at a time seals a unit.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import chain
from typing import Any, final

import pyarrow as pa
import xxhash

from storage_schemas.format.errors import MissingError, Problem
from storage_schemas.format.layout import SEALED_FORMAT
from storage_schemas.format.snapshots import (
    AFTER,
    BASE,
    CHECKSUMS_PER_SNAPSHOT,
    SHARDS_PER_SNAPSHOT,
    Head,
    Snapshot,
    head_name,
    record_name,
    snapshot_name,
)
from storage_schemas.format.tables import SNAPSHOTS, to_parquet
from storage_schemas.objects.publish import publish_bytes, publish_group, require_claim
from storage_schemas.objects.store import Store
from storage_schemas.read_groups import read_attributes
from storage_schemas.shard_records import ShardRecord, record_row
from storage_schemas.unit_log import (
    LOG,
    UnitLog,
    array_bytes,
    logged,
    open_log,
    parse_snapshots,
    read_head,
    records_of,
    rejected_views,
    require_identity,
    view_count,
)

WORTH_SEALING = 256
"""A run seals a unit once so many of its records are in no snapshot. Fewer are read in a moment, one by one."""
Sealed = tuple[int, int, list[ShardRecord]]
"""A shard, the epoch of its commit record, and the records of its objects."""


def seal_unit(store: Store, unit: str, least: int = 1) -> int:
    """Seal the records of a unit that are in no snapshot. Records that are sealed already are not read again.

    Snapshots that are full stay as they are. Those that new shards lie within, and the last one where it is less than
    half full, are written anew together with them.

    Args:
        store: the cache, with the claim of this run.
        unit: name of the unit.
        least: how many records must be in no snapshot; with fewer, nothing is done.

    Returns:
        How many records were sealed; 0 where nothing was done.

    Raises:
        ContractError: the records do not all carry one identity.
        CorruptionError, MissingError: a record or a snapshot is damaged or gone.
        StorageError: the store fails; or the claim of this run is gone.
    """
    log = _whole_log(store, unit)
    if len(log.newer) < max(least, 1):
        return 0
    kept, touched = _touched(log)
    identity = log.read(next(iter(log)))[0].identity if log.head is None else log.head.identity
    written = list(_written(store, unit, _checked(log.unit, _sealed_records(log, touched), identity), kept))
    epoch = max([0 if log.head is None else log.head.epoch, *log.newer.values()]) + 1
    _replace(store, Head(unit=unit, epoch=epoch, identity=identity, snapshots=_ordered([*kept, *written])))
    return len(log.newer)


def forget_shards(store: Store, unit: str, shards: Collection[int]) -> None:
    """Take shards out of a unit's log: out of its snapshots first, then their commit records.

    Args:
        store: the cache, with the claim of this run.
        unit: name of the unit.
        shards: committed shards of it.

    Raises:
        MissingError: a shard is not committed.
        StorageError: the store fails; or the claim of this run is gone.
    """
    log = _whole_log(store, unit)
    if absent := sorted(set(shards) - set(log)):
        problems = [Problem(place=record_name(unit, shard, BASE), found="is not committed") for shard in absent]
        raise MissingError("commit log", problems)
    epochs = {shard: log.newer[shard] for shard in shards if shard in log.newer}
    touched = {snapshot: None for shard in sorted(shards) if (snapshot := log.snapshot_of(shard)) is not None}
    if log.head is not None and touched:
        held = list(_sealed_records(replace(log, newer={}), list(touched)))
        epochs |= {shard: epoch for shard, epoch, _ in held if shard in shards}
        kept = [snapshot for snapshot in log.snapshots if snapshot not in touched]
        left = list(_written(store, unit, (entry for entry in held if entry[0] not in shards), kept))
        # its epoch stays: what is newer than the old head is newer than this one
        _replace(store, replace(log.head, snapshots=_ordered([*kept, *left])))
    for shard, epoch in sorted(epochs.items()):
        require_claim(store)
        store.remove(record_name(unit, shard, epoch))


def record_place(store: Store, unit: str, shard: int) -> str:
    """Return where the commit record of a shard is to be written, relative to the cache.

    A run's process reads the head of a unit once: while a run has its claim, nobody else seals what it writes, and
    itself it seals last.
    """
    epoch = _epoch_under_claim(store, unit) if store.claim else _epoch(store, unit)
    return record_name(unit, shard, epoch)


@lru_cache(maxsize=256)
def _epoch_under_claim(store: Store, unit: str) -> int:
    return _epoch(store, unit)


def _epoch(store: Store, unit: str) -> int:
    head = read_head(store, unit)
    return BASE if head is None else head.epoch


def _whole_log(store: Store, unit: str) -> UnitLog:
    """Open a unit's log with the records of all epochs that are not in its snapshots and not older than its head.

    Records of a later epoch are there only where a head was put back by hand, or by a run that was cut off for long.
    """
    log = open_log(store, unit)
    if log.head is None:
        return log
    later = [name for name in store.children(f"{LOG}/{unit}/{AFTER}") if name.isdecimal()]
    names = chain.from_iterable(
        store.listing(f"{LOG}/{unit}/{AFTER}/{name}") for name in later if int(name) > log.head.epoch
    )
    found = {**log.newer, **logged(names).get(unit, {})}
    return replace(log, newer={shard: epoch for shard, epoch in found.items() if log.snapshot_of(shard) is None})


def _touched(log: UnitLog) -> tuple[list[Snapshot], list[Snapshot]]:
    """Return the snapshots that stay, and those that are written anew with the new shards."""
    spans = [log.span_of(shard) for shard in log.newer]
    last = log.snapshots[-1:] if log.snapshots and max(log.newer) >= log.snapshots[-1].stop else ()
    small = [snapshot for snapshot in last if snapshot.shards < SHARDS_PER_SNAPSHOT // 2]
    touched = {snapshot for snapshot in (*spans, *small) if snapshot is not None}
    return (
        [snapshot for snapshot in log.snapshots if snapshot not in touched],
        [snapshot for snapshot in log.snapshots if snapshot in touched],
    )


def _sealed_records(log: UnitLog, touched: Sequence[Snapshot]) -> Iterator[Sealed]:
    """Yield new records and those of some snapshots, in order of their shards. It holds a few snapshots at a time."""
    newer, position = sorted(log.newer), 0
    for snapshot in touched:
        [table] = parse_snapshots(log.store, log.unit, [snapshot])
        epochs = dict(zip(table["shard"].to_pylist(), table["epoch"].to_pylist(), strict=True))
        inside = [(shard, epochs[shard], records) for shard, records in records_of(log.unit, snapshot, table).items()]
        first, stop = bisect_left(newer, snapshot.first), bisect_left(newer, snapshot.stop)
        yield from _newer_records(log, newer[position:first])
        yield from sorted([*inside, *_newer_records(log, newer[first:stop])], key=lambda entry: entry[0])
        position = stop
    yield from _newer_records(log, newer[position:])


def _checked(unit: str, entries: Iterable[Sealed], identity: str) -> Iterator[Sealed]:
    for entry in entries:
        require_identity(unit, {entry[0]: entry[2]}, identity)
        yield entry


def _newer_records(log: UnitLog, shards: Sequence[int]) -> Iterator[Sealed]:
    for commits in log.read_in_parts(shards):
        for shard, records in commits.items():
            yield shard, log.newer[shard], records


def _written(store: Store, unit: str, entries: Iterable[Sealed], kept: Sequence[Snapshot]) -> Iterator[Snapshot]:
    """Write snapshots of records that come in order of their shards, and yield them as the head lists them.

    Args:
        store: the cache.
        unit: the unit's name.
        entries: what is sealed.
        kept: snapshots that stay; none that is written spans one of them.
    """
    firsts, part, region = [snapshot.first for snapshot in kept], _Part(), 0
    for entry in entries:
        before = bisect_left(firsts, entry[0])
        if part.entries and (before != region or not part.has_room_for(entry)):
            yield part.publish(store, unit)
            part = _Part()
        part.add(entry)
        region = before
    if part.entries:
        yield part.publish(store, unit)


@final
class _Part:
    """Records that become one snapshot."""

    def __init__(self) -> None:
        self.entries: list[Sealed] = []
        self._checksums = 0

    def has_room_for(self, entry: Sealed) -> bool:
        near = entry[0] - self.entries[-1][0] <= SHARDS_PER_SNAPSHOT
        small = self._checksums + _checksums(entry) <= CHECKSUMS_PER_SNAPSHOT
        return near and small and len(self.entries) < SHARDS_PER_SNAPSHOT

    def add(self, entry: Sealed) -> None:
        self.entries.append(entry)
        self._checksums += _checksums(entry)

    def publish(self, store: Store, unit: str) -> Snapshot:
        """Write the snapshot, and return its entry in the head."""
        body = to_parquet(_table(self.entries))
        shards = {shard for shard, _, _ in self.entries}
        first, stop = self.entries[0][0], self.entries[-1][0] + 1
        records = [of_shard for _, _, of_shard in self.entries]
        snapshot = Snapshot(
            first=first,
            stop=stop,
            missing=tuple(shard for shard in range(first, stop) if shard not in shards),
            epochs=tuple(sorted({epoch for _, epoch, _ in self.entries})),
            views=sum(map(view_count, records)),
            rejected=sum(map(rejected_views, records)),
            bytes=sum(map(array_bytes, records)),
            size=len(body),
            xxh3=xxhash.xxh3_128(body).hexdigest(),
        )
        require_claim(store)
        publish_bytes(store, snapshot_name(unit, snapshot), body)
        return snapshot


def _checksums(entry: Sealed) -> int:
    return sum(len(record.chunks) for record in entry[2])


def _table(entries: Sequence[Sealed]) -> pa.Table:
    rows: list[dict[str, Any]] = [
        {"shard": shard, "epoch": epoch, **record_row(record)}
        for shard, epoch, records in entries
        for record in records
    ]
    return pa.Table.from_pylist(rows, SNAPSHOTS)


def _ordered(snapshots: Iterable[Snapshot]) -> tuple[Snapshot, ...]:
    return tuple(sorted(snapshots, key=lambda snapshot: snapshot.first))


def _replace(store: Store, head: Head) -> None:
    """Write a new head: the old one counts until it is there, and none of its objects is changed.

    A head without snapshots is deleted: the records that are left then count as those of a log that was never sealed.
    """
    _raise_format(store)
    require_claim(store)
    if head.snapshots:
        publish_bytes(store, head_name(head.unit), head.to_json())
    else:
        store.remove(head_name(head.unit))


def _raise_format(store: Store) -> None:
    """Give the cache the format that has heads, where it still has the first: older versions then refuse it."""
    attributes = read_attributes(store, "")
    if attributes is not None and attributes["format"] < SEALED_FORMAT:
        publish_group(store, "", {**attributes, "format": SEALED_FORMAT})
