"""What is unfinished in a cache: shards that are not committed, teachers that need views, statistics that are missing.

One list serves `inspect` and `verify`. All of it follows from the manifests and the names in the commit log.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

from pipeline.config import UNRECORDED, TeacherChoice
from pipeline.inventory.commands import stats_command
from pipeline.inventory.commit_log import exported_names, unit_command
from pipeline.inventory.teacher_maps import map_specs
from storage_schemas.cache import Cache
from storage_schemas.commits import committed_shards
from storage_schemas.format.layout import features_unit
from storage_schemas.format.manifest import TeacherManifest, ViewsManifest
from storage_schemas.format.teacher import TeacherSpec

CommittedShards = Mapping[str, Collection[int]]
"""The committed shards of each unit."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class UnfinishedFacts:
    """A unit or a teacher's statistics, and how far it is."""

    unit: str
    """The unit, or `teachers/<teacher>/stats`."""
    done: int
    """Shards committed; for statistics 0."""
    of: int
    """Shards of the unit; for statistics 1."""
    command: str
    """The command that finishes it."""


def list_unfinished(
    cache: Cache,
    recipe: str,
    views: ViewsManifest | None,
    teachers: Sequence[TeacherManifest],
    shards: Mapping[str, int],
    committed: CommittedShards,
    measured: Collection[str],
) -> Iterator[UnfinishedFacts]:
    """List what a cache lacks, each with the command that finishes it: units first, then statistics.

    Details are left out where no teacher needs them any more, statistics where the views are for evaluation: only
    training reads them.

    Args:
        cache: the cache.
        recipe: its recipe's name.
        views: manifest of its views; None before any view was drawn.
        teachers: manifests of its teachers.
        shards: how many shards each unit is to have; the list is in this order.
        committed: the shards that are committed.
        measured: the teachers among `teachers` whose statistics are not listed: those that are up to date.
    """
    exported = exported_names(views, teachers)
    needless = () if views is None else without_need_of_details(views, teachers, committed)
    for unit, count in shards.items():
        done = len(set(range(count)).intersection(committed.get(unit, ())))
        if done < count and not any(unit.endswith(f"/detail/{name}") for name in needless):
            command = unit_command(cache, recipe, unit, exported)
            yield UnfinishedFacts(unit=unit, done=done, of=count, command=command)
    for name in (manifest.spec.name for manifest in teachers):
        if views is not None and _trains(views) and is_complete(views, name, committed) and name not in measured:
            yield UnfinishedFacts(unit=f"teachers/{name}/stats", done=0, of=1, command=stats_command(cache, name))


def _trains(views: ViewsManifest) -> bool:
    return {**UNRECORDED, **views.identity["views"]}["placing"] == "drawn"


def is_complete(views: ViewsManifest, teacher: str, committed: CommittedShards) -> bool:
    """Say whether every shard of a teacher's features is committed."""
    return not any(
        shape.grid.missing(committed.get(features_unit(view_set, teacher), ()))
        for view_set, shape in views.sets.items()
    )


def without_need_of_details(
    views: ViewsManifest, teachers: Iterable[TeacherManifest], committed: CommittedShards
) -> set[str]:
    """Return the names of the teachers whose details nobody reads again: all features of all their maps are there."""
    maps: dict[str, list[str]] = {}
    for manifest in teachers:
        maps.setdefault(manifest.spec.forward_of, []).append(manifest.spec.name)
    return {name for name, of in maps.items() if all(is_complete(views, each, committed) for each in of)}


def unfinished_maps(cache: Cache, views: ViewsManifest, maps: Sequence[TeacherSpec]) -> list[TeacherSpec]:
    """Return those of a teacher's maps that lack a committed shard."""
    return [
        spec
        for spec in maps
        if any(
            shape.grid.missing(committed_shards(cache.store, features_unit(view_set, spec.name)))
            for view_set, shape in views.sets.items()
        )
    ]


def unfinished_teachers(cache: Cache, views: ViewsManifest, choices: Iterable[TeacherChoice]) -> list[TeacherSpec]:
    """Return the teachers that lack features of some views, and so need the details of these."""
    maps_of_each = map(map_specs, choices)
    return [maps[0] for maps in maps_of_each if unfinished_maps(cache, views, maps)]
