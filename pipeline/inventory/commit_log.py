"""What is committed, by the names in the commit log alone."""

from collections.abc import Collection, Iterable

from pipeline.inventory.commands import detail_command, export_command, extract_command, views_command
from storage_schemas.cache import Cache
from storage_schemas.commits import read_commits, record_path
from storage_schemas.format.errors import IdentityError, Problem
from storage_schemas.format.layout import FEATURES, images_part
from storage_schemas.format.manifest import TeacherManifest, ViewsManifest

LOG = "tables/shards/"
"""The commit log, relative to the cache."""


def committed_units(cache: Cache, teacher: str = "") -> dict[str, list[int]]:
    """Return the shards that each unit has commit records of: views before the features of them, both sorted.

    Args:
        cache: the cache.
        teacher: whose units alone; empty for all.
    """
    units: dict[str, list[int]] = {}
    for name in cache.store.listing(LOG.rstrip("/")):
        unit, _, file = name.removeprefix(LOG).rpartition("/")
        number = file.removesuffix(".parquet")
        # names that a writer does not give are no records
        if unit and number.isascii() and number.isdecimal() and name == record_path(unit, int(number)):
            units.setdefault(unit, []).append(int(number))
    return {
        unit: sorted(units[unit])
        for unit in sorted(units, key=_views_first)
        if not teacher or is_of_teacher(unit, teacher)
    }


def require_as_committed(cache: Cache, manifest: ViewsManifest) -> None:
    """Refuse to write the manifest of views, where there is none, otherwise than it was before it was lost.

    Raises:
        IdentityError: there are committed views, and they are of others; or views were added to them, and when is known
            no more.
        CorruptionError: a commit record is damaged.
    """
    units = [unit for unit in committed_units(cache) if unit.startswith("views/") and unit.count("/") == 1]
    found = ""
    if units and cache.store.exists(images_part(1)):
        found = "is gone, and nothing else says what was added to these views when"
    for unit in units:
        records = (record for shard in read_commits(cache.store, unit).values() for record in shard)
        if any(record.identity != manifest.digest for record in records):
            found = found or f"is gone, and what is committed of {unit} is not what this run would cut"
    if found:
        fix = f"put it back from a copy of {cache.store.uri}"
        raise IdentityError("manifest of views", [Problem(place=f"{FEATURES}/views/zarr.json", found=found, fix=fix)])


def is_of_teacher(unit: str, teacher: str) -> bool:
    """Say whether a unit holds a teacher's features or details."""
    return unit.startswith(f"teachers/{teacher}/") or unit.endswith(f"/detail/{teacher}")


def exported_names(views: ViewsManifest | None, teachers: Iterable[TeacherManifest]) -> frozenset[str]:
    """Return what a cache has from another one: `views`, and the names of teachers."""
    names = [manifest.spec.name for manifest in teachers if manifest.exported]
    return frozenset([*names, *(["views"] if views is not None and views.exported else [])])


def unit_command(cache: Cache, recipe: str, unit: str, exported: Collection[str] = ()) -> str:
    """Return the command that writes what is missing of a unit.

    Args:
        cache: the cache.
        recipe: its recipe's name.
        unit: the unit's name.
        exported: what it has from another cache, see `exported_names`.
    """
    parts = unit.split("/")
    if (parts[1] if parts[0] == "teachers" else "views") in exported:
        return export_command(cache)
    if parts[0] == "teachers":
        return extract_command(cache, recipe, parts[1])
    return detail_command(cache, recipe, parts[3]) if len(parts) == 4 else views_command(cache, recipe)


def _views_first(unit: str) -> tuple[bool, str]:
    return not unit.startswith("views/"), unit
