"""Extending a cache: which settings may grow, and which of the images in DATA are new to the cache."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, final

from pipeline.config import OLD_RULES, UNRECORDED, Recipe, ViewsConfig, views_settings
from pipeline.images.listing import SourceImage
from pipeline.views.image_parts import Copies, ImagePart, keys_identity, read_part
from storage_schemas.cache import Cache
from storage_schemas.format.errors import ContractError, CorruptionError, MissingError, Problem
from storage_schemas.format.identity import Identity, differences, require_same
from storage_schemas.format.layout import FEATURES, images_part
from storage_schemas.format.manifest import ViewsManifest

GROWING = ("draws", "low", "low_proportions", "high", "high_proportions", "high_share")
"""Settings that an extension may change. Draws and resolutions can only be added."""
EXTEND = "to add what is new and keep what is there, run `make views ARGS=--extend`"
ANOTHER_RECIPE = "use the recipe and settings that made this cache, or point CACHE at a new place"
OTHER_IMAGES = "set DATA to the images that this cache was made from, or point CACHE at a new place"
MANIFEST = f"{FEATURES}/views/zarr.json"
"""The object that holds the manifest of views, relative to the cache."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MatchedImages:
    """The images in DATA, compared with the image list of a cache."""

    parts: tuple[ImagePart | None, ...]
    """The stored part of each generation, with each image where it is in DATA now. None for the part that is lost; at
    most one is."""
    identities: tuple[Identity, ...]
    """What the manifest records about the images of each generation."""
    new: tuple[SourceImage, ...]
    """Images that no stored part names, in order of key. Where a part is lost they are the candidates for it."""
    data: str
    """Where the images were listed, for messages."""

    @property
    def lost(self) -> tuple[int, ...]:
        """Numbers of the generations whose part is not readable."""
        return tuple(number for number, part in enumerate(self.parts) if part is None)

    @property
    def compared(self) -> list[SourceImage]:
        """The images whose bytes are compared to find copies among the new ones; none where nothing is new.

        The kept images of earlier generations come first: a new image with the same bytes is the copy, whichever of
        the two comes first by key.
        """
        earlier = self.parts[: self.lost[0]] if self.lost else self.parts
        kept = [image for part in earlier if part is not None for image in part.kept]
        return [*kept, *self.new] if self.new else []


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ImageParts:
    """A list of images, divided by the generation that added them."""

    parts: tuple[ImagePart, ...]
    """One for each generation of the cache, and one more for images that are new."""
    unwritten: tuple[int, ...]
    """Generations whose part is still to be written: a new one, or one that is lost."""


def views_identity(recipe: Recipe) -> dict[str, Any]:
    """Return the part of the views' identity that a recipe decides."""
    return {"recipe": recipe.name, "views": views_settings(recipe.views)}


def stored_config(settings: Identity) -> ViewsConfig:
    """Return the settings that a manifest holds.

    Raises:
        ContractError: another version wrote them, with other fields.
    """
    if odd := {*UNRECORDED, *settings} ^ {field.name for field in fields(ViewsConfig)}:
        found = f"its settings differ from those of this version in {', '.join(sorted(odd))}"
        fix = "use the version of Stillhouse that made this cache"
        raise ContractError("manifest of views", [Problem(place=MANIFEST, found=found, fix=fix)])
    stored: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in {**UNRECORDED, **settings}.items()
    }
    return ViewsConfig(**stored)


def under_rules_of(manifest: ViewsManifest | None, recipe: Recipe) -> Recipe:
    """Return a recipe with the rules of a cache, where the cache was made before they were recorded.

    A cache without rules for images also keeps its shifts: `c_radio_v4` had uniform ones before the report's author
    published his.

    Args:
        manifest: of the cache's views; None before any view was cut.
        recipe: the recipe that the user names.
    """
    if manifest is None:
        return recipe
    settings, views = manifest.generations[-1].views, recipe.views
    if "order" not in settings:
        views = replace(views, order=UNRECORDED["order"])
    if "rules" not in settings:
        stored = stored_config(settings)
        views = replace(views, rules=OLD_RULES, shifts=stored.shifts, shift_sd=stored.shift_sd)
    return replace(recipe, views=views)


def require_settings(manifest: ViewsManifest, recipe: Recipe, *, extend: bool) -> None:
    """Refuse a recipe that differs from the cache's. With `extend`, accept one that only adds draws or resolutions.

    Raises:
        IdentityError: names every setting that differs, with both values.
    """
    recipe = under_rules_of(manifest, recipe)
    stored = {"recipe": manifest.identity["recipe"], "views": manifest.generations[-1].views}
    grown = stored["recipe"] == recipe.name and _extends(stored["views"], recipe.views)
    if not (grown and extend):
        fix = f"{EXTEND}; otherwise {ANOTHER_RECIPE}" if grown else ANOTHER_RECIPE
        require_same(f"recipe {recipe.name}", stored, views_identity(recipe), fix)


