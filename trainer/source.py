"""What a cache offers a training run: its view sets, its teachers, and whether all of it is there."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from storage_schemas.cache import Cache, phi_s_digest
from storage_schemas.commits import ShardRecord
from storage_schemas.errors import ContractError, MissingError, Problem, SettingError
from storage_schemas.geometry import CanvasGeometry
from storage_schemas.layout import ShardGrid, features_unit, views_unit
from storage_schemas.manifest import TeacherManifest, ViewsManifest
from storage_schemas.phi_s import PhiS
from storage_schemas.stats import TeacherStats
from storage_schemas.views import Split, ViewSet

Commits = dict[int, list[ShardRecord]]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Features:
    """What one teacher stored of one view set."""

    commits: Commits
    tokens: int
    """Tokens along one side of a window."""
    has_summary: bool
    offsets: Int64[np.ndarray, "slots 2"]
    """Start of the teacher's window in each row slot's canvas (row, column; patches); -1 in a slot without a view."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SetSource:
    """One view set, with every teacher that has seen it."""

    geometry: CanvasGeometry
    rows_per_shard: int
    commits: Commits
    rows: Mapping[Split, Int64[np.ndarray, " views"]]
    """Row slots of the views of each split."""
    features: Mapping[str, Features]
    """By teacher, sorted."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TeacherSource:
    """One teacher: what it is, and what its features are like."""

    manifest: TeacherManifest
    phi_s: PhiS
    stats: TeacherStats


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source:
    """Everything a run reads, checked to be complete. It holds nothing open and may be sent to other processes."""

    cache: Cache
    sets: Mapping[ViewSet, SetSource]
    teachers: Mapping[str, TeacherSource]
    identity: Mapping[str, Any]
    """Digests of the views, and of each teacher's features, PHI-S and dispersion."""


def open_source(cache: Cache, teachers: Iterable[str] = (), sets: Iterable[str] = ()) -> Source:
    """Check what a run is about to read, and gather it.

    Args:
        cache: the cache.
        teachers: names of the teachers to learn from; none for all of the cache.
        sets: names of the view sets to learn on; none for all of the cache.

    Raises:
        MissingError: no cache, or views, features, statistics or shards that an earlier stage has yet to make.
        SettingError: a view set that the cache does not have, or that no teacher has seen.
    """
    views = _views(cache)
    chosen = _chosen_sets(views, list(sets))
    found = {name: _teacher(cache, name) for name in _chosen_teachers(cache, list(teachers))}
    opened = {view_set: _set_source(cache, views, view_set, found) for view_set in chosen}
    if unseen := [view_set.name for view_set, one in opened.items() if not one.features]:
        fix = f"run `make extract` for {', '.join(found)}, or leave the set out with data.proportions"
        raise MissingError(
            "features", [Problem(place=name, found="no teacher has seen it", fix=fix) for name in unseen]
        )
    _require_some_set(found, opened)
    return Source(cache=cache, sets=opened, teachers=found, identity=_identity(views, found))


def _views(cache: Cache) -> ViewsManifest:
    cache.require()
    views = cache.views_manifest()
    if views is None:
        raise MissingError("views", [Problem(place=cache.store.uri, found="were never cut", fix="run `make views`")])
    return views


def _chosen_sets(views: ViewsManifest, names: list[str]) -> list[ViewSet]:
    by_name = {view_set.name: view_set for view_set in views.sets}
    if unknown := sorted(set(names) - by_name.keys()):
        fix = f"it has {', '.join(by_name)}"
        problems = [Problem(place=name, found="the cache has no such view set", fix=fix) for name in unknown]
        raise SettingError("data.proportions", problems)
    return sorted(by_name[name] for name in names or by_name)


def _chosen_teachers(cache: Cache, names: list[str]) -> list[str]:
    cached = cache.teachers()
    if not cached:
        fix = "run `make extract TEACHER=…` for each teacher of the recipe"
        raise MissingError("features", [Problem(place=cache.store.uri, found="no teacher has been run", fix=fix)])
    if unknown := sorted(set(names) - set(cached)):
        found = f"the cache has features of {', '.join(cached)}"
        problems = [Problem(place=name, found=found, fix=f"run `make extract TEACHER={name}`") for name in unknown]
        raise MissingError("teacher", problems)
    return sorted(names) or cached


