"""Extending a cache: which settings may grow, and which images an extension brings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, final

from pipeline.config import Recipe, ViewsConfig, views_settings
from pipeline.images.listing import SourceImage
from pipeline.views.image_parts import Copies, ImagePart, keys_identity, read_part
from storage_schemas.cache import Cache
from storage_schemas.format.errors import ContractError, CorruptionError, MissingError, Problem
from storage_schemas.format.identity import Identity, differences, require_same
from storage_schemas.format.layout import images_part
from storage_schemas.format.manifest import ViewsManifest

GROWING = ("draws", "low", "low_proportions", "high", "high_proportions", "high_share")
"""Settings that an extension may change. Draws and resolutions are only ever added."""
EXTEND = "to add what is new and leave what is there as it is: `make views ARGS=--extend`"
ANOTHER_RECIPE = "use the recipe and settings that made this cache, or point CACHE at a new place"
OTHER_IMAGES = "set DATA to the images that this cache was made from, or point CACHE at a new place"

FindCopies = Callable[[Sequence[SourceImage]], Copies]
"""Finds those among some images whose bytes equal an earlier one's."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ImageParts:
    """A list of images, divided into generations."""

    parts: tuple[ImagePart, ...]
    """One for each generation of the cache; where there are images that none of them has, one more."""
    unwritten: tuple[int, ...]
    """Generations whose part is not stored, or not as it should be."""


def views_identity(recipe: Recipe) -> dict[str, Any]:
    """Return the part of the views' identity that a recipe decides."""
    return {"recipe": recipe.name, "views": views_settings(recipe.views)}


def stored_config(settings: Identity) -> ViewsConfig:
    """Return the settings that a manifest holds.

    Raises:
        ContractError: they are not those of this version.
    """
    if odd := settings.keys() ^ {field.name for field in fields(ViewsConfig)}:
        found = f"its settings do not share {', '.join(sorted(odd))} with this version"
        raise ContractError("manifest of views", [Problem(place="features.zarr/views/zarr.json", found=found)])
    stored: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in settings.items()}
    return ViewsConfig(**stored)


def require_settings(manifest: ViewsManifest, recipe: Recipe, *, extend: bool) -> None:
    """Refuse a recipe that is not the cache's; one that extends it too, unless `extend` is set.

    Raises:
        IdentityError: every value that differs is named, with both.
    """
    stored = {"recipe": manifest.identity["recipe"], "views": manifest.generations[-1].views}
    grown = stored["recipe"] == recipe.name and _extends(stored["views"], recipe.views)
    if not (grown and extend):
        fix = f"{EXTEND}; else {ANOTHER_RECIPE}" if grown else ANOTHER_RECIPE
        require_same(f"recipe {recipe.name}", stored, views_identity(recipe), fix)


def divide(
    cache: Cache,
    manifest: ViewsManifest,
    listed: Sequence[SourceImage],
    find_copies: FindCopies,
    *,
    extend: bool,
    data: str,
) -> ImageParts:
    """Divide a list of images into the generations that brought them.

    Args:
        cache: where the parts are.
        manifest: of its views.
        listed: the images there are now, in order of key.
        find_copies: asked only about images that no part names.
        extend: whether such images are accepted.
        data: where they were listed, for messages.

    Raises:
        IdentityError: images of the cache are gone, or there are more and `extend` is not set.
        MissingError: parts of the cache's own list are lost, and DATA does not say what they held.
    """
    stored = [_readable(cache, manifest, number) for number in range(len(manifest.generations))]
    sound = [part for part in stored if part is not None]
    known = {image.key for part in sound for image in part.images}
    fresh = [image for image in listed if image.key not in known]
    lost = tuple(number for number, part in enumerate(stored) if part is None)
    gone = bool(known - {image.key for image in listed})
    if lost:
        restored = None if gone or len(lost) > 1 else _new_part(sound[: lost[0]], fresh, find_copies)
        whole = _with_restored(manifest, stored, restored, data)
        return ImageParts(parts=_relisted(whole, listed), unwritten=lost)
    if gone or (fresh and not extend):
        _refuse_images(sound, listed, data, fix=OTHER_IMAGES if gone else f"{EXTEND}; else {OTHER_IMAGES}")
    parts = _relisted(sound, listed)
    if not fresh:
        return ImageParts(parts=parts, unwritten=())
    return ImageParts(parts=(*parts, _new_part(parts, fresh, find_copies)), unwritten=(len(parts),))


def _extends(settings: Identity, config: ViewsConfig) -> bool:
    try:
        stored = stored_config(settings)
    except ContractError:
        return False
    if replace(config, **{name: getattr(stored, name) for name in GROWING}) != stored:
        return False
    return config.draws >= stored.draws and {*stored.low} <= {*config.low} and {*stored.high} <= {*config.high}


def _readable(cache: Cache, manifest: ViewsManifest, number: int) -> ImagePart | None:
    try:
        part = read_part(cache, number)
    except (MissingError, CorruptionError):
        return None
    return None if differences(manifest.generations[number].images, part.identity) else part


def _new_part(before: Sequence[ImagePart], images: Sequence[SourceImage], find_copies: FindCopies) -> ImagePart:
    # what is kept already stays: a new image of the same bytes is its copy, whichever comes first by key
    copies = find_copies([*(image for part in before for image in part.kept), *images])
    own = {image.key for image in images}
    return ImagePart(images=images, copies={copy: kept for copy, kept in copies.items() if copy in own})


def _relisted(parts: Sequence[ImagePart], listed: Sequence[SourceImage]) -> tuple[ImagePart, ...]:
    """Return the parts with their images where they are now: DATA may have moved."""
    now = {image.key: image for image in listed}
    return tuple(ImagePart(images=[now[one.key] for one in part.images], copies=part.copies) for part in parts)


def _with_restored(
    manifest: ViewsManifest, stored: Sequence[ImagePart | None], restored: ImagePart | None, data: str
) -> list[ImagePart]:
    """Return all parts, with one in the place of that which is lost, if it is just what the manifest says."""
    said = {number: manifest.generations[number].images for number, part in enumerate(stored) if part is None}
    if restored is not None and len(stored) == 1:
        require_same(f"image list of {data}", {"images": said[0]}, {"images": restored.identity}, OTHER_IMAGES)
    if restored is None or any(differences(images, restored.identity) for images in said.values()):
        found = f"is gone or damaged, and {data} does not hold just the images of this cache"
        fix = "put it back from a copy, or set DATA to the images that this cache was made from"
        raise MissingError("image list", [Problem(place=images_part(one), found=found, fix=fix) for one in said])
    return [restored if part is None else part for part in stored]


def _refuse_images(parts: Sequence[ImagePart], listed: Sequence[SourceImage], data: str, fix: str) -> None:
    copies = {key for part in parts for key in part.copies}
    stored = keys_identity(sorted(image.key for part in parts for image in part.kept))
    current = keys_identity(image.key for image in listed if image.key not in copies)
    require_same(f"image list of {data}", {"images": stored}, {"images": current}, fix)
