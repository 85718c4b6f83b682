"""The part of a cache that a training run reads: view sets and teachers, checked to be complete."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, final

import numpy as np

from storage_schemas.cache import Cache
from storage_schemas.format.errors import ContractError, MissingError, Problem, SettingError
from storage_schemas.format.manifest import CacheManifests, TeacherManifest, ViewsManifest
from storage_schemas.format.phi_s import PhiS, phi_s_digest
from storage_schemas.format.stats import TeacherStats
from storage_schemas.format.views import UNIFORM, Shifts, ViewSet
from trainer.data.set_source import SetSource, open_set


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TeacherSource:
    """One teacher: its manifest, its PHI-S map and the statistics of its features."""

    manifest: TeacherManifest
    phi_s: PhiS
    stats: TeacherStats
    variances: Mapping[ViewSet, float] = field(default_factory=dict)
    """Variance of its stored features in each view set, a mean over channels (PHI-S units squared), for a run whose
    loss is divided by it; else empty."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source:
    """Everything that a run reads, checked to be complete.

    It holds no open file, so it may be sent to other processes.
    """

    cache: Cache
    sets: Mapping[ViewSet, SetSource]
    teachers: Mapping[str, TeacherSource]
    identity: Mapping[str, Any]
    """Digest of the views; number of views in each set and split; for each teacher the digests of its features and
    PHI-S map, and its dispersion. A cache that was extended since has other numbers of views."""
    no_heldout_asked: bool = False
    """Whether the views were cut with a held-out share of 0."""
    student_shifts: Shifts = UNIFORM
    """Distribution of the student's window offsets: that of the teachers, as the views' identity records it."""
    left_out: tuple[str, ...] = ()
    """Teachers of the cache that a run does not learn from though it names none: they were not measured yet, or they
    joined the cache after the run began."""


def open_source(
    cache: Cache,
    teachers: Iterable[str] = (),
    sets: Iterable[str] = (),
    begun: Mapping[str, Any] | None = None,
    *,
    by_set: bool = False,
    window_shards: int = 8,
) -> Source:
    """Open a cache for training, and check that everything a run will read is there.

    Args:
        cache: the cache.
        teachers: names of the teachers to learn from; empty for all teachers of the cache that were measured.
        sets: names of the view sets to learn on, such as `low-256`; empty for all view sets of the cache.
        begun: identity of the cache when the run began; None for a run that begins now. The cache may have gained
            teachers, view sets and views since: the run goes on with the teachers, views and dispersions of then.
        by_set: whether the loss divides by the variance of each view set (`loss.balance`). The variances then belong to
            the identity of the run, as dispersions do.
        window_shards: shards of a view set that are read from at the same time (`data.window_shards`). What belongs to
            a shard is read when it is first read from, and dropped when others are.

    Raises:
        MissingError: there is no cache, or an earlier stage must still make views, features, statistics or some shards
            of them; or a teacher has features of none of the view sets.
        SettingError: a view set that the cache does not have.
    """
    asked, cached = list(teachers), cache.teachers()
    named = asked or sorted(begun["teachers"] if begun else ())
    stats = {name: cache.stats(name) for name in named or cached if name in cached}
    # a teacher may be extracted while students learn from the others
    names = named or [name for name, measured in stats.items() if measured is not None] or cached
    read = cache.manifests(name for name in names if name in cached)
    views = _views(cache, read)
    then = begun if begun is not None and begun["views"] == views.digest else None
    chosen = _chosen_sets(views, list(sets) or sorted(then["rows"] if then else ()))
    opened = {
        name: _teacher(cache, views, name, read.teachers.get(name), stats.get(name), then)
        for name in _chosen_teachers(cache, cached, names)
    }
    manifests = {name: teacher.manifest for name, teacher in opened.items()}
    counts = then["rows"] if then else {}
    set_sources = {
        view_set: open_set(cache, views, view_set, manifests, counts.get(view_set.name), window_shards=window_shards)
        for view_set in chosen
    }
    if by_set:
        opened = {name: _with_variances(name, teacher, set_sources, then) for name, teacher in opened.items()}
    _require_some_teacher(opened, set_sources)
    _require_some_set(opened, set_sources)
    return Source(
        cache=cache,
        sets=set_sources,
        teachers=opened,
        identity=_identity(views, set_sources, opened),
        no_heldout_asked=all(settings.get("heldout") == 0 for settings in _view_settings(views)),
        student_shifts=_shifts(_view_settings(views)[0]),
        left_out=() if asked else tuple(sorted(set(cached) - opened.keys())),
    )


def _view_settings(views: ViewsManifest) -> list[Mapping[str, Any]]:
    return [views.identity.get("views", {}), *(generation.views for generation in views.extensions)]


def _shifts(settings: Mapping[str, Any]) -> Shifts:
    return Shifts(distribution=settings.get("shifts", UNIFORM.distribution), sd=settings.get("shift_sd", UNIFORM.sd))


def _views(cache: Cache, manifests: CacheManifests) -> ViewsManifest:
    if manifests.views is None:
        raise MissingError("views", [Problem(place=cache.store.uri, found="has no views", fix="run `make views`")])
    return manifests.views


