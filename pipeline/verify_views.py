"""Checking what a cache says of its views: the root, the manifest, the image list, the draws, the arrays' shapes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, final

from pipeline.cache_units import canvas_units, detail_units, stored_sides
from pipeline.config import ViewsConfig
from pipeline.draw import DrawnView, draw_views, set_manifest
from pipeline.findings import MALFORMED, Findings, noting
from pipeline.image_list import SourceImage
from pipeline.units import Unit
from pipeline.verify_groups import check_array, check_group, copied_back, metadata_name
from storage_schemas.cache import Cache
from storage_schemas.commits import record_path
from storage_schemas.errors import CorruptionError, MissingError
from storage_schemas.identity import digest
from storage_schemas.layout import FEATURES, IMAGES_TABLE, views_unit
from storage_schemas.manifest import ViewsManifest
from storage_schemas.tables import IMAGES, from_parquet
from storage_schemas.views import ViewSet


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredViews:
    """What a cache says of its views, as far as it can be read."""

    manifest: ViewsManifest
    settings: ViewsConfig | None
    """None where they are not those of this version."""
    drawn: Mapping[ViewSet, Sequence[DrawnView]]
    """Every view drawn, by set; empty where the image list cannot be read."""


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
        if not cache.store.listing(FEATURES):
            raise
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
    manifest, fix = None, f"{copied_back(cache)}; or delete it, and `{command}` writes it again"
    place = metadata_name("views")
    with noting(found.problems, place, fix):
        attributes = cache.attributes("views")
        manifest = None if attributes is None else ViewsManifest.from_attributes(attributes)
    found.known.update({place, IMAGES_TABLE})
    if manifest is None:
        return None
    check_group(cache.store, "views", ours=True, fix=fix, found=found)
    if recipe and manifest.identity["recipe"] != recipe:
        problem = f"names the recipe {recipe}, the views are of {manifest.identity['recipe']}"
        found.note(metadata_name(""), problem, copied_back(cache))
    settings = _settings(manifest, place, found)
    drawn = _drawn(cache, manifest, settings, command, found)
    return DeclaredViews(manifest=manifest, settings=settings, drawn=drawn)


def check_canvases(cache: Cache, views: ViewsManifest, command: str, found: Findings) -> list[Unit]:
    """Check the metadata of every canvas array, and return the units."""
    units = canvas_units(views)
    for unit in units:
        check_group(cache.store, unit.name, ours=False, fix=_again(cache, unit.name, command), found=found)
        _check_arrays(cache, unit, command, found)
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
        with noting(found.problems, metadata_name(node), _again(cache, node, command)):
            units += detail_units(views, teacher, stored_sides(cache, views, teacher) if known is None else known)
    for view_set in views.sets if sides else ():
        group = f"{views_unit(view_set)}/detail"
        check_group(cache.store, group, ours=False, fix=_again(cache, group, command), found=found)
    for unit in units:
        _check_arrays(cache, unit, command, found)
    return units


def _check_arrays(cache: Cache, unit: Unit, command: str, found: Findings) -> None:
    for spec in unit.arrays:
        check_array(cache.store, spec, fix=_again(cache, spec.path, command), found=found)


def _again(cache: Cache, node: str, command: str) -> str:
    both = f"{metadata_name(node)} and {metadata_name('views')}"
    return f"{copied_back(cache)}; or delete {both}, and `{command}` writes them again"


def _settings(manifest: ViewsManifest, place: str, found: Findings) -> ViewsConfig | None:
    fix = "use the version of Stillhouse that made this cache"
    with noting(found.problems, place, fix):
        names = manifest.identity["views"].items()
        stored: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in names}
        if odd := stored.keys() ^ {field.name for field in fields(ViewsConfig)}:
            found.note(place, f"its settings do not share {', '.join(sorted(odd))} with this version", fix)
            return None
        return ViewsConfig(**stored)
    return None


def _drawn(
    cache: Cache, manifest: ViewsManifest, settings: ViewsConfig | None, command: str, found: Findings
) -> dict[ViewSet, list[DrawnView]]:
    """Read the image list and draw the views again: the manifest must follow from them."""
    images: list[SourceImage] = []
    first = record_path(views_unit(next(iter(manifest.sets))), 0)
    fix = f"{copied_back(cache)}; or delete {first}, and `{command}` writes both again"
    with noting(found.problems, IMAGES_TABLE, fix):
        rows = from_parquet(cache.store.read(IMAGES_TABLE), IMAGES, IMAGES_TABLE).to_pylist()
        images = [SourceImage(key=row["image"], uri=row["uri"]) for row in rows if row["copy_of"] is None]
    said = {"count": len(images), "keys_sha256": digest({"keys": [image.key for image in images]})}
    if images and said != manifest.identity["images"]:
        problem = "is not the list that the views were drawn from"
        found.note(IMAGES_TABLE, problem, fix)
        return {}
    if not images or settings is None:
        return {}
    drawn = draw_views(images, settings)
    if {one: set_manifest(one, len(views), settings) for one, views in drawn.items()} != dict(manifest.sets):
        problem = "its view sets are not those that its settings and the image list give"
        found.note(metadata_name("views"), problem, copied_back(cache))
        return {}
    return drawn
