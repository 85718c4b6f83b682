"""The commit log of a unit, open for reading: which shards are committed, and the records of those that are asked for.

A log that was sealed is read in a few requests: its head, one listing of the records that are newer, and the snapshots
of the shards whose records are wanted. A log that was never sealed is listed, and each record is read by itself.
"""

import heapq
import re
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, islice
from typing import TypeVar, final

import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from storage_schemas.format.errors import ContractError, CorruptionError, MissingError, Problem, first_few
from storage_schemas.format.snapshots import (
    AFTER,
    BASE,
    HEADS,
    Head,
    Snapshot,
    epoch_folder,
    head_name,
    parse_head,
    record_name,
    snapshot_name,
)
from storage_schemas.format.tables import SHARDS, SNAPSHOTS, from_parquet
from storage_schemas.objects.store import Store
from storage_schemas.shard_records import Commits, ShardRecord, checked_records, parse_record

LOG = "tables/shards"
"""Folder of the commit records, relative to the cache."""
KEPT_SNAPSHOTS = 8
"""Snapshots that a process keeps in memory: each takes one to two megabytes."""
SNAPSHOTS_AT_ONCE = 16
"""Snapshots that are read at a time."""
FEW = 8
"""Of so many shards of a snapshot, or fewer, the commit records themselves are read: a snapshot is much larger."""
RECORDS_AT_ONCE = 1024
"""Commit records that are read at a time."""
Item = TypeVar("Item")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LogTotals:
    """What the committed shards of a unit hold."""

    shards: int
    views: int
    rejected: int
    """Views that could not be cut; 0 in units of details and features."""
    bytes: int
    """Size of the array shards (bytes)."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UnitLog(Collection[int]):
    """The committed shards of one unit, in order of their numbers. It holds no records, and may be pickled."""

    store: Store
    """The cache."""
    unit: str
    """Name of the unit."""
    head: Head | None
    """The head of the log; None where it was never sealed."""
    newer: Mapping[int, int]
    """Shards whose records are not in a snapshot → epoch of the record."""

    def __len__(self) -> int:
        return sum(snapshot.shards for snapshot in self.snapshots) + len(self.newer)

    def __contains__(self, shard: object) -> bool:
        return isinstance(shard, int) and (shard in self.newer or self.snapshot_of(shard) is not None)

    def __iter__(self) -> Iterator[int]:
        sealed = (shard for snapshot in self.snapshots for shard in snapshot.numbers())
        return heapq.merge(sealed, sorted(self.newer))

    @property
    def snapshots(self) -> tuple[Snapshot, ...]:
        """Its snapshots, in order of their shards."""
        return () if self.head is None else self.head.snapshots

    def snapshot_of(self, shard: int) -> Snapshot | None:
        """Return the snapshot that has the records of a shard, or None."""
        snapshot = self.span_of(shard)
        return snapshot if snapshot is not None and snapshot.holds(shard) else None

    def span_of(self, shard: int) -> Snapshot | None:
        """Return the snapshot between whose first and last shard a shard lies, whether it is in it or not."""
        place = bisect_right(self.snapshots, shard, key=lambda snapshot: snapshot.first) - 1
        snapshot = self.snapshots[place] if place >= 0 else None
        return snapshot if snapshot is not None and shard < snapshot.stop else None

    def place(self, shard: int) -> str:
        """Return the object that is the commit record of a shard, relative to the cache."""
        snapshot, epoch = self.snapshot_of(shard), self.newer.get(shard, self._last_epoch)
        if snapshot is not None:
            epoch = snapshot.epochs[0] if len(snapshot.epochs) == 1 else self._sealed_epoch(snapshot, shard)
        return record_name(self.unit, shard, epoch)

    def _sealed_epoch(self, snapshot: Snapshot, shard: int) -> int:
        [table] = read_snapshots(self.store, self.unit, [snapshot])
        return int(table["epoch"][table["shard"].index(shard).as_py()].as_py())

    def objects(self) -> list[str]:
        """Return the head and the snapshots, relative to the cache; none where the log was never sealed."""
        snapshots = [snapshot_name(self.unit, snapshot) for snapshot in self.snapshots]
        return [] if self.head is None else [head_name(self.unit), *snapshots]

    def read(self, shard: int, identity: str = "") -> list[ShardRecord]:
        """Return the records of one committed shard; see `records`."""
        return self.records([shard], identity)[shard]

    def records(self, shards: Iterable[int] | None = None, identity: str = "") -> Commits:
        """Return the records of committed shards, in order of their numbers.

        Args:
            shards: whose records; None for all.
            identity: digest that every record must carry; empty for any.

        Raises:
            MissingError: a shard is not committed.
            ContractError: a record carries another identity, or names no object of the cache.
            CorruptionError: a snapshot or a record is damaged.
        """
        wanted = sorted(self if shards is None else set(shards))
        commits: Commits = {}
        for batch in self.read_in_parts(wanted):
            commits |= batch
        if identity:
            require_identity(self.unit, commits, identity)
        return {shard: commits[shard] for shard in wanted}

    def read_in_parts(self, shards: Sequence[int]) -> Iterator[Commits]:
        """Yield the records of committed shards in parts of a few snapshots, so that not all are held at once.

        Args:
            shards: sorted.
        """
        direct: list[tuple[int, int]] = []
        sealed: dict[Snapshot, list[int]] = {}
        for snapshot, group in groupby(shards, key=self.snapshot_of):
            if snapshot is None:
                direct += [(shard, self.newer.get(shard, self._last_epoch)) for shard in group]
            else:
                sealed.setdefault(snapshot, []).extend(group)
        for snapshot in [each for each, some in sealed.items() if self._is_sparse(each, some)]:
            direct += [(shard, snapshot.epochs[0]) for shard in sealed.pop(snapshot)]
        for few in in_parts(direct, RECORDS_AT_ONCE):
            yield self._by_record(few)
        for parts in in_parts(sealed.items(), SNAPSHOTS_AT_ONCE):
            yield self._by_snapshot(dict(parts))

    @staticmethod
    def _is_sparse(snapshot: Snapshot, shards: Sequence[int]) -> bool:
        """Say whether so few shards of a snapshot are wanted that their own records are read, and it is known where."""
        return len(snapshot.epochs) == 1 and len(shards) <= min(FEW, snapshot.shards - 1)

    def _by_record(self, wanted: Sequence[tuple[int, int]]) -> Commits:
        """Read commit records themselves. One of a sealed shard that was lost is read from its snapshot."""
        names = [record_name(self.unit, shard, epoch) for shard, epoch in wanted]
        shards = [shard for shard, _ in wanted]
        try:
            return dict(zip(shards, self.store.read_parsed(names, parse_record), strict=True))
        except MissingError:
            if any(self.snapshot_of(shard) is None for shard in shards) and len(shards) == 1:
                raise
        commits: Commits = {}
        for shard, epoch in wanted:
            snapshot = self.snapshot_of(shard)
            commits |= self._by_record([(shard, epoch)]) if snapshot is None else self._by_snapshot({snapshot: [shard]})
        return commits

    @property
    def _last_epoch(self) -> int:
        """The epoch in which the record of a shard would lie that is not committed, for the message."""
        return BASE if self.head is None else self.head.epoch

    def _by_snapshot(self, wanted: Mapping[Snapshot, Sequence[int]]) -> Commits:
        try:
            tables = read_snapshots(self.store, self.unit, list(wanted))
        except MissingError:
            # the log was sealed anew and the snapshot deleted after this log was opened: the new one has its shards
            again = open_log(self.store, self.unit)
            if again.head == self.head:
                raise
            return again.records(shard for shards in wanted.values() for shard in shards)
        commits: Commits = {}
        for (snapshot, shards), table in zip(wanted.items(), tables, strict=True):
            commits |= records_of(self.unit, snapshot, table, shards)
        return commits

    def totals(self, identity: str = "") -> LogTotals:
        """Return what the committed shards hold. It reads the records that are in no snapshot, and no others.

        Args:
            identity: digest that every record must carry; empty for any.

        Raises:
            ContractError: a record carries another identity.
        """
        if identity:
            self._require_sealed_identity(identity)
        records = self.records(self.newer, identity).values()
        return LogTotals(
            shards=len(self),
            views=sum(each.views for each in self.snapshots) + sum(map(view_count, records)),
            rejected=sum(each.rejected for each in self.snapshots) + sum(map(rejected_views, records)),
            bytes=sum(each.bytes for each in self.snapshots) + sum(map(array_bytes, records)),
        )

    def require_identity(self, identity: str) -> None:
        """Refuse a log whose records carry another identity. It reads the records that are in no snapshot.

        Raises:
            ContractError: they do.
        """
        self._require_sealed_identity(identity)
        self.records(self.newer, identity)

    def _require_sealed_identity(self, identity: str) -> None:
        if self.head is not None and self.head.identity != identity:
            raise _other_identity(self.unit, [self.snapshots[0].first])


def in_parts(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield the items in lists of a size; the last may be shorter."""
    left = iter(items)
    while part := list(islice(left, size)):
        yield part