def match_images(
    cache: Cache, manifest: ViewsManifest | None, listed: Sequence[SourceImage], data: str, *, extend: bool
) -> MatchedImages:
    """Compare the images in DATA with the image list of a cache.

    Args:
        cache: holds the stored parts of the list.
        manifest: of its views; None before any view was cut, and then every image is new.
        listed: the images in DATA, in order of key.
        data: DATA, for messages.
        extend: whether images may be added to those of the cache.

    Raises:
        IdentityError: images of the cache are missing from DATA, or DATA has more and `extend` is not set.
        MissingError: parts of the stored list are lost, and DATA does not tell what they held.
    """
    generations = () if manifest is None else manifest.generations
    identities = tuple(generation.images for generation in generations)
    stored = [_readable_part(cache, number, identity) for number, identity in enumerate(identities)]
    readable = [part for part in stored if part is not None]
    now = {image.key: image for image in listed}
    known = {image.key for part in readable for image in part.images}
    new = tuple(image for image in listed if image.key not in known)
    lost = [number for number, part in enumerate(stored) if part is None]
    gone = not known <= now.keys()
    if lost and (gone or len(lost) > 1):
        raise _parts_lost(lost, data)
    if not lost and (gone or (new and stored and not extend)):
        _refuse_images(readable, listed, data, OTHER_IMAGES if gone else f"{EXTEND}; otherwise {OTHER_IMAGES}")
    parts = tuple(None if part is None else _relocated(part, now) for part in stored)
    return MatchedImages(parts=parts, identities=identities, new=new, data=data)


def divide(matched: MatchedImages, copies: Copies) -> ImageParts:
    """Divide the images in DATA into the generations that added them; those that are new make one more.

    Args:
        matched: the images, compared with those of the cache.
        copies: the copies among `matched.compared`.

    Raises:
        IdentityError: the only part of the list is lost, and DATA holds other images than the manifest records.
        MissingError: the same, where there are several parts.
    """
    keys = {image.key for image in matched.new}
    added = ImagePart(images=matched.new, copies={copy: kept for copy, kept in copies.items() if copy in keys})
    if matched.lost:
        _require_restored(matched, added)
    parts = tuple(added if part is None else part for part in matched.parts)
    if matched.lost or not matched.new:
        return ImageParts(parts=parts, unwritten=matched.lost)
    return ImageParts(parts=(*parts, added), unwritten=(len(parts),))


def _extends(settings: Identity, config: ViewsConfig) -> bool:
    try:
        stored = stored_config(settings)
    except ContractError:
        return False
    if replace(config, **{name: getattr(stored, name) for name in GROWING}) != stored:
        return False
    return config.draws >= stored.draws and {*stored.low} <= {*config.low} and {*stored.high} <= {*config.high}


def _readable_part(cache: Cache, number: int, identity: Identity) -> ImagePart | None:
    try:
        part = read_part(cache, number)
    except (MissingError, CorruptionError):
        return None
    return None if differences(identity, part.identity) else part


def _relocated(part: ImagePart, now: dict[str, SourceImage]) -> ImagePart:
    """Return a part with its images where they are now: DATA may have moved."""
    return replace(part, images=[now[image.key] for image in part.images])


def _require_restored(matched: MatchedImages, restored: ImagePart) -> None:
    """Refuse images that are not exactly those of the lost part."""
    [number] = matched.lost
    recorded = matched.identities[number]
    if len(matched.parts) == 1:
        require_same(f"image list of {matched.data}", {"images": recorded}, {"images": restored.identity}, OTHER_IMAGES)
    if differences(recorded, restored.identity):
        raise _parts_lost([number], matched.data)


def _parts_lost(numbers: Sequence[int], data: str) -> MissingError:
    found = f"is missing or damaged, and {data} does not hold exactly the images of this cache"
    fix = "restore it from a copy, or set DATA to the images that this cache was made from"
    places = [images_part(number) for number in numbers]
    return MissingError("image list", [Problem(place=place, found=found, fix=fix) for place in places])


def _refuse_images(parts: Sequence[ImagePart], listed: Sequence[SourceImage], data: str, fix: str) -> None:
    copies = {key for part in parts for key in part.copies}
    stored = keys_identity(sorted(image.key for part in parts for image in part.kept))
    current = keys_identity(image.key for image in listed if image.key not in copies)
    require_same(f"image list of {data}", {"images": stored}, {"images": current}, fix)
