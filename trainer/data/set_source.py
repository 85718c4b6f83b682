"""One view set of a cache with the features of its teachers, checked to be complete."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from storage_schemas.cache import Cache
from storage_schemas.commits import UnitLog
from storage_schemas.format.encodings import Coding
from storage_schemas.format.errors import MissingError, Problem, first_few
from storage_schemas.format.feature_storage import require_storage
from storage_schemas.format.geometry import CanvasGeometry
from storage_schemas.format.layout import ShardGrid, features_unit, spatial_array, views_unit
from storage_schemas.format.manifest import TeacherManifest, ViewsManifest
from storage_schemas.format.views import Split, ViewSet
from storage_schemas.open_shards import SlotValues, UnitRecords, shards_kept_open
from storage_schemas.row_ranges import RowRanges, joined_ranges
from storage_schemas.split_rows import (
    SPLITS,
    GenerationRows,
    find_splits,
    missing_shards,
    open_offsets,
    open_splits,
    read_counts,
)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Features:
    """The stored features of one teacher for one view set."""

    commits: UnitRecords
    tokens: int
    """Tokens along one side of a window."""
    has_summary: bool
    offsets: SlotValues
    """Start of the teacher's window in the canvas of each row slot (row, column; patches), read with its shard."""
    coding: Coding
    """What the stored spatial entries stand for."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SetSource:
    """One view set, with every teacher that has features of it."""

    geometry: CanvasGeometry
    rows_per_shard: int
    commits: UnitRecords
    rows: Mapping[Split, RowRanges]
    """Row slots of the views of each split."""
    splits: SlotValues
    """Split of each row slot, as its place in `SPLITS`, read with its shard."""
    rejected: int
    """Views that were drawn and could not be cut."""
    features: Mapping[str, Features]
    """By teacher, sorted."""


def open_set(
    cache: Cache,
    views: ViewsManifest,
    view_set: ViewSet,
    teachers: Mapping[str, TeacherManifest],
    counts: Mapping[Split, int] | None = None,
    *,
    window_shards: int = 8,
) -> SetSource:
    """Open a view set: its rows by split, and what reads the rest of each shard when the shard is opened.

    Args:
        cache: the cache.
        views: manifest of the cache's views.
        view_set: the set.
        teachers: manifests of the teachers to learn from, by name; those without features of the set are left out.
        counts: views of each split when a run began; None for all views. Views that were added since are left out.
        window_shards: shards that are read from at the same time.

    Raises:
        MissingError: only some shards of the set's views or features are committed; the missing ones are named.
        ContractError: the views of a generation are not in the order of their splits.
    """
    shape, unit = views.sets[view_set], views_unit(view_set)
    # a block of the order may begin in one shard and end in the next
    most = shards_kept_open(shape.grid.rows_per_shard, 2 * window_shards)
    log = cache.log(unit)
    records = UnitRecords(log, views.digest, shape.grid.shards, most)
    splits = open_splits(cache.store, view_set, shape.grid, records)
    grid, generations = _generations(records, views, view_set, splits, counts)
    rows = {split: joined_ranges([generation.rows[split] for generation in generations]) for split in SPLITS}
    features = {
        name: found
        for name, manifest in teachers.items()
        if (found := _features(cache, manifest, view_set, grid, most)) is not None
    }
    return SetSource(
        geometry=shape.geometry,
        rows_per_shard=grid.rows_per_shard,
        commits=records,
        rows=rows,
        splits=splits,
        rejected=grid.views - sum(map(len, rows.values())),
        features=features,
    )


def _generations(
    records: UnitRecords,
    views: ViewsManifest,
    view_set: ViewSet,
    splits: SlotValues,
    counts: Mapping[Split, int] | None,
) -> tuple[ShardGrid, list[GenerationRows]]:
    """Return the generations that a run uses, and their grid: those that held its views when it began.

    Where no generation ends with just that many views, all are returned: the run's identity then differs.

    Raises:
        MissingError: some of their shards are not committed.
    """
    log, grid, fix = records.log, views.sets[view_set].grid, "run `make views` again: it resumes"
    missing = missing_shards(log, grid.shards)
    begun = [grid.first(number) for number in range(1, len(grid.counts) + 1)]
    whole = [first for first in begun if not missing or missing[0] >= first.shards]
    if not whole or (counts is None and missing):
        _require_whole(log, grid.shards, fix)
    found = find_splits(whole[-1], read_counts(records, whole[-1], views.digest), splits)
    for number in range(1, len(found) + 1):
        if counts == {split: sum(len(part.rows[split]) for part in found[:number]) for split in SPLITS}:
            return begun[number - 1], found[:number]
    _require_whole(log, grid.shards, fix)
    return grid, found


def _features(
    cache: Cache, manifest: TeacherManifest, view_set: ViewSet, grid: ShardGrid, most: int
) -> Features | None:
    """Return a teacher's features of a set, or None if it was never run on the set."""
    name = manifest.spec.name
    unit = features_unit(view_set, name)
    log = cache.log(unit)
    if not len(log):
        return None
    _require_whole(log, grid.shards, f"run `make extract TEACHER={name}` again: it resumes")
    records = UnitRecords(log, manifest.digest, grid.shards, most)
    return Features(
        commits=records,
        tokens=manifest.tokens[view_set],
        has_summary=manifest.spec.summary_dim is not None,
        offsets=open_offsets(cache.store, view_set, name, grid, records),
        coding=_coding(cache, manifest, view_set),
    )


def _coding(cache: Cache, manifest: TeacherManifest, view_set: ViewSet) -> Coding:
    """Return what a teacher's stored features stand for: the array and the manifest must say the same."""
    spec = cache.array(spatial_array(view_set, manifest.spec.name), {}).spec
    require_storage(spec, manifest.identity)
    return cache.coding(spec)


def _require_whole(log: UnitLog, shards: int, fix: str) -> None:
    if missing := missing_shards(log, shards):
        found = f"{len(missing)} of {shards} shards are not committed: {', '.join(first_few(missing))}"
        raise MissingError("shards", [Problem(place=log.unit, found=found, fix=fix)])
