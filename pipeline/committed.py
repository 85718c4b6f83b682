"""What is committed, by the names in the commit log alone."""

from pipeline.make_command import detail_command, extract_command, views_command
from storage_schemas.cache import Cache
from storage_schemas.commits import record_path

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


def is_of_teacher(unit: str, teacher: str) -> bool:
    """Say whether a unit holds a teacher's features or details."""
    return unit.startswith(f"teachers/{teacher}/") or unit.endswith(f"/detail/{teacher}")


def unit_command(cache: Cache, recipe: str, unit: str) -> str:
    """Return the command that writes what is missing of a unit."""
    parts = unit.split("/")
    if parts[0] == "teachers":
        return extract_command(cache, recipe, parts[1])
    return detail_command(cache, recipe, parts[3]) if len(parts) == 4 else views_command(cache, recipe)


def _views_first(unit: str) -> tuple[bool, str]:
    return not unit.startswith("views/"), unit
