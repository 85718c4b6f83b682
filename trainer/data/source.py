"""What a cache offers a training run: its view sets, its teachers, and whether all of it is there."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, final

from storage_schemas.cache import Cache
from storage_schemas.format.errors import ContractError, MissingError, Problem, SettingError
from storage_schemas.format.manifest import CacheManifests, TeacherManifest, ViewsManifest
from storage_schemas.format.phi_s import PhiS, phi_s_digest
from storage_schemas.format.stats import TeacherStats
from storage_schemas.format.views import ViewSet
from trainer.data.set_source import SetSource, open_set


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
    """Digest of the views, how many there are in each set and split, and of each teacher the digests of its features
    and PHI-S, and its dispersion. A cache that has grown since differs in how many there are."""


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
    names, cached = list(teachers), cache.teachers()
    read = cache.manifests(name for name in names or cached if name in cached)
    views = _views(cache, read)
    chosen = _chosen_sets(views, list(sets))
    found = {
        name: _teacher(cache, views, name, read.teachers.get(name)) for name in _chosen_teachers(cache, cached, names)
    }
    manifests = {name: teacher.manifest for name, teacher in found.items()}
    opened = {view_set: open_set(cache, views, view_set, manifests) for view_set in chosen}
    if unseen := [view_set.name for view_set, one in opened.items() if not one.features]:
        fix = f"run `make extract` for {', '.join(found)}, or leave the set out with data.proportions"
        raise MissingError(
            "features", [Problem(place=name, found="no teacher has seen it", fix=fix) for name in unseen]
        )
    _require_some_set(found, opened)
    return Source(cache=cache, sets=opened, teachers=found, identity=_identity(views, opened, found))


def _views(cache: Cache, manifests: CacheManifests) -> ViewsManifest:
    if manifests.views is None:
        raise MissingError("views", [Problem(place=cache.store.uri, found="were never cut", fix="run `make views`")])
    return manifests.views


def _chosen_sets(views: ViewsManifest, names: list[str]) -> list[ViewSet]:
    by_name = {view_set.name: view_set for view_set in views.sets}
    if unknown := sorted(set(names) - by_name.keys()):
        fix = f"it has {', '.join(by_name)}"
        problems = [Problem(place=name, found="the cache has no such view set", fix=fix) for name in unknown]
        raise SettingError("data.proportions", problems)
    return sorted(by_name[name] for name in names or by_name)


def _chosen_teachers(cache: Cache, cached: list[str], names: list[str]) -> list[str]:
    if not cached:
        fix = "run `make extract TEACHER=…` for each teacher of the recipe"
        raise MissingError("features", [Problem(place=cache.store.uri, found="no teacher has been run", fix=fix)])
    if unknown := sorted(set(names) - set(cached)):
        found = f"the cache has features of {', '.join(cached)}"
        problems = [Problem(place=name, found=found, fix=f"run `make extract TEACHER={name}`") for name in unknown]
        raise MissingError("teacher", problems)
    return sorted(names) or cached


def _teacher(cache: Cache, views: ViewsManifest, name: str, manifest: TeacherManifest | None) -> TeacherSource:
    phi_s, stats = cache.phi_s(name), cache.stats(name)
    if manifest is None or phi_s is None:
        fix = f"run `make extract TEACHER={name}` again: it resumes"
        raise MissingError("features", [Problem(place=f"teachers/{name}", found="extract was cut short", fix=fix)])
    if stats is None or stats.identity != manifest.digest:
        found = "its features were never measured" if stats is None else "they are of other features than the cache has"
        raise MissingError("statistics", [Problem(place=f"teachers/{name}/stats", found=found, fix="run `make stats`")])
    if new := stats.unmeasured({view_set: shape.grid.shards for view_set, shape in views.sets.items()}):
        found, fix = f"{new} shards were added since its features were measured", "run `make stats`; it measures those"
        raise MissingError("statistics", [Problem(place=f"teachers/{name}/stats", found=found, fix=fix)])
    if (stats.dispersion is None) != (manifest.spec.summary_dim is None):
        found = f"a dispersion of {stats.dispersion} for summaries of {manifest.spec.summary_dim} channels"
        raise ContractError("statistics", [Problem(place=f"teachers/{name}/stats", found=found)])
    return TeacherSource(manifest=manifest, phi_s=phi_s, stats=stats)


def _require_some_set(teachers: Mapping[str, TeacherSource], sets: Mapping[ViewSet, SetSource]) -> None:
    unseeing = [name for name in teachers if not any(name in one.features for one in sets.values())]
    if unseeing:
        found = f"has seen none of {', '.join(view_set.name for view_set in sets)}"
        raise MissingError(
            "features",
            [Problem(place=name, found=found, fix=f"run `make extract TEACHER={name}`") for name in unseeing],
        )


def _identity(
    views: ViewsManifest, sets: Mapping[ViewSet, SetSource], teachers: Mapping[str, TeacherSource]
) -> dict[str, Any]:
    return {
        "views": views.digest,
        "rows": {
            view_set.name: {split: len(rows) for split, rows in one.rows.items()} for view_set, one in sets.items()
        },
        "teachers": {
            name: {
                "features": teacher.manifest.digest,
                "phi_s": phi_s_digest(teacher.phi_s),
                "dispersion": teacher.stats.dispersion,
            }
            for name, teacher in teachers.items()
        },
    }