def _teacher(cache: Cache, name: str) -> TeacherSource:
    manifest, phi_s, stats = cache.teacher_manifest(name), cache.phi_s(name), cache.stats(name)
    if manifest is None or phi_s is None:
        fix = f"run `make extract TEACHER={name}` again: it resumes"
        raise MissingError("features", [Problem(place=f"teachers/{name}", found="extract was cut short", fix=fix)])
    if stats is None or stats.identity != manifest.digest:
        found = "its features were never measured" if stats is None else "they are of other features than the cache has"
        raise MissingError("statistics", [Problem(place=f"teachers/{name}/stats", found=found, fix="run `make stats`")])
    if (stats.dispersion is None) != (manifest.spec.summary_dim is None):
        found = f"a dispersion of {stats.dispersion} for summaries of {manifest.spec.summary_dim} channels"
        raise ContractError("statistics", [Problem(place=f"teachers/{name}/stats", found=found)])
    return TeacherSource(manifest=manifest, phi_s=phi_s, stats=stats)


def _set_source(
    cache: Cache, views: ViewsManifest, view_set: ViewSet, teachers: Mapping[str, TeacherSource]
) -> SetSource:
    shape, unit = views.sets[view_set], views_unit(view_set)
    commits = cache.records(unit, views.digest)
    _require_whole(unit, commits, shape.grid.shards, "run `make views` again: it resumes")
    table = cache.views(view_set, commits)
    features = {
        name: seen
        for name, teacher in teachers.items()
        if (seen := _features(cache, teacher.manifest, view_set, table["row"].to_numpy(), shape.grid)) is not None
    }
    return SetSource(
        geometry=shape.geometry,
        rows_per_shard=shape.grid.rows_per_shard,
        commits=commits,
        rows={split: _rows_of(table, split) for split in ("train", "heldout")},
        features=features,
    )


def _features(
    cache: Cache, manifest: TeacherManifest, view_set: ViewSet, rows: Int64[np.ndarray, " views"], grid: ShardGrid
) -> Features | None:
    """Return what a teacher stored of a set, or None where it was never asked."""
    unit = features_unit(view_set, manifest.spec.name)
    commits = cache.records(unit, manifest.digest)
    if not commits:
        return None
    _require_whole(unit, commits, grid.shards, f"run `make extract TEACHER={manifest.spec.name}` again: it resumes")
    table = cache.placements(view_set, manifest.spec.name, commits)
    offsets = np.full((grid.rows, 2), -1, dtype=np.int64)
    offsets[table["row"].to_numpy()] = np.stack(
        [table["offset_row"].to_numpy(), table["offset_col"].to_numpy()], axis=1
    )
    if (odd := rows[(offsets[rows] < 0).any(axis=1)]).size:
        found = f"{odd.size} views have no placement, the first in row {odd[0]}"
        raise ContractError("placements", [Problem(place=unit, found=found)])
    return Features(
        commits=commits,
        tokens=manifest.tokens[view_set],
        has_summary=manifest.spec.summary_dim is not None,
        offsets=offsets,
    )


def _rows_of(table: pa.Table, split: str) -> Int64[np.ndarray, " views"]:
    return table["row"].to_numpy()[table["split"].to_numpy() == split]


def _require_whole(unit: str, commits: Commits, shards: int, fix: str) -> None:
    if absent := sorted(set(range(shards)) - commits.keys()):
        found = f"{len(absent)} of {shards} shards are not committed: {', '.join(map(str, _first_few(absent)))}"
        raise MissingError("shards", [Problem(place=unit, found=found, fix=fix)])


def _first_few(shards: list[int]) -> Iterator[int | str]:
    yield from shards[:10]
    if len(shards) > 10:
        yield "…"


def _require_some_set(teachers: Mapping[str, TeacherSource], sets: Mapping[ViewSet, SetSource]) -> None:
    unseeing = [name for name in teachers if not any(name in one.features for one in sets.values())]
    if unseeing:
        found = f"has seen none of {', '.join(view_set.name for view_set in sets)}"
        raise MissingError(
            "features",
            [Problem(place=name, found=found, fix=f"run `make extract TEACHER={name}`") for name in unseeing],
        )


def _identity(views: ViewsManifest, teachers: Mapping[str, TeacherSource]) -> dict[str, Any]:
    return {
        "views": views.digest,
        "teachers": {
            name: {
                "features": teacher.manifest.digest,
                "phi_s": phi_s_digest(teacher.phi_s),
                "dispersion": teacher.stats.dispersion,
            }
            for name, teacher in teachers.items()
        },
    }
