"""Which row slots hold training views, and which held-out views: found without reading every part of every table.

In each generation of a view set the training views come first, and rejected views leave their slots at the end of a
shard. So two things say everything: how many views each shard holds, which its commit record counts, and the shard in
which the held-out views of the generation begin, which a search finds by reading a few parts of the `views` table.
That this order holds is checked in every shard that is opened.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import final

import numpy as np
import pyarrow as pa
from jaxtyping import Int8, Int64

from storage_schemas.commits import UnitLog
from storage_schemas.format.errors import ContractError, Problem
from storage_schemas.format.layout import ShardGrid, features_unit, spatial_array, views_unit
from storage_schemas.format.tables import PLACEMENTS, VIEWS
from storage_schemas.format.views import Split, ViewSet
from storage_schemas.objects.store import Store
from storage_schemas.open_shards import OpenShards, SlotValues, UnitRecords
from storage_schemas.read_tables import read_parts
from storage_schemas.row_ranges import RowRanges, row_ranges
from storage_schemas.shard_records import ShardRecord
from storage_schemas.unit_log import require_identity, view_count

SPLITS: tuple[Split, ...] = ("train", "heldout")
"""The splits, in the order that their views have in a generation."""
PROBES = 7
"""Shards that a step of the search reads at once: so each step leaves an eighth of the shards."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GenerationRows:
    """The row slots that hold the views of one generation."""

    shards: int
    """Shards of the set up to the end of the generation."""
    rows: Mapping[Split, RowRanges]
    """By split."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ViewCounts:
    """How many views each shard of a set holds."""

    rows_per_shard: int
    short: Int64[np.ndarray, " short"]
    """Shards that hold fewer views than they have row slots, in order: most often those with rejected views."""
    views: Int64[np.ndarray, " short"]
    """Views in each of these shards."""

    def of(self, shard: int) -> int:
        """Return how many views a shard holds."""
        place = int(np.searchsorted(self.short, shard))
        is_short = place < len(self.short) and self.short[place] == shard
        return int(self.views[place]) if is_short else self.rows_per_shard

    def ranges(self, first: int, stop: int) -> RowRanges:
        """Return the row slots that hold the views of some shards, from `first` to before `stop`."""
        low, high = np.searchsorted(self.short, [first, stop])
        short, size = self.short[low:high], self.rows_per_shard
        starts = np.concatenate([[first], short + 1]) * size
        return row_ranges(starts, np.concatenate([short * size + self.views[low:high], [stop * size]]))


def open_described(store: Store, view_set: ViewSet, records: UnitRecords) -> OpenShards[pa.Table]:
    """Return the rows of the `views` table, read with their shards.

    Args:
        store: the cache.
        view_set: the set.
        records: commit records of its canvases.
    """
    return OpenShards(partial(_read_described, store, view_set, records), records.records.most)


def open_splits(store: Store, view_set: ViewSet, grid: ShardGrid, records: UnitRecords) -> SlotValues:
    """Return the split of each row slot, as its place in `SPLITS`, read with its shard.

    Args:
        store: the cache.
        view_set: the set.
        grid: its shards.
        records: commit records of its canvases.
    """
    read = partial(_read_splits, store, view_set, grid.rows_per_shard, records)
    return SlotValues(views_unit(view_set), grid.rows_per_shard, OpenShards(read, records.records.most))


def open_offsets(store: Store, view_set: ViewSet, teacher: str, grid: ShardGrid, records: UnitRecords) -> SlotValues:
    """Return where a teacher's window starts in each row slot's canvas (row, column; patches), read with its shard.

    Args:
        store: the cache.
        view_set: the set.
        teacher: name of the teacher.
        grid: shards of the set.
        records: commit records of the teacher's features.
    """
    read = partial(_read_offsets, store, view_set, teacher, grid.rows_per_shard, records)
    return SlotValues(features_unit(view_set, teacher), grid.rows_per_shard, OpenShards(read, records.records.most))


def missing_shards(log: UnitLog, shards: int) -> list[int]:
    """Return which of the first shards of a unit are not committed, in order."""
    absent, position = list[int](), 0
    for snapshot in log.snapshots:
        absent += [*range(position, min(snapshot.first, shards)), *snapshot.missing]
        position = snapshot.stop
    absent += range(position, shards)
    return [shard for shard in absent if shard < shards and shard not in log.newer]


def read_counts(records: UnitRecords, grid: ShardGrid, identity: str) -> ViewCounts:
    """Count the views of each shard, by the head of the log where it lists no rejected view, else by commit records.

    Args:
        records: commit records of the set's canvases.
        grid: shards of the set, all of them committed.
        identity: digest that every record must carry.

    Raises:
        ContractError: a record carries another identity.
    """
    log, size = records.log, grid.rows_per_shard
    ends = [grid.first(number).shards - 1 for number, count in enumerate(grid.counts, 1) if count]
    drawn = {shard: len(grid.slots(shard)) for shard in ends}
    uncounted = [shard for shard in sorted(log.newer) if shard < grid.shards]
    short: dict[int, int] = {}
    if log.head is not None and log.head.identity != identity:
        log.read(log.snapshots[0].first, identity)  # which says so
    for snapshot in log.snapshots:
        last = {shard: count for shard, count in drawn.items() if snapshot.holds(shard)}
        if snapshot.views == size * snapshot.shards - sum(size - count for count in last.values()):
            short |= {shard: count for shard, count in last.items() if count < size}
        else:
            inside = range(snapshot.first, min(snapshot.stop, grid.shards))
            uncounted += [shard for shard in inside if snapshot.holds(shard)]
    for commits in _in_parts(records, sorted(uncounted)):
        require_identity(log.unit, commits, identity)
        counts = {shard: view_count(records) for shard, records in commits.items()}
        short |= {shard: count for shard, count in counts.items() if count < size}
    shards = sorted(shard for shard in short if shard < grid.shards)
    views = np.array([short[shard] for shard in shards], dtype=np.int64)
    return ViewCounts(rows_per_shard=size, short=np.array(shards, dtype=np.int64), views=views)


def _in_parts(records: UnitRecords, shards: Sequence[int]) -> Iterator[Mapping[int, list[ShardRecord]]]:
    """Read records, so that those of few shards stay open for what is read next."""
    if len(shards) <= records.records.most:
        yield records.open(shards)
    else:
        yield from records.log.read_in_parts(shards)


def find_splits(grid: ShardGrid, counts: ViewCounts, splits: SlotValues) -> list[GenerationRows]:
    """Find the row slots of the training views and of the held-out views of each generation.

    Args:
        grid: shards of the set.
        counts: views in each shard.
        splits: the split of each row slot.

    Raises:
        MissingError, CorruptionError, ContractError: a part of the `views` table cannot be read.
    """
    ends = [0, *(grid.first(number).shards for number in range(1, len(grid.counts) + 1))]
    return [_rows_of_generation(first, stop, counts, splits) for first, stop in pairwise(ends)]


def _rows_of_generation(first: int, stop: int, counts: ViewCounts, splits: SlotValues) -> GenerationRows:
    border = _first_heldout(first, stop, counts, splits)
    training, held = _spans(counts.ranges(first, border)), _spans(counts.ranges(border, stop))
    if border < stop:
        slot = border * counts.rows_per_shard
        of_border = splits.values.of([border])[border]
        mixed = slot + int((of_border == SPLITS.index("train")).sum())
        training, held = np.append(training, [[slot], [mixed]], axis=1), np.maximum(held, mixed)
    return GenerationRows(shards=stop, rows={"train": row_ranges(*training), "heldout": row_ranges(*held)})


def _spans(ranges: RowRanges) -> Int64[np.ndarray, "2 ranges"]:
    return np.stack([ranges.starts, ranges.starts + np.diff(ranges.before)])


def _first_heldout(first: int, stop: int, counts: ViewCounts, splits: SlotValues) -> int:
    """Return the first shard of a generation that holds a held-out view; `stop` where none does."""
    while first < stop:
        probed = sorted({first + (stop - first) * probe // (PROBES + 1) for probe in range(PROBES + 1)})
        filled = [shard for shard in probed if counts.of(shard)]
        parts = splits.values.of(filled)
        held = [shard for shard in filled if (parts[shard] == SPLITS.index("heldout")).any()]
        training = [shard for shard in filled if shard not in held]
        if held and training and held[0] < training[-1]:
            raise _unordered(splits.name, f"shard {held[0]} has held-out views, and shard {training[-1]} has none")
        first = max([first if filled else first + 1, *(shard + 1 for shard in training)])
        stop = min([stop, *held])
    return stop


def _read_described(
    store: Store, view_set: ViewSet, records: UnitRecords, shards: Sequence[int]
) -> dict[int, pa.Table]:
    return read_parts(store, "views", view_set.name, VIEWS, records.open(shards))


def _read_splits(
    store: Store, view_set: ViewSet, rows_per_shard: int, records: UnitRecords, shards: Sequence[int]
) -> dict[int, Int8[np.ndarray, " slots"]]:
    parts = _read_described(store, view_set, records, shards)
    return {shard: _splits(part, shard, rows_per_shard, records.unit) for shard, part in parts.items()}


def _splits(table: pa.Table, shard: int, rows_per_shard: int, unit: str) -> Int8[np.ndarray, " slots"]:
    """Return the split of each row slot of a shard, after checking that its views fill its first slots in order."""
    _require_first_slots(table, shard, rows_per_shard, unit)
    held = table["split"].to_numpy() == "heldout"
    if (held[:-1] > held[1:]).any():
        raise _unordered(unit, f"shard {shard} has a training view after a held-out view")
    values = np.full(rows_per_shard, -1, dtype=np.int8)
    values[: len(held)] = held
    return values


def _read_offsets(
    store: Store, view_set: ViewSet, teacher: str, rows_per_shard: int, records: UnitRecords, shards: Sequence[int]
) -> dict[int, Int64[np.ndarray, "slots 2"]]:
    commits, array = records.open(shards), spatial_array(view_set, teacher)
    parts = read_parts(store, "placements", f"{teacher}/{view_set.name}", PLACEMENTS, commits)
    offsets = {}
    for shard, table in parts.items():
        views = sum(record.rows for record in commits[shard] if record.array == array)
        if table.num_rows != views:
            found = f"shard {shard} has {table.num_rows} placements for {views} views"
            raise ContractError("placements", [Problem(place=records.unit, found=found)])
        _require_first_slots(table, shard, rows_per_shard, records.unit)
        values = np.full((rows_per_shard, 2), -1, dtype=np.int64)
        values[:views] = np.stack([table["offset_row"].to_numpy(), table["offset_col"].to_numpy()], axis=1)
        offsets[shard] = values
    return offsets


def _require_first_slots(table: pa.Table, shard: int, rows_per_shard: int, unit: str) -> None:
    first = shard * rows_per_shard
    expected = np.arange(first, first + table.num_rows)
    if table.num_rows > rows_per_shard or (table["row"].to_numpy() != expected).any():
        found = f"the rows of shard {shard} are not those of its first {table.num_rows} slots, from {first} on"
        raise ContractError("table", [Problem(place=unit, found=found)])


def _unordered(unit: str, found: str) -> ContractError:
    fix = "each generation has its training views first; another program wrote this"
    return ContractError("splits", [Problem(place=unit, found=found, fix=fix)])
