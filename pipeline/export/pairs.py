"""The units of an export, each with the unit of the source that it is copied from."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

from pipeline.export.selection import ExportedViews
from pipeline.export.teachers import ExportedTeacher
from pipeline.inventory.commit_log import committed_units
from pipeline.inventory.manifest_units import canvas_units, detail_units, detailed_teachers, feature_units, stored_sides
from pipeline.inventory.units import Unit
from storage_schemas.cache import Cache
from storage_schemas.format.errors import MissingError, Problem
from storage_schemas.format.manifest import ViewsManifest


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class UnitPair:
    """A unit of the target, and the unit of the source that holds its views."""

    source: Unit
    target: Unit


def unit_pairs(
    source: Cache,
    views: ViewsManifest,
    exported: ExportedViews,
    teachers: Mapping[str, ExportedTeacher],
    *,
    details: bool,
) -> list[UnitPair]:
    """Return the units of an export: canvases, then details, then features.

    Args:
        source: the cache that is exported.
        views: manifest of its views.
        exported: the views of the export.
        teachers: the export's teachers, by name.
        details: whether the details of the fixed teachers are exported.

    Raises:
        MissingError: details are to be exported, and a teacher has none.
    """
    pairs = list(_paired(canvas_units(views), canvas_units(exported.manifest)))
    for name in _detailed_teachers(source, teachers) if details else ():
        pairs += _detail_pairs(source, views, exported, name)
    for teacher in teachers.values():
        stored = feature_units(views, teacher.stored)
        pairs += _paired(stored, feature_units(exported.manifest, teacher.manifest))
    return pairs


def require_complete(source: Cache, pairs: Sequence[UnitPair], fixes: Mapping[str, str]) -> None:
    """Refuse to export units that are not complete: finished later, they would give another export.

    Args:
        source: the cache that is exported.
        pairs: the units.
        fixes: by unit of the source, what completes it.

    Raises:
        MissingError: shards are not committed; every such unit is named.
        ContractError: shards are of another identity than their group.
    """
    problems = []
    for unit in (pair.source for pair in pairs):
        if lacking := unit.grid.missing(source.records(unit.name, unit.identity)):
            found = f"{len(lacking)} of {unit.grid.shards} shards are not committed"
            problems.append(Problem(place=unit.name, found=found, fix=fixes[unit.name]))
    if problems:
        raise MissingError("export", problems)


def _detailed_teachers(source: Cache, teachers: Mapping[str, ExportedTeacher]) -> list[str]:
    """Return the names of the fixed teachers: these have details."""
    specs = [teacher.stored.spec for teacher in teachers.values()]
    fixed = {spec.forward_of for spec in specs if spec.size_rule == "fixed"}
    if missing := sorted(fixed - set(detailed_teachers(committed_units(source)))):
        fix = "leave --details out, or cut them again with `make views`"
        problems = [Problem(place=name, found="has no details in this cache", fix=fix) for name in missing]
        raise MissingError("details", problems)
    return sorted(fixed)


def _detail_pairs(source: Cache, views: ViewsManifest, exported: ExportedViews, name: str) -> Iterator[UnitPair]:
    sides = stored_sides(source, views, name)
    of_export = {view_set: side for view_set, side in sides.items() if view_set in exported.manifest.sets}
    return _paired(detail_units(views, name, sides), detail_units(exported.manifest, name, of_export))


def _paired(source: Sequence[Unit], target: Sequence[Unit]) -> Iterator[UnitPair]:
    by_name = {unit.name: unit for unit in source}
    return (UnitPair(source=by_name[unit.name], target=unit) for unit in target)
