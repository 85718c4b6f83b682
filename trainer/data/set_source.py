"""One view set of a cache with the features of its teachers, checked to be complete."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from storage_schemas.cache import Cache
from storage_schemas.commits import ShardRecord
from storage_schemas.format.encodings import Coding
from storage_schemas.format.errors import ContractError, MissingError, Problem, first_few
from storage_schemas.format.feature_storage import require_storage
from storage_schemas.format.geometry import CanvasGeometry
from storage_schemas.format.layout import ShardGrid, features_unit, spatial_array, views_unit
from storage_schemas.format.manifest import TeacherManifest, ViewsManifest
from storage_schemas.format.views import Split, ViewSet

Commits = dict[int, list[ShardRecord]]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Features:
    """The stored features of one teacher for one view set."""

    commits: Commits
    tokens: int
    """Tokens along one side of a window."""
    has_summary: bool
    offsets: Int64[np.ndarray, "slots 2"]
    """Start of the teacher's window in the canvas of each row slot (row, column; patches); -1 for a slot without a
    view."""
    coding: Coding
    """What the stored spatial entries stand for."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SetSource:
    """One view set, with every teacher that has features of it."""

    geometry: CanvasGeometry
    rows_per_shard: int
    commits: Commits
    rows: Mapping[Split, Int64[np.ndarray, " views"]]
    """Row slots of the views of each split."""
    features: Mapping[str, Features]
    """By teacher, sorted."""


def open_set(
    cache: Cache,
    views: ViewsManifest,
    view_set: ViewSet,
    teachers: Mapping[str, TeacherManifest],
    counts: Mapping[Split, int] | None = None,
) -> SetSource:
    """Open a view set: its commit records, its rows by split, and its teachers' placements.

    Args:
        cache: the cache.
        views: manifest of the cache's views.
        view_set: the set.
        teachers: manifests of the teachers to learn from, by name; those without features of the set are left out.
        counts: views of each split when a run began; None for all views. Views that were added since are left out.

    Raises:
        MissingError: only some shards of the set's views or features are committed; the missing ones are named.
        ContractError: a view has no placement.
    """
    shape, unit = views.sets[view_set], views_unit(view_set)
    commits = cache.records(unit, views.digest)
    table = cache.views(view_set, commits)
    shards = shape.grid.shards
    if counts is not None:
        shards = _shards_of_first(table, counts, shape.grid)
        commits = {shard: records for shard, records in commits.items() if shard < shards}
        table = table.filter(pa.array(table["row"].to_numpy() < shards * shape.grid.rows_per_shard))
    _require_whole(unit, commits, shards, "run `make views` again: it resumes")
    features = {
        name: found
        for name, manifest in teachers.items()
        if (found := _features(cache, manifest, view_set, table["row"].to_numpy(), shape.grid, shards)) is not None
    }
    return SetSource(
        geometry=shape.geometry,
        rows_per_shard=shape.grid.rows_per_shard,
        commits=commits,
        rows={split: _rows_of(table, split) for split in ("train", "heldout")},
        features=features,
    )


def _features(
    cache: Cache,
    manifest: TeacherManifest,
    view_set: ViewSet,
    rows: Int64[np.ndarray, " views"],
    grid: ShardGrid,
    shards: int,
) -> Features | None:
    """Return a teacher's features of the first shards of a set, or None if it was never run on the set."""
    unit = features_unit(view_set, manifest.spec.name)
    commits = cache.records(unit, manifest.digest)
    if not commits:
        return None
    commits = {shard: records for shard, records in commits.items() if shard < shards}
    _require_whole(unit, commits, shards, f"run `make extract TEACHER={manifest.spec.name}` again: it resumes")
    table = cache.placements(view_set, manifest.spec.name, commits)
    offsets = np.full((grid.rows, 2), -1, dtype=np.int64)
    offsets[table["row"].to_numpy()] = np.stack(
        [table["offset_row"].to_numpy(), table["offset_col"].to_numpy()], axis=1
    )
    if (unplaced := rows[(offsets[rows] < 0).any(axis=1)]).size:
        found = f"{unplaced.size} views have no placement, the first in row {unplaced[0]}"
        raise ContractError("placements", [Problem(place=unit, found=found)])
    return Features(
        commits=commits,
        tokens=manifest.tokens[view_set],
        has_summary=manifest.spec.summary_dim is not None,
        offsets=offsets,
        coding=_coding(cache, manifest, view_set),
    )


def _coding(cache: Cache, manifest: TeacherManifest, view_set: ViewSet) -> Coding:
    """Return what a teacher's stored features stand for: the array and the manifest must say the same."""
    spec = cache.array(spatial_array(view_set, manifest.spec.name), {}).spec
    require_storage(spec, manifest.identity)
    return cache.coding(spec)


def _shards_of_first(table: pa.Table, counts: Mapping[Split, int], grid: ShardGrid) -> int:
    """Return the number of shards of a set when a run began: those of its first generations that hold its views.

    Where no generation ends with just that many views, all shards are returned: the run's identity then differs.
    """
    rows, splits = table["row"].to_numpy(), table["split"].to_numpy()
    for generations in range(1, len(grid.counts) + 1):
        shards = grid.first(generations).shards
        there = splits[rows < shards * grid.rows_per_shard]
        if all(int((there == split).sum()) == views for split, views in counts.items()):
            return shards
    return grid.shards


def _rows_of(table: pa.Table, split: str) -> Int64[np.ndarray, " views"]:
    return table["row"].to_numpy()[table["split"].to_numpy() == split]


def _require_whole(unit: str, commits: Commits, shards: int, fix: str) -> None:
    if missing := sorted(set(range(shards)) - commits.keys()):
        found = f"{len(missing)} of {shards} shards are not committed: {', '.join(first_few(missing))}"
        raise MissingError("shards", [Problem(place=unit, found=found, fix=fix)])
