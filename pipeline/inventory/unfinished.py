"""Which teachers have still to look at something."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import final

from pipeline.config import TeacherChoice
from pipeline.inventory.teacher_maps import map_specs
from storage_schemas.cache import Cache
from storage_schemas.commits import committed_shards
from storage_schemas.format.layout import features_unit
from storage_schemas.format.manifest import ViewsManifest
from storage_schemas.format.teacher import TeacherSpec


def unfinished_maps(cache: Cache, views: ViewsManifest, maps: Sequence[TeacherSpec]) -> list[TeacherSpec]:
    """Return those of a teacher's maps that lack a committed shard."""
    return [
        spec
        for spec in maps
        if any(
            not set(range(shape.grid.shards)) <= set(committed_shards(cache.store, features_unit(view_set, spec.name)))
            for view_set, shape in views.sets.items()
        )
    ]


def waiting_teachers(cache: Cache, views: ViewsManifest, choices: Iterable[TeacherChoice]) -> list[TeacherSpec]:
    """Return those teachers that have still to look at something, and so need their details."""
    waiting = [maps for choice in choices if unfinished_maps(cache, views, maps := map_specs(choice))]
    return [maps[0] for maps in waiting]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class UnfinishedFacts:
    """Something that is not done, or not wholly."""

    unit: str
    """The unit, or `teachers/<teacher>/stats`."""
    done: int
    """Shards committed; for statistics 0."""
    of: int
    """Shards of the unit; for statistics 1."""
    command: str
    """What finishes it."""
