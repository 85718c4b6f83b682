"""The target of an export: what it may hold before, and the groups and arrays that are written before its shards."""

import os
from collections.abc import Mapping, Sequence

from pipeline.export.pairs import UnitPair
from pipeline.export.selection import ExportedViews
from pipeline.export.teachers import export_phi_s
from pipeline.leases.names import LEASES
from storage_schemas.cache import Cache
from storage_schemas.format.errors import IdentityError, Problem, SettingError
from storage_schemas.format.feature_storage import FeatureStorage
from storage_schemas.format.identity import require_same
from storage_schemas.format.latents import Latents
from storage_schemas.format.layout import images_part
from storage_schemas.format.manifest import TeacherManifest, ViewsManifest
from storage_schemas.format.tables import to_parquet
from storage_schemas.objects.publish import TEMPORARY, publish_bytes, publish_group
from storage_schemas.read_groups import stored_format
from storage_schemas.shard_writer import create_array

SAME_SETTINGS = "use the settings that this export was begun with, or point TO at a new place"


def require_apart(source: Cache, target: Cache) -> None:
    """Refuse a target that is the source, lies inside it, or contains it.

    Raises:
        SettingError: it does.
    """
    (kind, path), (other_kind, other_path) = _location(source), _location(target)
    nested = f"{path}/".startswith(f"{other_path}/") or f"{other_path}/".startswith(f"{path}/")
    if kind == other_kind and nested:
        found = f"overlaps the cache that is exported, {source.store.uri}"
        raise SettingError("TO", [Problem(place=target.store.uri, found=found, fix="point TO at a new place")])


def require_same_export(target: Cache, views: ViewsManifest, teachers: Mapping[str, TeacherManifest]) -> None:
    """Refuse a target that holds anything but this export, or a part of it.

    Args:
        target: where the export goes.
        views: manifest of the export's views.
        teachers: manifests of its teachers, by name.

    Raises:
        IdentityError: it holds something else; both values are named.
    """
    if target.attributes("") is None:
        _require_empty(target)
        return
    subject, stored = f"export to {target.store.uri}", {"recipe": target.require()}
    require_same(subject, stored, {"recipe": views.identity["recipe"]}, SAME_SETTINGS)
    stored_views = target.views_manifest()
    if stored_views is not None:
        require_same(subject, stored_views.attributes(), views.attributes(), SAME_SETTINGS)
    for name, manifest in teachers.items():
        stored_teacher = target.teacher_manifest(name)
        if stored_teacher is not None:
            of_teacher = f"teacher {name} of the {subject}"
            require_same(of_teacher, stored_teacher.attributes(), manifest.attributes(), SAME_SETTINGS)


def write_declarations(
    source: Cache,
    target: Cache,
    exported: ExportedViews,
    teachers: Mapping[str, TeacherManifest],
    latents: Mapping[str, Latents | None],
    pairs: Sequence[UnitPair],
) -> None:
    """Write everything but shards: groups, manifests, the image list, PHI-S, and the metadata of arrays.

    Where a part is there already, it is the same.

    Args:
        source: the cache that is exported.
        target: where the export goes.
        exported: its views.
        teachers: manifests of its teachers, by name.
        latents: the latents that each is stored in, by name.
        pairs: its units.
    """
    store, views = target.store, exported.manifest
    publish_group(store, "", {"format": stored_format(store), "recipe": views.identity["recipe"]})
    for number, part in enumerate(exported.parts):
        publish_bytes(store, images_part(number), to_parquet(part.table()))
    publish_group(store, "views", views.attributes())
    _create_arrays(target, [pair for pair in pairs if pair.target.teacher is None])
    if teachers:
        publish_group(store, "teachers")
    for name, manifest in teachers.items():
        key = FeatureStorage.of_identity(manifest.identity).latents
        export_phi_s(source, target, name, latents[name], 0.0 if key is None else key.fidelity)
        _create_arrays(target, [pair for pair in pairs if pair.target.teacher == manifest.spec])
        publish_group(store, f"teachers/{name}", manifest.attributes())


def _create_arrays(target: Cache, pairs: Sequence[UnitPair]) -> None:
    for pair in pairs:
        for spec in pair.target.arrays:
            create_array(target.store, spec)


def _location(cache: Cache) -> tuple[str, str]:
    path = cache.store.path("")
    return type(cache.store.filesystem).__name__, os.path.realpath(path) if cache.store.is_local else path


def _require_empty(target: Cache) -> None:
    # a run that was killed while it wrote its very first object leaves the temporary file of that
    names = (name for name in target.store.listing("") if not name.startswith(f"{LEASES}/"))
    if any(not name.endswith(TEMPORARY) for name in names):
        found, fix = "is not empty, and is not a cache", "point TO at a new place"
        raise IdentityError("TO", [Problem(place=target.store.uri, found=found, fix=fix)])
