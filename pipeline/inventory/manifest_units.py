"""The units that a cache's manifests imply, and the details that it holds."""

from collections.abc import Iterable, Mapping

from pipeline.inventory.arrays import detail_identity
from pipeline.inventory.units import Unit, canvas_unit, detail_unit_of, feature_unit
from storage_schemas.cache import Cache
from storage_schemas.format.feature_storage import FeatureStorage
from storage_schemas.format.layout import FEATURES, detail_array
from storage_schemas.format.manifest import TeacherManifest, ViewsManifest
from storage_schemas.format.teacher import TeacherSpec
from storage_schemas.format.views import ViewSet, detail_side


def canvas_units(views: ViewsManifest) -> list[Unit]:
    """Return the unit of each set's canvases."""
    return [canvas_unit(view_set, shape, views.digest) for view_set, shape in views.sets.items()]


def feature_units(views: ViewsManifest, manifest: TeacherManifest) -> list[Unit]:
    """Return the unit of a teacher's features of each set.

    Raises:
        ContractError: the manifest's teacher cannot see a set.
    """
    storage = FeatureStorage.of_identity(manifest.identity)
    return [
        feature_unit(view_set, shape, manifest.spec, storage, manifest.digest) for view_set, shape in views.sets.items()
    ]


def detail_units(views: ViewsManifest, teacher: str, sides: Mapping[ViewSet, int]) -> list[Unit]:
    """Return the unit of a fixed teacher's details of each set.

    Args:
        views: of the cache.
        teacher: whose windows they are.
        sides: side of a window (pixels), by set.
    """
    return [
        detail_unit_of(view_set, views.sets[view_set], teacher, side, detail_identity(views, teacher, side))
        for view_set, side in sides.items()
    ]


def sides_of(spec: TeacherSpec, views: ViewsManifest) -> dict[ViewSet, int]:
    """Return the sides (pixels) that a fixed teacher's details have in each set."""
    return {view_set: detail_side(spec, view_set) for view_set in views.sets}


def detailed_teachers(committed: Iterable[str]) -> list[str]:
    """Return the names of the teachers that have committed details, sorted.

    Args:
        committed: names of units that have a committed shard.
    """
    parts = (unit.split("/") for unit in committed)
    return sorted({part[3] for part in parts if len(part) == 4 and part[2] == "detail"})


def stored_sides(cache: Cache, views: ViewsManifest, teacher: str) -> dict[ViewSet, int]:
    """Return the sides (pixels) of a teacher's details in each set, by the metadata of their arrays.

    A set that an extension added has no such array until its windows are cut; it is left out.

    Raises:
        MissingError: an array has no metadata.
        CorruptionError: an array's metadata cannot be read.
        ContractError: it is no array of ours.
    """
    arrays = {view_set: detail_array(view_set, teacher) for view_set in views.sets}
    present = {
        view_set: path
        for view_set, path in arrays.items()
        if views.sets[view_set].grid.counts[0] or cache.store.exists(f"{FEATURES}/{path}/zarr.json")
    }
    return {view_set: cache.array(path, {}).spec.shape[1] for view_set, path in present.items()}
