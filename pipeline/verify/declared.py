"""All that a cache says of itself, read and checked as far as it can be."""

from dataclasses import dataclass
from typing import final

from pipeline.inventory.commands import export_command, extract_command, views_command
from pipeline.inventory.commit_log import committed_units, is_of_teacher
from pipeline.inventory.stored_units import detailed_teachers, sides_of
from pipeline.inventory.units import Unit
from pipeline.verify.findings import Findings
from pipeline.verify.metadata import check_group, copied_back
from pipeline.verify.teachers import check_teacher
from pipeline.verify.views import DeclaredViews, check_canvases, check_details, check_root, check_views
from storage_schemas.cache import Cache
from storage_schemas.format.errors import MissingError, Problem
from storage_schemas.format.manifest import TeacherManifest


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What a cache says of itself."""

    recipe: str
    """The recipe's name; empty where it cannot be read."""
    views: DeclaredViews | None
    """None before any view was drawn, or where that cannot be read."""
    teachers: tuple[TeacherManifest, ...]
    """Those that can be read."""
    units: tuple[Unit, ...]
    """What these imply."""
    whole: bool
    """Whether all that is said could be read."""


def read_declared(cache: Cache, teacher: str, found: Findings) -> Declared:
    """Read and check a cache's groups, manifests, image list and PHI-S maps.

    Args:
        cache: the cache.
        teacher: whose units alone are wanted; empty for all.
        found: what is wrong is noted here.

    Raises:
        MissingError: there is no such teacher, or nothing at all.
    """
    names = [name for name in cache.teachers() if teacher in ("", name)]
    if teacher and not names:
        fix = f"there are {', '.join(cache.teachers()) or 'none'}"
        raise MissingError("TEACHER", [Problem(place=teacher, found="has nothing in this cache", fix=fix)])
    recipe = check_root(cache, found)
    views = check_views(cache, recipe, views_command(cache, recipe or "…"), found)
    if views is None:
        return Declared(recipe=recipe, views=None, teachers=(), units=(), whole=not found.problems)
    recipe = views.manifest.identity["recipe"]
    if names:
        check_group(cache.store, "teachers", ours=False, fix=copied_back(cache), found=found)
    read = [check_teacher(cache, name, views.manifest, extract_command(cache, recipe, name), found) for name in names]
    teachers = [one for one in read if one is not None]
    known = {one.spec.forward_of: sides_of(one.spec, views.manifest) for one, _ in teachers}
    sides = {name: known.get(name) for name in detailed_teachers(committed_units(cache))}
    command = export_command(cache) if views.manifest.exported else views_command(cache, recipe)
    units = [
        *check_canvases(cache, views.manifest, command, found),
        *check_details(cache, views.manifest, sides, command, found),
        *(unit for _, features in teachers for unit in features),
    ]
    return Declared(
        recipe=recipe,
        views=views,
        teachers=tuple(manifest for manifest, _ in teachers),
        units=tuple(unit for unit in units if not teacher or is_of_teacher(unit.name, teacher)),
        whole=not found.problems,
    )
