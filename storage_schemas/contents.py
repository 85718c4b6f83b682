"""What is in a cache, at a glance: its view sets and its teachers, with counts."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import final

from storage_schemas.commits import open_log
from storage_schemas.format import layout
from storage_schemas.format.geometry import CanvasGeometry
from storage_schemas.format.manifest import TeacherManifest
from storage_schemas.format.teacher import TeacherSpec
from storage_schemas.format.views import ViewSet
from storage_schemas.objects.store import Store
from storage_schemas.read_groups import read_manifests, teacher_names


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ViewSetContents:
    """One view set."""

    geometry: CanvasGeometry
    """Sizes of a canvas, of a window in it, and of a patch."""
    drawn: int
    """Views that were drawn for the set. Some may have been rejected."""
    views: int
    """Views that are committed."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherContents:
    """One teacher."""

    spec: TeacherSpec
    """What it is: model, channels, licence, …"""
    tokens: Mapping[str, int]
    """View set → tokens along one side of a window."""
    views: Mapping[str, int]
    """View set → views whose features are committed; sets without any are left out."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CacheContents:
    """A whole cache."""

    recipe: str
    """Name of the recipe that made it."""
    view_sets: Mapping[str, ViewSetContents]
    """By name, such as `low-128`."""
    teachers: Mapping[str, TeacherContents]
    """By name, such as `dinov3`."""


def read_contents(store: Store) -> CacheContents:
    """Return what is in a cache. It reads heads of the commit log and the records that are newer, and no array.

    Raises:
        MissingError: there is no cache.
    """
    found = read_manifests(store, teacher_names(store))
    sets = {} if found.views is None else dict(sorted(found.views.sets.items()))
    return CacheContents(
        recipe=found.recipe,
        view_sets={
            view_set.name: ViewSetContents(
                geometry=shape.geometry,
                drawn=shape.grid.views,
                views=_committed(store, layout.views_unit(view_set)),
            )
            for view_set, shape in sets.items()
        },
        teachers={name: _teacher(store, manifest, sets) for name, manifest in found.teachers.items()},
    )


def _teacher(store: Store, manifest: TeacherManifest, sets: Iterable[ViewSet]) -> TeacherContents:
    name = manifest.spec.name
    counts = {view_set.name: _committed(store, layout.features_unit(view_set, name)) for view_set in sets}
    return TeacherContents(
        spec=manifest.spec,
        tokens={view_set.name: tokens for view_set, tokens in sorted(manifest.tokens.items())},
        views={view_set: count for view_set, count in counts.items() if count},
    )


def _committed(store: Store, unit: str) -> int:
    """Return how many views are committed."""
    return open_log(store, unit).totals().views
