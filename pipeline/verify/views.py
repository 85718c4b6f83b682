"""Checking views, but for their shards: root group, manifest, image list, metadata of their arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from pipeline.config import ViewsConfig
from pipeline.inventory.manifest_units import canvas_units, detail_units, stored_sides
from pipeline.inventory.present import uncommit
from pipeline.inventory.units import Unit
from pipeline.verify.problems import Findings, collecting
from pipeline.verify.zarr_metadata import Fixes, check_group, check_unit, metadata_name, restore_from_copy
from pipeline.views.extension import stored_config
from pipeline.views.generations import implied_sets, redraw
from pipeline.views.image_parts import ImagePart, read_part
from pipeline.views.order import DrawnView
from storage_schemas.cache import Cache
from storage_schemas.format.errors import MALFORMED, CorruptionError, MissingError
from storage_schemas.format.layout import FEATURES, images_part, views_unit
from storage_schemas.format.manifest import ViewsManifest
from storage_schemas.format.views import ViewSet
from storage_schemas.objects.publish import TEMPORARY


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedViews:
    """The manifest of the views, and what follows from it, as far as it can be read."""

    manifest: ViewsManifest
    settings: ViewsConfig | None
    """Settings of the latest generation; None where this version cannot read those of any generation."""
    drawn: Mapping[ViewSet, Sequence[DrawnView]]
    """Every view drawn, by set, generation after generation; empty where the image list cannot be read."""


def check_root(cache: Cache, findings: Findings) -> str:
    """Check the root group, and return the recipe's name; empty where it cannot be read.

    Raises:
        MissingError: there is no cache.
        ContractError: the cache is of another format version.
    """
    recipe, fix = "", restore_from_copy(cache)
    findings.referenced.add(metadata_name(""))
    try:
        recipe = cache.require()
    except MissingError:
        if all(name.endswith(TEMPORARY) for name in cache.store.listing(FEATURES)):
            raise  # nothing, or the temporary file of a run that was killed while it wrote its very first object
        findings.add(metadata_name(""), "is missing, or is not the root of a cache", fix)
    except (CorruptionError, *MALFORMED):
        with collecting(findings.problems, metadata_name(""), fix):
            raise
    if recipe:
        check_group(cache.store, "", has_attribute=True, fix=fix, findings=findings)
    return recipe


def check_views(cache: Cache, recipe: str, command: str, findings: Findings) -> CheckedViews | None:
    """Check the manifest of the views and the image list; None where the manifest is missing or cannot be read.

    Args:
        cache: the cache.
        recipe: the recipe that its root names.
        command: the command that cuts views.
        findings: problems are added here.
    """
    manifest, place, fix = None, metadata_name("views"), restore_from_copy(cache)
    if not cache.store.exists(images_part(1)):  # in an extended cache only the manifest tells the generations apart
        fix += f"; or delete it, and `{command}` writes it again"
    with collecting(findings.problems, place, fix):
        attributes = cache.attributes("views")
        manifest = None if attributes is None else ViewsManifest.from_attributes(attributes)
    findings.referenced.add(place)
    if manifest is None:
        return None
    findings.referenced.update(images_part(number) for number in range(len(manifest.generations)))
    check_group(cache.store, "views", has_attribute=True, fix=fix, findings=findings)
    if recipe and manifest.identity["recipe"] != recipe:
        problem = f"names the recipe {recipe}, the views are of {manifest.identity['recipe']}"
        findings.add(metadata_name(""), problem, restore_from_copy(cache))
    settings, parts = _settings(manifest, findings), _image_parts(cache, manifest, command, findings)
    can_be_drawn = settings is not None and len(parts) == len(manifest.generations)
    drawn = _drawn_views(cache, manifest, parts, findings) if can_be_drawn else {}
    return CheckedViews(manifest=manifest, settings=settings, drawn=drawn)


def check_canvases(cache: Cache, views: ViewsManifest, command: str, findings: Findings) -> list[Unit]:
    """Check the metadata of every canvas array, and return the units."""
    units = canvas_units(views)
    for unit in units:
        _check_unit(cache, views, unit, unit.name, command, findings)
    return units


def check_details(
    cache: Cache,
    views: ViewsManifest,
    sides: Mapping[str, Mapping[ViewSet, int] | None],
    command: str,
    findings: Findings,
) -> list[Unit]:
    """Check the metadata of every detail array, and return the units.

    Args:
        cache: the cache.
        views: its views.
        sides: teachers with committed details; for each the side of a window (pixels) by set, or None where only the
            arrays themselves say it.
        command: the command that cuts views.
        findings: problems are added here.
    """
    units: list[Unit] = []
    for teacher, known in sides.items():
        node = f"views/*/detail/{teacher}"
        with collecting(findings.problems, metadata_name(node), _metadata_fix(cache, views, node, command)):
            units += detail_units(views, teacher, stored_sides(cache, views, teacher) if known is None else known)
    for unit in units:
        _check_unit(cache, views, unit, f"{views_unit(unit.view_set)}/detail", command, findings)
    return units


def _check_unit(cache: Cache, views: ViewsManifest, unit: Unit, group: str, command: str, findings: Findings) -> None:
    fixes = Fixes(
        group=_metadata_fix(cache, views, group, command),
        array=_metadata_fix(cache, views, unit.arrays[0].path, command),
    )
    check_unit(cache, unit, group=group, fixes=fixes, findings=findings)


def _metadata_fix(cache: Cache, views: ViewsManifest, node: str, command: str) -> str:
    if views.extensions:
        return restore_from_copy(cache)  # only the manifest tells the generations apart: it must not be deleted
    both = f"{metadata_name(node)} and {metadata_name('views')}"
    return f"{restore_from_copy(cache)}; or delete {both}, and `{command}` writes them again"


def _settings(manifest: ViewsManifest, findings: Findings) -> ViewsConfig | None:
    settings: list[ViewsConfig] = []
    for generation in manifest.generations:
        fix = "use the version of Stillhouse that made this cache"
        with collecting(findings.problems, metadata_name("views"), fix):
            settings.append(stored_config(generation.views))
    return settings[-1] if len(settings) == len(manifest.generations) else None


def _image_parts(cache: Cache, manifest: ViewsManifest, command: str, findings: Findings) -> list[ImagePart]:
    """Read the image list, part by part: each must be the list that its generation was drawn from."""
    parts: list[ImagePart] = []
    uncommitted = uncommit(cache, cache.log(views_unit(next(iter(manifest.sets)))), 0)
    for number, generation in enumerate(manifest.generations):
        place = images_part(number)
        fix = f"{restore_from_copy(cache)}; or {uncommitted}, and `{command}` writes both again"
        with collecting(findings.problems, place, fix):
            part = read_part(cache, number)
            if part.identity == generation.images:
                parts.append(part)
            else:
                findings.add(place, "is not the image list that the views were drawn from", fix)
    return parts


def _drawn_views(
    cache: Cache, manifest: ViewsManifest, parts: Sequence[ImagePart], findings: Findings
) -> dict[ViewSet, list[DrawnView]]:
    """Draw the views of every generation again: the manifest must follow from them."""
    drawn = redraw(manifest, parts)
    if implied_sets(manifest, drawn) != dict(manifest.sets):
        problem = "its view sets are not those that its settings and the image list give"
        findings.add(metadata_name("views"), problem, restore_from_copy(cache))
        return {}
    return {view_set: [view for views in added for view in views] for view_set, added in drawn.items()}
