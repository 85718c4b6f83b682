"""Which teachers have still to look at something."""

from collections.abc import Iterable, Sequence

from pipeline.config import TeacherChoice
from pipeline.running_teacher import map_specs
from storage_schemas.cache import Cache
from storage_schemas.commits import committed_shards
from storage_schemas.layout import features_unit
from storage_schemas.manifest import ViewsManifest
from storage_schemas.teacher import TeacherSpec


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
