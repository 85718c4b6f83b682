"""Checking what a cache says of its views: the root, the manifest, the image list, the draws, the arrays' shapes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from pipeline.config import ViewsConfig
from pipeline.inventory.stored_units import canvas_units, detail_units, stored_sides
from pipeline.inventory.units import Unit
from pipeline.verify.findings import MALFORMED, Findings, noting
from pipeline.verify.metadata import check_group, check_unit, copied_back, metadata_name
from pipeline.views.extension import stored_config
from pipeline.views.generations import implied_sets, redraw
from pipeline.views.image_parts import ImagePart, read_part
from pipeline.views.sampling import DrawnView
from storage_schemas.cache import Cache
from storage_schemas.commits import record_path
from storage_schemas.format.errors import CorruptionError, MissingError
from storage_schemas.format.layout import FEATURES, images_part, views_unit
from storage_schemas.format.manifest import ViewsManifest
from storage_schemas.format.views import ViewSet
from storage_schemas.objects.publish import TEMPORARY


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredViews:
    """What a cache says of its views, as far as it can be read."""

    manifest: ViewsManifest
    settings: ViewsConfig | None
    """The latest; None where any are not those of this version."""
    drawn: Mapping[ViewSet, Sequence[DrawnView]]
    """Every view drawn, by set, generation after generation; empty where the image list cannot be read."""


def check_root(cache: Cache, found: Findings) -> str:
    """Check the root group, and return the recipe's name; empty where it cannot be read.

    Raises:
        MissingError: there is nothing at all.
        ContractError: the cache is of another format version.
    """
    recipe, fix = "", copied_back(cache)
    found.known.add(metadata_name(""))
    try:
        recipe = cache.require()
    except MissingError:
        if all(name.endswith(TEMPORARY) for name in cache.store.listing(FEATURES)):
            raise  # there is nothing, or what a run left that was killed at its very first object
        found.note(metadata_name(""), "is not there, or says nothing of a cache", fix)
    except (CorruptionError, *MALFORMED):
        with noting(found.problems, metadata_name(""), fix):
            raise
    if recipe:
        check_group(cache.store, "", ours=True, fix=fix, found=found)
    return recipe


def check_views(cache: Cache, recipe: str, command: str, found: Findings) -> DeclaredViews | None:
    """Check all that is said of the views; None where no manifest can be read.

    Args:
        cache: the cache.
        recipe: what its root names.
        command: what cuts views.
        found: what is wrong is noted here.
    """
    manifest, place, fix = None, metadata_name("views"), copied_back(cache)
    if not cache.store.exists(images_part(1)):  # what was added when stands in the manifest alone
        fix += f"; or delete it, and `{command}` writes it again"
    with noting(found.problems, place, fix):
        attributes = cache.attributes("views")
        manifest = None if attributes is None else ViewsManifest.from_attributes(attributes)
    found.known.add(place)
    if manifest is None:
        return None
    found.known.update(images_part(number) for number in range(len(manifest.generations)))
    check_group(cache.store, "views", ours=True, fix=fix, found=found)
    if recipe and manifest.identity["recipe"] != recipe:
        problem = f"names the recipe {recipe}, the views are of {manifest.identity['recipe']}"
        found.note(metadata_name(""), problem, copied_back(cache))
    settings, parts = _settings(manifest, found), _images(cache, manifest, command, found)
    whole = settings is not None and len(parts) == len(manifest.generations)
    drawn = _drawn(cache, manifest, parts, found) if whole else {}
    return DeclaredViews(manifest=manifest, settings=settings, drawn=drawn)


def check_canvases(cache: Cache, views: ViewsManifest, command: str, found: Findings) -> list[Unit]:
    """Check the metadata of every canvas array, and return the units."""
    units = canvas_units(views)
    for unit in units:
        _check_unit(cache, views, unit, unit.name, command, found)
    return units


def check_details(
    cache: Cache,
    views: ViewsManifest,
    sides: Mapping[str, Mapping[ViewSet, int] | None],
    command: str,
    found: Findings,
) -> list[Unit]:
    """Check the metadata of every detail array, and return the units.

    Args:
        cache: the cache.
        views: its views.
        sides: teachers that details are committed of, each with their sides by set (pixels) where these are known.
        command: what cuts views.
        found: what is wrong is noted here.
    """
    units: list[Unit] = []
    for teacher, known in sides.items():
        node = f"views/*/detail/{teacher}"
        with noting(found.problems, metadata_name(node), _again(cache, views, node, command)):
            units += detail_units(views, teacher, stored_sides(cache, views, teacher) if known is None else known)
    for unit in units:
        _check_unit(cache, views, unit, f"{views_unit(unit.view_set)}/detail", command, found)
    return units


def _check_unit(cache: Cache, views: ViewsManifest, unit: Unit, group: str, command: str, found: Findings) -> None:
    group_fix, array_fix = _again(cache, views, group, command), _again(cache, views, unit.arrays[0].path, command)
    check_unit(cache, unit, group=group, group_fix=group_fix, array_fix=array_fix, found=found)


def _again(cache: Cache, views: ViewsManifest, node: str, command: str) -> str:
    if views.extensions:
        return copied_back(cache)  # what was added when stands in the manifest alone
    both = f"{metadata_name(node)} and {metadata_name('views')}"
    return f"{copied_back(cache)}; or delete {both}, and `{command}` writes them again"


def _settings(manifest: ViewsManifest, found: Findings) -> ViewsConfig | None:
    settings: list[ViewsConfig] = []
    for generation in manifest.generations:
        with noting(found.problems, metadata_name("views"), "use the version of Stillhouse that made this cache"):
            settings.append(stored_config(generation.views))
    return settings[-1] if len(settings) == len(manifest.generations) else None


def _images(cache: Cache, manifest: ViewsManifest, command: str, found: Findings) -> list[ImagePart]:
    """Read the image list, part by part: each must be the one that its generation was drawn from."""
    parts: list[ImagePart] = []
    first = record_path(views_unit(next(iter(manifest.sets))), 0)
    for number, generation in enumerate(manifest.generations):
        place, fix = images_part(number), f"{copied_back(cache)}; or delete {first}, and `{command}` writes both again"
        with noting(found.problems, place, fix):
            part = read_part(cache, number)
            if part.identity == generation.images:
                parts.append(part)
            else:
                found.note(place, "is not the list that the views were drawn from", fix)
    return parts


def _drawn(
    cache: Cache, manifest: ViewsManifest, parts: Sequence[ImagePart], found: Findings
) -> dict[ViewSet, list[DrawnView]]:
    """Draw the views of every generation again: the manifest must follow from them."""
    drawn = redraw(manifest, parts)
    if implied_sets(manifest, drawn) != dict(manifest.sets):
        problem = "its view sets are not those that its settings and the image list give"
        found.note(metadata_name("views"), problem, copied_back(cache))
        return {}
    return {view_set: [view for views in added for view in views] for view_set, added in drawn.items()}
