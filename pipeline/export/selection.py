"""The views of an export: which images, which view sets, in shards of which size."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import fsspec

from pipeline.export.options import ExportOptions
from pipeline.views.extension import stored_config
from pipeline.views.generations import Drawn, implied_sets, redraw_exported
from pipeline.views.image_parts import ImagePart, read_part
from pipeline.views.sampling import draw_split, set_manifest
from storage_schemas.cache import Cache
from storage_schemas.format.errors import MissingError, Problem, SettingError, first_problems
from storage_schemas.format.manifest import Generation, ViewsManifest
from storage_schemas.format.views import ViewSet


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedViews:
    """The views of an export."""

    manifest: ViewsManifest
    """Their manifest in the target."""
    parts: tuple[ImagePart, ...]
    """The images of each generation that are exported."""
    drawn: Drawn
    """Every view that is exported, by set and generation."""


def select_views(cache: Cache, views: ViewsManifest, options: ExportOptions) -> ExportedViews:
    """Choose the views that are exported.

    Args:
        cache: the source.
        views: its manifest.
        options: what is exported.

    Raises:
        SettingError: sets or images that the cache does not have, or no view at all.
        MissingError, CorruptionError: its image list, or the file of keys, is missing or damaged.
    """
    chosen = _chosen_sets(views, options.sets)
    stored = [read_part(cache, number) for number in range(len(views.generations))]
    parts = tuple(_chosen_images(views, stored, options))
    rows = {view_set.name: _rows_per_shard(views, view_set, options) for view_set in chosen}
    drawn = redraw_exported(views, parts, rows)
    if not drawn:
        found, fix = "select no view of this cache", "select more sets, more images, or both splits"
        raise SettingError("export", [Problem(place="--sets, --split, --images", found=found, fix=fix)])
    manifest = _exported_manifest(views, parts, {view_set.name: rows[view_set.name] for view_set in drawn})
    return ExportedViews(manifest=replace(manifest, sets=implied_sets(manifest, drawn)), parts=parts, drawn=drawn)


def chosen_names(setting: str, names: Collection[str], existing: Iterable[str]) -> list[str]:
    """Return the existing names that are among `names`, in their order; all of them where `names` is empty.

    Raises:
        SettingError: `names` has others.
    """
    known = list(existing)
    if unknown := sorted(set(names) - set(known)):
        fix = f"it has {', '.join(known) or 'none'}"
        problems = [Problem(place=name, found="is not in this cache", fix=fix) for name in unknown]
        raise SettingError(setting, problems)
    return [name for name in known if not names or name in names]


def _exported_manifest(views: ViewsManifest, parts: Sequence[ImagePart], rows: Mapping[str, int]) -> ViewsManifest:
    """Return the manifest of the target's views, without its sets."""
    generations = [
        Generation(views=generation.views, images=part.identity)
        for generation, part in zip(views.generations, parts, strict=True)
    ]
    identity = {
        "recipe": views.identity["recipe"],
        "views": generations[0].views,
        "images": generations[0].images,
        "export": {"source": views.digest, "sets": rows},
    }
    return ViewsManifest(identity=identity, sets={}, extensions=tuple(generations[1:]))


def _chosen_sets(views: ViewsManifest, names: Sequence[str]) -> list[ViewSet]:
    return [ViewSet.parse(name) for name in chosen_names("--sets", names, (view_set.name for view_set in views.sets))]


def _chosen_images(views: ViewsManifest, parts: Sequence[ImagePart], options: ExportOptions) -> Iterator[ImagePart]:
    """Yield the exported images of each generation. A copy goes with the image whose bytes it has."""
    config = stored_config(views.generations[-1].views)
    keys = _read_keys(options.images, parts) if options.images else None
    for part in parts:
        chosen = {
            image.key
            for image in part.images
            if (keys is None or part.copies.get(image.key, image.key) in keys)
            and options.split in ("all", draw_split(part.copies.get(image.key, image.key), config))
        }
        copies = {copy: kept for copy, kept in part.copies.items() if copy in chosen}
        yield ImagePart(images=[image for image in part.images if image.key in chosen], copies=copies)


def _read_keys(file: str, parts: Sequence[ImagePart]) -> set[str]:
    """Read image keys from a file, and refuse those that the cache has no views of."""
    try:
        with fsspec.open(file, "rb") as opened:
            lines = opened.read().decode("utf-8-sig").split("\n")
    except FileNotFoundError as error:
        raise MissingError("--images", [Problem(place=file, found="does not exist")]) from error
    except UnicodeDecodeError as error:
        raise SettingError("--images", [Problem(place=file, found="is not UTF-8", fix="write it as UTF-8")]) from error
    keys = set(filter(None, map(str.strip, lines)))
    if unknown := sorted(keys - {image.key for part in parts for image in part.kept}):
        problems = [Problem(place=key, found="this cache has no views of such an image") for key in unknown]
        fix = "give keys as in the column `image` of tables/images, not those of copies"
        problems = [*first_problems(problems), Problem(place="what to do", found=fix)]
        raise SettingError(f"image keys in {file}", problems)
    return keys


def _rows_per_shard(views: ViewsManifest, view_set: ViewSet, options: ExportOptions) -> int:
    if options.rows_per_shard:
        return options.rows_per_shard
    if options.tokens_per_shard:
        config = replace(stored_config(views.generations[-1].views), tokens_per_shard=options.tokens_per_shard)
        return set_manifest(view_set, [1], config).grid.rows_per_shard
    return views.sets[view_set].grid.rows_per_shard
