"""What an export takes of a cache: which images, which view sets, which teachers; all of it there, or refused."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import final

import fsspec

from pipeline.export.options import ExportOptions
from pipeline.views.extension import stored_config
from pipeline.views.generations import Drawn, implied_sets, redraw
from pipeline.views.image_parts import ImagePart, read_part
from pipeline.views.sampling import draw_split, set_manifest
from storage_schemas.cache import Cache
from storage_schemas.format.errors import MissingError, Problem, SettingError
from storage_schemas.format.manifest import Generation, ViewsManifest
from storage_schemas.format.views import ViewSet

SHOWN = 10
"""Image keys that a message names; the others are counted."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedViews:
    """The views of an export, as it will say them of itself."""

    manifest: ViewsManifest
    parts: tuple[ImagePart, ...]
    """The images of each generation that were taken."""
    drawn: Drawn
    """Every view."""


def select_views(cache: Cache, views: ViewsManifest, options: ExportOptions) -> ExportedViews:
    """Choose the views that an export takes of a cache.

    Args:
        cache: the source.
        views: its manifest.
        options: what is wanted.

    Raises:
        SettingError: sets or images that the cache does not have, or no view at all.
        MissingError, CorruptionError: its image list, or the file of keys, is gone or damaged.
    """
    taken = _named_sets(views, options.sets)
    parts = tuple(_taken_images(views, [read_part(cache, number) for number in range(len(views.generations))], options))
    drawn = {view_set: one for view_set, one in redraw(views, parts).items() if view_set in taken}
    if not drawn:
        found, fix = "leave no view of this cache", "take more sets, images or both splits"
        raise SettingError("export", [Problem(place="--sets, --split, --images", found=found, fix=fix)])
    said = [
        Generation(views=one.views, images=part.identity) for one, part in zip(views.generations, parts, strict=True)
    ]
    rows = {view_set.name: _rows_per_shard(views, view_set, options) for view_set in drawn}
    identity = {
        "recipe": views.identity["recipe"],
        "views": said[0].views,
        "images": said[0].images,
        "export": {"source": views.digest, "sets": rows},
    }
    bare = ViewsManifest(identity=identity, sets={}, extensions=tuple(said[1:]))
    return ExportedViews(manifest=replace(bare, sets=implied_sets(bare, drawn)), parts=parts, drawn=drawn)


def named(what: str, names: Collection[str], there: Iterable[str]) -> list[str]:
    """Return names, or all there are for none, in the order in which they are there.

    Raises:
        SettingError: some are not there.
    """
    known = list(there)
    if unknown := sorted(set(names) - set(known)):
        fix = f"it has {', '.join(known) or 'none'}"
        problems = [Problem(place=name, found="is not in this cache", fix=fix) for name in unknown]
        raise SettingError(what, problems)
    return [name for name in known if not names or name in names]


def _named_sets(views: ViewsManifest, names: Sequence[str]) -> list[ViewSet]:
    return [ViewSet.parse(name) for name in named("--sets", names, (view_set.name for view_set in views.sets))]


def _taken_images(views: ViewsManifest, parts: Sequence[ImagePart], options: ExportOptions) -> Iterable[ImagePart]:
    """Yield the images of each generation that are taken, with their copies. A split is one of images."""
    config = stored_config(views.generations[-1].views)
    keys = _keys(options.images, parts) if options.images else None
    for part in parts:
        taken = {
            image.key
            for image in part.images
            if (keys is None or part.copies.get(image.key, image.key) in keys)
            and options.split in ("all", draw_split(part.copies.get(image.key, image.key), config))
        }
        copies = {copy: kept for copy, kept in part.copies.items() if copy in taken}
        yield ImagePart(images=[image for image in part.images if image.key in taken], copies=copies)


def _keys(file: str, parts: Sequence[ImagePart]) -> set[str]:
    """Read the keys of images that views are to be of."""
    try:
        with fsspec.open(file, "rb") as opened:
            lines = opened.read().decode("utf-8-sig").split("\n")
    except FileNotFoundError as error:
        raise MissingError("--images", [Problem(place=file, found="is not there")]) from error
    except UnicodeDecodeError as error:
        raise SettingError("--images", [Problem(place=file, found="is not UTF-8", fix="write it as UTF-8")]) from error
    keys = set(filter(None, map(str.strip, lines)))
    unknown = sorted(keys - {image.key for part in parts for image in part.kept})
    if unknown:
        fix = "give keys as the column `image` of tables/images has them, of images that are no copies"
        problems = [Problem(place=key, found="is no image that this cache has views of") for key in unknown[:SHOWN]]
        if len(unknown) > SHOWN:
            problems.append(Problem(place="…", found=f"and {len(unknown) - SHOWN} more"))
        raise SettingError(f"image keys in {file}", [*problems, Problem(place="what to do", found=fix)])
    return keys


def _rows_per_shard(views: ViewsManifest, view_set: ViewSet, options: ExportOptions) -> int:
    if options.rows_per_shard:
        return options.rows_per_shard
    if options.tokens_per_shard:
        config = replace(stored_config(views.generations[-1].views), tokens_per_shard=options.tokens_per_shard)
        return set_manifest(view_set, [1], config).grid.rows_per_shard
    return views.sets[view_set].grid.rows_per_shard
