"""Reading and checking a cache's manifests, and the units that they imply."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import final

from pipeline.inventory.commands import export_command, extract_command, views_command
from pipeline.inventory.commit_log import committed_units, is_of_teacher
from pipeline.inventory.manifest_units import detailed_teachers, sides_of
from pipeline.inventory.units import Unit
from pipeline.verify.problems import Findings
from pipeline.verify.teachers import CheckedTeacher, check_teacher
from pipeline.verify.views import CheckedViews, check_canvases, check_details, check_root, check_views
from pipeline.verify.zarr_metadata import check_group, restore_from_copy
from storage_schemas.cache import Cache
from storage_schemas.format.errors import MissingError, Problem
from storage_schemas.format.manifest import TeacherManifest


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedManifests:
    """The manifests of a cache that can be read, and the units that they imply."""

    recipe: str
    """The recipe's name; empty where it cannot be read."""
    views: CheckedViews | None
    """None where no views were drawn yet, or their manifest cannot be read."""
    teachers: tuple[TeacherManifest, ...]
    units: tuple[Unit, ...]
    whole: bool
    """Whether every manifest could be read, and none is damaged."""


def read_manifests(cache: Cache, teacher: str, findings: Findings) -> CheckedManifests:
    """Read and check a cache's groups, manifests, image list and PHI-S maps.

    Args:
        cache: the cache.
        teacher: only units of this teacher are returned; empty for all units.
        findings: problems are added here.

    Raises:
        MissingError: there is no such teacher, or no cache.
    """
    names = _teacher_names(cache, teacher)
    recipe = check_root(cache, findings)
    views = check_views(cache, recipe, views_command(cache, recipe or "…"), findings)
    if views is None:
        return CheckedManifests(recipe=recipe, views=None, teachers=(), units=(), whole=not findings.problems)
    recipe = views.manifest.identity["recipe"]
    teachers = _checked_teachers(cache, names, recipe, views, findings)
    units = [
        *_checked_view_units(cache, recipe, views, teachers, findings),
        *(unit for checked in teachers for unit in checked.units),
    ]
    return CheckedManifests(
        recipe=recipe,
        views=views,
        teachers=tuple(checked.manifest for checked in teachers),
        units=tuple(unit for unit in units if not teacher or is_of_teacher(unit.name, teacher)),
        whole=not findings.problems,
    )


def _teacher_names(cache: Cache, teacher: str) -> list[str]:
    cached = cache.teachers()
    if teacher and teacher not in cached:
        found, fix = "has no features in this cache", f"choose from: {', '.join(cached) or 'none'}"
        raise MissingError("TEACHER", [Problem(place=teacher, found=found, fix=fix)])
    return [teacher] if teacher else cached


def _checked_teachers(
    cache: Cache, names: Collection[str], recipe: str, views: CheckedViews, findings: Findings
) -> list[CheckedTeacher]:
    """Return the teachers whose manifest can be read."""
    if names:
        check_group(cache.store, "teachers", has_attribute=False, fix=restore_from_copy(cache), findings=findings)
    teachers = [
        check_teacher(cache, name, views.manifest, extract_command(cache, recipe, name), findings) for name in names
    ]
    return [checked for checked in teachers if checked is not None]


def _checked_view_units(
    cache: Cache, recipe: str, views: CheckedViews, teachers: Sequence[CheckedTeacher], findings: Findings
) -> list[Unit]:
    """Return the units of canvases and of details."""
    specs = [checked.manifest.spec for checked in teachers]
    known = {spec.forward_of: sides_of(spec, views.manifest) for spec in specs}
    sides = {name: known.get(name) for name in detailed_teachers(committed_units(cache))}
    command = export_command(cache) if views.manifest.exported else views_command(cache, recipe)
    canvases = check_canvases(cache, views.manifest, command, findings)
    return [*canvases, *check_details(cache, views.manifest, sides, command, findings)]