def _chosen_sets(views: ViewsManifest, names: list[str]) -> list[ViewSet]:
    by_name = {view_set.name: view_set for view_set in views.sets}
    if unknown := sorted(set(names) - by_name.keys()):
        fix = f"choose from {', '.join(by_name)}"
        problems = [Problem(place=name, found="is not a view set of the cache", fix=fix) for name in unknown]
        raise SettingError("data.proportions", problems)
    return sorted(by_name[name] for name in names or by_name)


def _chosen_teachers(cache: Cache, cached: list[str], names: list[str]) -> list[str]:
    if not cached:
        fix = "run `make extract TEACHER=…` for each teacher of the recipe"
        raise MissingError("features", [Problem(place=cache.store.uri, found="has features of no teacher", fix=fix)])
    if unknown := sorted(set(names) - set(cached)):
        found = f"the cache has features of {', '.join(cached)}"
        problems = [Problem(place=name, found=found, fix=f"run `make extract TEACHER={name}`") for name in unknown]
        raise MissingError("teacher", problems)
    return sorted(names) or cached


def _teacher(
    cache: Cache,
    views: ViewsManifest,
    name: str,
    manifest: TeacherManifest | None,
    stats: TeacherStats | None,
    then: Mapping[str, Any] | None,
) -> TeacherSource:
    """Open a teacher; of one that a run began with, take the dispersion of `then`."""
    phi_s = cache.phi_s(name)
    if manifest is None or phi_s is None:
        fix = f"run `make extract TEACHER={name}` again: it resumes"
        raise MissingError("features", [Problem(place=f"teachers/{name}", found="extract did not finish", fix=fix)])
    if stats is None or stats.identity != manifest.digest:
        found = "the features were never measured" if stats is None else "describe other features than the cache holds"
        raise MissingError("statistics", [Problem(place=f"teachers/{name}/stats", found=found, fix="run `make stats`")])
    if then is not None and name in then["teachers"]:
        stats = replace(stats, dispersion=then["teachers"][name]["dispersion"])
    elif new := stats.unmeasured({view_set: shape.grid.shards for view_set, shape in views.sets.items()}):
        found, fix = f"{new} shards were added after the last `make stats`", "run `make stats`: it measures those"
        raise MissingError("statistics", [Problem(place=f"teachers/{name}/stats", found=found, fix=fix)])
    if (stats.dispersion is None) != (manifest.spec.summary_dim is None):
        found = f"dispersion {stats.dispersion} does not agree with {manifest.spec.summary_dim} summary channels"
        raise ContractError("statistics", [Problem(place=f"teachers/{name}/stats", found=found)])
    return TeacherSource(manifest=manifest, phi_s=phi_s, stats=stats)


def _with_variances(
    name: str, teacher: TeacherSource, sets: Mapping[ViewSet, SetSource], then: Mapping[str, Any] | None
) -> TeacherSource:
    """Return a teacher with the variances of its features in the sets of a run: those that the run began with."""
    known = then["teachers"].get(name, {}).get("variances", {}) if then else {}
    variances = {
        view_set: known.get(view_set.name) or float(np.mean(teacher.stats.sets[view_set].variance))
        for view_set, found in sets.items()
        if name in found.features
    }
    if still := [view_set.name for view_set, variance in variances.items() if not variance > 0]:
        found, fix = "its features have no variance there", "leave the set out with data.proportions"
        problems = [Problem(place=f"teachers/{name}/stats/{set_name}", found=found, fix=fix) for set_name in still]
        raise ContractError("statistics", problems)
    return replace(teacher, variances=variances)


def _require_some_teacher(teachers: Mapping[str, TeacherSource], sets: Mapping[ViewSet, SetSource]) -> None:
    empty = [view_set.name for view_set, set_source in sets.items() if not set_source.features]
    if empty:
        found, fix = "has features of no teacher", f"run `make extract` for {', '.join(teachers)}"
        fix = f"{fix}, or leave the set out with data.proportions"
        raise MissingError("features", [Problem(place=name, found=found, fix=fix) for name in empty])


def _require_some_set(teachers: Mapping[str, TeacherSource], sets: Mapping[ViewSet, SetSource]) -> None:
    without = [name for name in teachers if not any(name in set_source.features for set_source in sets.values())]
    if without:
        found = f"has features of none of {', '.join(view_set.name for view_set in sets)}"
        problems = [Problem(place=name, found=found, fix=f"run `make extract TEACHER={name}`") for name in without]
        raise MissingError("features", problems)


def _identity(
    views: ViewsManifest, sets: Mapping[ViewSet, SetSource], teachers: Mapping[str, TeacherSource]
) -> dict[str, Any]:
    return {
        "views": views.digest,
        "rows": {
            view_set.name: {split: len(rows) for split, rows in set_source.rows.items()}
            for view_set, set_source in sets.items()
        },
        "teachers": {
            name: {
                "features": teacher.manifest.digest,
                "phi_s": phi_s_digest(teacher.phi_s),
                "dispersion": teacher.stats.dispersion,
                **_recorded(teacher.variances),
            }
            for name, teacher in teachers.items()
        },
    }


def _recorded(variances: Mapping[ViewSet, float]) -> dict[str, Any]:
    return {"variances": {view_set.name: value for view_set, value in variances.items()}} if variances else {}
