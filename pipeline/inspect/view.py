"""What `inspect --view` says of one view. These dataclasses are the JSON's schema, as in `pipeline.inspect.facts`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pyarrow as pa

from pipeline.inspect.facts import SCHEMA
from pipeline.inventory.commit_log import committed_units
from pipeline.inventory.manifest_units import (
    canvas_units,
    detail_units,
    detailed_teachers,
    feature_units,
    stored_sides,
)
from pipeline.inventory.units import Unit
from storage_schemas.cache import Cache
from storage_schemas.commits import ShardRecord
from storage_schemas.format.errors import MissingError, Problem, SettingError
from storage_schemas.format.layout import views_unit
from storage_schemas.format.manifest import TeacherManifest, ViewsManifest
from storage_schemas.format.views import ViewSet


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayNumbers:
    """One view's entry in one array, summed up. `min` to `std` are in the array's unit, computed in float64."""

    array: str
    """Path inside `features.zarr`."""
    dtype: str
    shape: tuple[int, ...]
    """Shape of the entry."""
    min: float
    max: float
    mean: float
    std: float
    """Population standard deviation."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ViewFacts:
    """One view."""

    schema: int
    cache: str
    """The cache's URI."""
    view_set: str
    row: int
    """Row slot in the set."""
    shard: int
    """The shard that holds it."""
    view: Mapping[str, Any]
    """Its row of the `views` table, by column."""
    placements: Mapping[str, Mapping[str, Any]]
    """Teacher → its row of the teacher's `placements` table, by column."""
    arrays: tuple[ArrayNumbers, ...]
    """Canvas, details, then each teacher's features, where they are committed."""


def view_facts(cache: Cache, view: str) -> ViewFacts:
    """Gather what `inspect --view` says of a view.

    Args:
        cache: the cache.
        view: set and row, such as `low-128/17`.

    Raises:
        SettingError: `view` names no view of this cache.
        MissingError: the view is not cut.
    """
    manifests = cache.manifests(cache.teachers())
    views = manifests.views
    if views is None:
        raise MissingError("view", [Problem(place=view, found="no view was cut yet", fix="run `make views`")])
    view_set, row = _parse(view, views)
    shard = row // views.sets[view_set].grid.rows_per_shard
    units = _units(cache, views, manifests.teachers.values(), view_set, shard)
    held = {unit: cache.records(unit.name, unit.identity, [shard]) for unit in units}
    canvas = next(iter(held), None)
    if canvas is None or canvas.name != views_unit(view_set):
        found = f"shard {shard} of {view_set.name} is not committed"
        raise MissingError("view", [Problem(place=view, found=found, fix="run `make views`; it resumes")])
    if row not in views.sets[view_set].grid.slots(shard):
        found = "this row slot has no view: views that an extension added start in the next shard"
        raise MissingError("view", [Problem(place=view, found=found)])
    described = _row(cache.views(view_set, held[canvas]), row, view)
    return ViewFacts(
        schema=SCHEMA,
        cache=cache.store.uri,
        view_set=view_set.name,
        row=row,
        shard=shard,
        view=described,
        placements={
            unit.teacher.name: _row(cache.placements(view_set, unit.teacher.name, commits), row, view)
            for unit, commits in held.items()
            if unit.teacher is not None
        },
        arrays=tuple(_numbers(cache, spec.path, held[unit], row) for unit in held for spec in unit.arrays),
    )


def _parse(view: str, views: ViewsManifest) -> tuple[ViewSet, int]:
    name, _, row = view.rpartition("/")
    known = {view_set.name: view_set for view_set in views.sets}
    if name not in known or not (row.isascii() and row.isdecimal()):
        fix = f"give a set and a row, as in {next(iter(known))}/0; there are {', '.join(known)}"
        raise SettingError("--view", [Problem(place=view, found="names no view of this cache", fix=fix)])
    rows = views.sets[known[name]].grid.rows
    if int(row) >= rows:
        raise SettingError("--view", [Problem(place=view, found=f"{name} has rows 0 to {rows - 1}")])
    return known[name], int(row)


def _units(
    cache: Cache, views: ViewsManifest, teachers: Iterable[TeacherManifest], view_set: ViewSet, shard: int
) -> list[Unit]:
    """Return the units of a set that have the shard committed: canvases first, then details, then features."""
    units, committed = canvas_units(views), committed_units(cache)
    for teacher in detailed_teachers(committed):
        units += detail_units(views, teacher, stored_sides(cache, views, teacher))
    for manifest in teachers:
        units += feature_units(views, manifest)
    return [unit for unit in units if unit.view_set == view_set and shard in committed.get(unit.name, ())]


def _row(table: pa.Table, row: int, view: str) -> Mapping[str, Any]:
    for columns in table.to_pylist():
        if columns["row"] == row:
            return columns
    found = "this row slot has no view: some views of its shard were rejected, and the others fill its first slots"
    raise MissingError("view", [Problem(place=view, found=found)])


def _numbers(cache: Cache, path: str, commits: dict[int, list[ShardRecord]], row: int) -> ArrayNumbers:
    array = cache.array(path, commits)
    entry = array.read([row])[0]
    values = entry.astype(np.float64)
    return ArrayNumbers(
        array=path,
        dtype=str(entry.dtype),
        shape=entry.shape,
        min=float(values.min()),
        max=float(values.max()),
        mean=float(values.mean()),
        std=float(values.std()),
    )
