"""Opening views for a user's own program: a whole set, or the shard of one view."""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import get_args

from storage_schemas.cached_views import TeacherReader, Units, ViewReader
from storage_schemas.commits import open_log
from storage_schemas.format import layout
from storage_schemas.format.errors import MissingError, Problem, SettingError, first_few
from storage_schemas.format.feature_storage import require_storage
from storage_schemas.format.manifest import TeacherManifest, ViewsManifest
from storage_schemas.format.near_names import did_you_mean
from storage_schemas.format.teacher import forward_of
from storage_schemas.format.views import Split, ViewSet
from storage_schemas.objects.store import Store
from storage_schemas.open_shards import UnitRecords, shards_kept_open
from storage_schemas.read_cache import ReadCache
from storage_schemas.read_groups import read_manifests, read_teacher_manifest, teacher_names
from storage_schemas.read_latents import read_coding
from storage_schemas.read_phi_s import require_phi_s
from storage_schemas.row_ranges import RowRanges
from storage_schemas.sharded_array import open_array
from storage_schemas.split_rows import (
    find_splits,
    missing_shards,
    open_described,
    open_offsets,
    open_splits,
    read_counts,
)


def open_views(
    store: Store,
    kept: ReadCache | None,
    name: str,
    teachers: Collection[str] | None,
    units: Units,
    row: int | None = None,
) -> ViewReader:
    """Open the views of a set with the features of its teachers, after checking that every shard is committed.

    Args:
        store: the cache.
        kept: keeps what is read of arrays on this machine; None to keep nothing.
        name: of the view set.
        teachers: names of the teachers; None for all that have features of the set.
        units: units of the spatial features.
        row: a row slot, to open only the shard that holds it; None for the whole set.

    Raises:
        MissingError: shards were never committed, or the cache lacks a teacher.
        SettingError: there is no such view set, row slot or unit.
    """
    if units not in get_args(Units):
        found = f"{units!r} is none of {', '.join(get_args(Units))}"
        raise SettingError("view", [Problem(place="units", found=found)])
    views, view_set = _view_set(store, name)
    shards, grid = _shards(views, view_set, row), views.sets[view_set].grid
    records = _records(store, layout.views_unit(view_set), views.digest, shards, grid, "make views")
    return ViewReader(
        view_set=view_set,
        geometry=views.sets[view_set].geometry,
        pixels=open_array(store, layout.pixels_array(view_set), records, kept),
        described=open_described(store, view_set, records),
        find_rows=partial(_rows, store, view_set, grid, views.digest, records),
        teachers={
            manifest.spec.name: _teacher_reader(store, kept, manifest, view_set, units, shards, grid)
            for manifest in _chosen(store, view_set, teachers)
        },
    )


def _rows(
    store: Store, view_set: ViewSet, grid: layout.ShardGrid, identity: str, records: UnitRecords
) -> list[Mapping[Split, RowRanges]]:
    counts, splits = read_counts(records, grid, identity), open_splits(store, view_set, grid, records)
    return [generation.rows for generation in find_splits(grid, counts, splits)]


def _view_set(store: Store, name: str) -> tuple[ViewsManifest, ViewSet]:
    views = read_manifests(store, []).views
    if views is None:
        raise MissingError("views", [Problem(place=store.uri, found="no view was cut yet", fix="run `make views`")])
    by_name = {view_set.name: view_set for view_set in sorted(views.sets)}
    if name not in by_name:
        problem = Problem(place=name, found="the cache has no such view set", fix=did_you_mean(name, by_name))
        raise SettingError("view set", [problem])
    return views, by_name[name]


def _shards(views: ViewsManifest, view_set: ViewSet, row: int | None) -> Sequence[int]:
    grid = views.sets[view_set].grid
    if row is None:
        return range(grid.shards)
    if not 0 <= row < grid.rows:
        found = f"{view_set.name} has the row slots 0 to {grid.rows - 1}"
        raise SettingError("view", [Problem(place=f"{view_set.name}/{row}", found=found)])
    return [row // grid.rows_per_shard]


def _chosen(store: Store, view_set: ViewSet, teachers: Collection[str] | None) -> list[TeacherManifest]:
    """Return the manifests of the teachers asked for; of those that have features of the set, where none are named."""
    if isinstance(teachers, str):
        found, fix = f"{teachers!r} is text, expected a list of names", f"give teachers=[{teachers!r}]"
        raise SettingError("view", [Problem(place="teachers", found=found, fix=fix)])
    known = teacher_names(store)
    if unknown := [name for name in teachers or () if name not in known]:
        found = "the cache has no features of this teacher"
        problems = [Problem(place=name, found=found, fix=did_you_mean(name, known)) for name in unknown]
        raise MissingError("teacher", problems)
    asked = [name for name in known if teachers is None or name in teachers]
    seeing = [name for name in asked if len(open_log(store, layout.features_unit(view_set, name)))]
    if unseen := [name for name in teachers or () if name not in seeing]:
        found = f"has no features of {view_set.name} yet"
        problems = [Problem(place=name, found=found, fix=f"run `{_extract(name)}`") for name in unseen]
        raise MissingError("features", problems)
    return [_manifest(store, name) for name in seeing]


def _manifest(store: Store, teacher: str) -> TeacherManifest:
    manifest = read_teacher_manifest(store, teacher)
    if manifest is None:
        found, fix = "has features, but no manifest", f"run `{_extract(teacher)}` again: it resumes"
        raise MissingError("teacher", [Problem(place=teacher, found=found, fix=fix)])
    return manifest


def _teacher_reader(
    store: Store,
    kept: ReadCache | None,
    manifest: TeacherManifest,
    view_set: ViewSet,
    units: Units,
    shards: Sequence[int],
    grid: layout.ShardGrid,
) -> TeacherReader:
    name, summary = manifest.spec.name, None
    records = _records(store, layout.features_unit(view_set, name), manifest.digest, shards, grid, _extract(name))
    if manifest.spec.summary_dim is not None:
        summary = open_array(store, layout.summary_array(view_set, name), records, kept)
    spatial = open_array(store, layout.spatial_array(view_set, name), records, kept)
    require_storage(spatial.spec, manifest.identity)
    return TeacherReader(
        spatial=spatial,
        coding=read_coding(store, spatial.spec),
        summary=summary,
        offsets=open_offsets(store, view_set, name, grid, records),
        phi_s=require_phi_s(store, name)[0] if units == "raw" else None,
    )


def _records(
    store: Store, unit: str, identity: str, shards: Sequence[int], grid: layout.ShardGrid, command: str
) -> UnitRecords:
    """Return the commit records of a unit, of which some shards must all be committed."""
    log = open_log(store, unit)
    absent = (
        missing_shards(log, grid.shards)
        if len(shards) == grid.shards
        else [shard for shard in shards if shard not in log]
    )
    if absent:
        found = f"{len(absent)} of {len(shards)} shards are not committed: {', '.join(first_few(absent))}"
        if len(shards) == 1:
            found = f"shard {absent[0]} is not committed"
        raise MissingError("shards", [Problem(place=unit, found=found, fix=f"run `{command}` again: it resumes")])
    return UnitRecords(log, identity, grid.shards, shards_kept_open(grid.rows_per_shard))


def _extract(teacher: str) -> str:
    return f"make extract TEACHER={forward_of(teacher)}"