def empty_log(store: Store, unit: str) -> UnitLog:
    """Return the log of a unit without a committed shard."""
    return UnitLog(store=store, unit=unit, head=None, newer={})


def open_log(store: Store, unit: str) -> UnitLog:
    """Open the log of one unit: a read and a listing.

    Raises:
        CorruptionError, ContractError: its head is damaged.
    """
    head = read_head(store, unit)
    folder = unit if head is None else epoch_folder(unit, head.epoch)
    found = logged(store.listing(f"{LOG}/{folder}"))
    return _log(store, unit, head, found.get(unit, {}))


def read_some(store: Store, unit: str, shards: Iterable[int], identity: str = "") -> Commits:
    """Return the records of shards that are known to be committed, without a listing; see `UnitLog.records`."""
    return _log(store, unit, read_head(store, unit), {}).records(shards, identity)


def open_logs(store: Store, folder: str = "") -> dict[str, UnitLog]:
    """Open the logs of all units below a folder, by the unit's name. Units without a committed shard are left out.

    Where no log below it was sealed, it takes two listings. Else it takes the listing of the heads, a read of each, and
    a listing of what is newer.

    Args:
        store: the cache.
        folder: such as `views` or `teachers/dinov3`; empty for all units.
    """
    place = f"/{folder}" if folder else ""
    names = [name for name in store.listing(f"{HEADS}{place}") if name.endswith("/head.json")]
    if not names:
        logs = [_log(store, unit, None, found) for unit, found in logged(store.listing(f"{LOG}{place}")).items()]
        return {log.unit: log for log in logs}
    sealed = {head.unit: head for head in store.read_parsed(names, parse_head)}
    folders = [epoch_folder(unit, head.epoch) for unit, head in sealed.items()]
    folders += [unit for unit in _unit_folders(store, folder) if unit not in sealed]
    found = logged(name for below in folders for name in store.listing(f"{LOG}/{below}"))
    units = sorted({*sealed, *found})
    return {unit: _log(store, unit, sealed.get(unit), found.get(unit, {})) for unit in units}


