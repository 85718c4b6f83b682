"""Which shards are committed, by the commit log."""

from collections.abc import Collection, Iterable

from pipeline.inventory.commands import detail_command, export_command, extract_command, views_command
from storage_schemas.cache import Cache
from storage_schemas.commits import UnitLog
from storage_schemas.format.errors import ContractError, IdentityError, Problem
from storage_schemas.format.layout import FEATURES, images_part
from storage_schemas.format.manifest import TeacherManifest, ViewsManifest


def committed_units(cache: Cache, teacher: str = "") -> dict[str, UnitLog]:
    """Open the commit logs of all units that have a committed shard: views first, then features, sorted.

    Args:
        cache: the cache.
        teacher: whose units are wanted; empty for all units.
    """
    logs = cache.logs()
    return {unit: logs[unit] for unit in sorted(logs, key=_views_first) if not teacher or is_of_teacher(unit, teacher)}


def committed_below(cache: Cache, folders: Iterable[str]) -> dict[str, UnitLog]:
    """Open the commit logs of the units in some folders that have a committed shard.

    Args:
        cache: the cache.
        folders: such as `views`, or `teachers/dinov3`.
    """
    return {unit: log for folder in folders for unit, log in cache.logs(folder).items()}


def require_as_committed(cache: Cache, manifest: ViewsManifest) -> None:
    """Refuse a new manifest of views, where the old one was lost, if it does not fit the views that are committed.

    Raises:
        IdentityError: the committed views have another identity; or some of them were added by an extension, which only
            the lost manifest could tell.
        CorruptionError: a commit record is damaged.
    """
    logs = {unit: log for unit, log in cache.logs("views").items() if unit.count("/") == 1}
    found = ""
    if logs and cache.store.exists(images_part(1)):
        found = "is missing, and nothing else records which views were added by which extension"
    for unit, log in logs.items():
        try:
            log.require_identity(manifest.digest)
        except ContractError:
            found = found or f"is missing, and the committed shards of {unit} are not those that this run would cut"
    if found:
        fix = f"put it back from a copy of {cache.store.uri}"
        raise IdentityError("manifest of views", [Problem(place=f"{FEATURES}/views/zarr.json", found=found, fix=fix)])


def is_of_teacher(unit: str, teacher: str) -> bool:
    """Say whether a unit holds a teacher's features or details."""
    return unit.startswith(f"teachers/{teacher}/") or unit.endswith(f"/detail/{teacher}")


def exported_names(views: ViewsManifest | None, teachers: Iterable[TeacherManifest]) -> frozenset[str]:
    """Return which parts of a cache were exported from another one: `views`, and names of teachers."""
    names = [manifest.spec.name for manifest in teachers if manifest.exported]
    return frozenset([*names, *(["views"] if views is not None and views.exported else [])])


def unit_command(cache: Cache, recipe: str, unit: str, exported: Collection[str] = ()) -> str:
    """Return the command that writes the missing shards of a unit.

    Args:
        cache: the cache.
        recipe: name of the cache's recipe.
        unit: name of the unit.
        exported: parts of the cache that come from another one, see `exported_names`.
    """
    parts = unit.split("/")
    if (parts[1] if parts[0] == "teachers" else "views") in exported:
        return export_command(cache)
    if parts[0] == "teachers":
        return extract_command(cache, recipe, parts[1])
    return detail_command(cache, recipe, parts[3]) if len(parts) == 4 else views_command(cache, recipe)


def _views_first(unit: str) -> tuple[bool, str]:
    return not unit.startswith("views/"), unit
