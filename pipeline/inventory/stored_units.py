"""The units of a cache, found through its manifests and its commit log."""

from collections.abc import Iterable, Mapping, Sequence

from pipeline.inventory.arrays import detail_identity
from pipeline.inventory.units import Unit, canvas_unit, choice_of, detail_unit_of, feature_unit
from storage_schemas.cache import Cache
from storage_schemas.format.layout import FEATURES, detail_array, features_unit
from storage_schemas.format.manifest import TeacherManifest, ViewsManifest
from storage_schemas.format.teacher import TeacherSpec
from storage_schemas.format.views import ViewSet, detail_side

Committed = Mapping[str, Sequence[int]]
"""The committed shards of each unit."""


def canvas_units(views: ViewsManifest) -> list[Unit]:
    """Return the unit of each set's canvases."""
    return [canvas_unit(view_set, shape, views.digest) for view_set, shape in views.sets.items()]


def feature_units(views: ViewsManifest, manifest: TeacherManifest) -> list[Unit]:
    """Return the unit of a teacher's features of each set.

    Raises:
        ContractError: the manifest's teacher cannot see a set.
    """
    choice = choice_of(manifest.spec, manifest.identity)
    return [
        feature_unit(view_set, shape, manifest.spec, choice, manifest.digest) for view_set, shape in views.sets.items()
    ]


def detail_units(views: ViewsManifest, teacher: str, sides: Mapping[ViewSet, int]) -> list[Unit]:
    """Return the unit of a fixed teacher's details of each set.

    Args:
        views: of the cache.
        teacher: whose windows.
        sides: of a window (pixels), by set.
    """
    return [
        detail_unit_of(view_set, views.sets[view_set], teacher, side, detail_identity(views, teacher, side))
        for view_set, side in sides.items()
    ]


def sides_of(spec: TeacherSpec, views: ViewsManifest) -> dict[ViewSet, int]:
    """Return the sides (pixels) that a fixed teacher's details have in each set."""
    return {view_set: detail_side(spec, view_set) for view_set in views.sets}


def teacher_manifests(cache: Cache) -> list[TeacherManifest]:
    """Return the manifests of the teachers that have features, or are ready to; sorted by name."""
    # a teacher has a group before it has a manifest: PHI-S is fitted first
    manifests = (cache.teacher_manifest(name) for name in cache.teachers())
    return [manifest for manifest in manifests if manifest is not None]


def detailed_teachers(committed: Iterable[str]) -> list[str]:
    """Return the names of the teachers that have details among units of which anything is committed, sorted."""
    parts = (unit.split("/") for unit in committed)
    return sorted({part[3] for part in parts if len(part) == 4 and part[2] == "detail"})


def seeing_nothing_more(views: ViewsManifest, teachers: Iterable[TeacherManifest], committed: Committed) -> set[str]:
    """Return the names of the teachers that have looked at every view with all their maps, and need no more details."""
    maps: dict[str, list[str]] = {}
    for manifest in teachers:
        maps.setdefault(manifest.spec.forward_of, []).append(manifest.spec.name)
    return {name for name, of in maps.items() if all(is_complete(views, one, committed) for one in of)}


def is_complete(views: ViewsManifest, teacher: str, committed: Committed) -> bool:
    """Say whether every shard of a teacher's features is committed."""
    return all(
        len(committed.get(features_unit(view_set, teacher), ())) == shape.grid.shards
        for view_set, shape in views.sets.items()
    )


def stored_sides(cache: Cache, views: ViewsManifest, teacher: str) -> dict[ViewSet, int]:
    """Return the sides (pixels) of a teacher's details in each set, as their arrays say it.

    A set that an extension brought is left out until windows of it are cut.

    Raises:
        MissingError: an array says nothing.
        CorruptionError: an array's metadata cannot be read.
        ContractError: it is no array of ours.
    """
    arrays = {view_set: detail_array(view_set, teacher) for view_set in views.sets}
    there = {
        view_set: path
        for view_set, path in arrays.items()
        if views.sets[view_set].grid.counts[0] or cache.store.exists(f"{FEATURES}/{path}/zarr.json")
    }
    return {view_set: cache.array(path, {}).spec.shape[1] for view_set, path in there.items()}