def read_head(store: Store, unit: str) -> Head | None:
    """Return the head of a unit's log, or None where it was never sealed."""
    try:
        [head] = store.read_parsed([head_name(unit)], parse_head)
    except MissingError:
        return None
    return head


def logged(names: Iterable[str]) -> dict[str, dict[int, int]]:
    """Return the shards of each unit, with the epoch of their records, by the names of commit records.

    Of two records of one shard the newer one counts.

    Args:
        names: of objects, relative to the cache. Other names, such as those of temporary files, are no records.
    """
    units: dict[str, dict[int, int]] = {}
    for name in names:
        if (parts := _RECORD.fullmatch(name)) is None:
            continue
        unit, epoch, shard = parts["unit"], int(parts["epoch"] or BASE), int(parts["shard"])
        if name == record_name(unit, shard, epoch):
            known = units.setdefault(unit, {})
            known[shard] = max(epoch, known.get(shard, BASE))
    return units


_RECORD = re.compile(rf"{LOG}/(?P<unit>.+?)(?:/{AFTER}/(?P<epoch>[0-9]+))?/(?P<shard>[0-9]+)\.parquet", re.ASCII)


def read_snapshots(store: Store, unit: str, snapshots: Sequence[Snapshot]) -> list[pa.Table]:
    """Return the tables of some snapshots of a unit. A process keeps the last few: they never change.

    Raises:
        MissingError: a snapshot is not there.
        CorruptionError: it is damaged, or another one is in its place.
    """
    if len(snapshots) == 1:
        return [_kept_snapshot(store, unit, snapshots[0])]
    return parse_snapshots(store, unit, snapshots)


@lru_cache(maxsize=KEPT_SNAPSHOTS)
def _kept_snapshot(store: Store, unit: str, snapshot: Snapshot) -> pa.Table:
    [table] = parse_snapshots(store, unit, [snapshot])
    return table


def drop_kept_snapshots() -> None:
    """Forget the snapshots that this process keeps, so that they are read again."""
    _kept_snapshot.cache_clear()


def parse_snapshots(store: Store, unit: str, snapshots: Sequence[Snapshot]) -> list[pa.Table]:
    """Read the tables of some snapshots of a unit; see `read_snapshots`."""
    named = {snapshot_name(unit, snapshot): snapshot for snapshot in snapshots}

    def parse(body: bytes, place: str) -> pa.Table:
        if xxhash.xxh3_128(body).hexdigest() != named[place].xxh3:
            found = "its bytes do not have the XXH3 in its name"
            fix = f"delete {head_name(unit)}: the commit records count then, and `make compact` seals them again"
            raise CorruptionError("snapshot", [Problem(place=place, found=found, fix=fix)])
        return from_parquet(body, SNAPSHOTS, place)

    return store.read_parsed(list(named), parse)


def require_identity(unit: str, commits: Mapping[int, Sequence[ShardRecord]], identity: str) -> None:
    """Refuse records that carry another identity.

    Raises:
        ContractError: they do.
    """
    odd = [shard for shard, records in commits.items() if any(record.identity != identity for record in records)]
    if odd:
        raise _other_identity(unit, odd)


def view_count(records: Sequence[ShardRecord]) -> int:
    """Return how many views a shard holds, by its records."""
    return next((record.rows for record in records if record.array), 0)


def rejected_views(records: Sequence[ShardRecord]) -> int:
    """Return how many views of a shard could not be cut, by its records."""
    return sum(record.rows for record in records if record.path.startswith("tables/rejected/"))


def array_bytes(records: Sequence[ShardRecord]) -> int:
    """Return the size of a shard's arrays (bytes), by its records."""
    return sum(record.bytes for record in records if record.array)


def _other_identity(unit: str, odd: Sequence[int]) -> ContractError:
    found = f"shards {', '.join(first_few(odd))} were computed from something else than the group says"
    return ContractError("commit log", [Problem(place=unit, found=found)])


def _log(store: Store, unit: str, head: Head | None, found: Mapping[int, int]) -> UnitLog:
    log = UnitLog(store=store, unit=unit, head=head, newer={})
    if head is None:
        return UnitLog(store=store, unit=unit, head=None, newer=found)
    newer = {shard: epoch for shard, epoch in found.items() if log.snapshot_of(shard) is None}
    return UnitLog(store=store, unit=unit, head=head, newer=newer)


def records_of(unit: str, snapshot: Snapshot, table: pa.Table, shards: Collection[int] | None = None) -> Commits:
    """Return the records of shards of a snapshot.

    Args:
        unit: the unit's name.
        snapshot: as the head lists it.
        table: of the snapshot.
        shards: whose records, in order; None for all.

    Raises:
        CorruptionError: the snapshot does not hold the shards that the head says.
        ContractError: a record names no object of the cache.
    """
    place, commits = snapshot_name(unit, snapshot), dict[int, list[ShardRecord]]()
    wanted = snapshot.numbers() if shards is None else list(shards)
    if len(wanted) < snapshot.shards:
        table = table.filter(pc.is_in(table["shard"], pa.array(wanted, pa.int64())))
    numbers = table["shard"].to_pylist()
    rows = zip(numbers, table.select(SHARDS.names).to_pylist(), strict=True)
    for shard, group in groupby(rows, key=lambda row: row[0]):
        commits[shard] = checked_records([row for _, row in group], place)
    if list(commits) != wanted:
        found = "does not hold the records of the shards that its head lists"
        raise CorruptionError("snapshot", [Problem(place=place, found=found)])
    return commits


def _unit_folders(store: Store, folder: str) -> Iterator[str]:
    """Yield the units that have a folder of records below a folder of the log. It lists no folder of records."""
    if not folder:
        for below in ["views", *(f"teachers/{name}" for name in store.children(f"{LOG}/teachers"))]:
            yield from _unit_folders(store, below)
        return
    sets = store.children(f"{LOG}/{folder}")
    yield from (f"{folder}/{name}" for name in sets)
    if folder == "views":
        yield from (
            f"views/{name}/detail/{teacher}"
            for name in sets
            for teacher in store.children(f"{LOG}/views/{name}/detail")
        )
