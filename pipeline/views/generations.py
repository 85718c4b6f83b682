"""Planning the views of a cache, generation by generation: those it was made with, and those each extension adds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

from pipeline.config import Recipe, ViewsConfig, views_settings
from pipeline.views.extension import MANIFEST, ImageParts, stored_config, views_identity
from pipeline.views.image_parts import ImagePart
from pipeline.views.order import DrawnView
from pipeline.views.sampling import DrawBasis, draw_generations, set_manifest
from storage_schemas.format.errors import ContractError, Problem
from storage_schemas.format.layout import ShardGrid
from storage_schemas.format.manifest import Generation, ViewSetManifest, ViewsManifest
from storage_schemas.format.views import ViewSet

Drawn = Mapping[ViewSet, Sequence[Sequence[DrawnView]]]
"""Views by set and generation, sets in order of name."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ViewsPlan:
    """All views that a cache is to hold, those that it holds already included."""

    manifest: ViewsManifest
    """The manifest that describes them."""
    views: Mapping[ViewSet, Sequence[DrawnView]]
    """Views of each set, generation after generation."""
    images: ImageParts
    """The whole image list, copies included."""


def plan_views(
    recipe: Recipe, images: ImageParts, stored: ViewsManifest | None, passed_over: Mapping[str, int] | None = None
) -> ViewsPlan:
    """Draw the views of every generation of images. Nothing is drawn from copies.

    Args:
        recipe: decides what is drawn now.
        images: the images of each generation.
        stored: the manifest of the cache; None before any view was cut.
        passed_over: what the listing of the images passed over, by kind.

    Raises:
        ContractError: the views of the cache are not those that this version draws.
    """
    settings = [] if stored is None else [stored_config(generation.views) for generation in stored.generations]
    parts = list(images.parts)
    if len(parts) > len(settings) or recipe.views != settings[-1]:  # new images or new settings: one more generation
        settings.append(recipe.views)
        parts += [ImagePart(images=(), copies={})] * (len(settings) - len(parts))
    drawn = _draw(parts, settings)
    generations = [
        Generation(views=views_settings(config), images=part.identity)
        for config, part in zip(settings, parts, strict=True)
    ]
    identity = {**views_identity(recipe), "views": generations[0].views, "images": generations[0].images}
    sets = {view_set: set_manifest(view_set, map(len, views), recipe.views) for view_set, views in drawn.items()}
    grows = stored is None or len(generations) > len(stored.generations)
    counts = passed_over if grows or stored is None else stored.passed_over
    manifest = ViewsManifest(identity=identity, sets=sets, extensions=tuple(generations[1:]), passed_over=counts)
    if stored is not None:
        _require_grown(stored, manifest)
    unwritten = (*images.unwritten, *range(len(images.parts), len(parts)))
    views = {view_set: [view for added in generations for view in added] for view_set, generations in drawn.items()}
    return ViewsPlan(manifest=manifest, views=views, images=ImageParts(parts=tuple(parts), unwritten=unwritten))


def total_views(manifest: ViewsManifest) -> int:
    """Return how many views were drawn, over all sets."""
    return sum(shape.grid.views for shape in manifest.sets.values())


def redraw(manifest: ViewsManifest, parts: Sequence[ImagePart]) -> Drawn:
    """Draw the views of every generation again.

    An export holds what its images give in the sets that were exported. Partition, resolution and split of a view do
    not depend on the other images, so these are the views of the cache that it came from. Their order may be another:
    under the order `images` the draws of an image are spread over the shards of the export.

    Args:
        manifest: of the views.
        parts: the images that each generation added.

    Raises:
        ContractError: another version wrote the settings.
    """
    if not manifest.exported:
        return redraw_exported(manifest, parts, None)
    return redraw_exported(manifest, parts, manifest.identity["export"]["sets"])


def redraw_exported(manifest: ViewsManifest, parts: Sequence[ImagePart], rows: Mapping[str, int] | None) -> Drawn:
    """Draw the views of an export: some images of a cache, in some of its sets.

    Args:
        manifest: of the cache, or of the export.
        parts: the images of each generation.
        rows: row slots in a shard of each set, by the names of the sets that are exported; None for all sets, in shards
            as the settings have them.
    """
    drawn = _draw(parts, [stored_config(generation.views) for generation in manifest.generations], rows)
    return {view_set: views for view_set, views in drawn.items() if rows is None or view_set.name in rows}


def implied_sets(manifest: ViewsManifest, drawn: Drawn) -> dict[ViewSet, ViewSetManifest]:
    """Return the shapes of the view sets that a manifest's settings and its drawn views imply."""
    settings = stored_config(manifest.generations[-1].views)
    sets = {view_set: set_manifest(view_set, map(len, views), settings) for view_set, views in drawn.items()}
    if not manifest.exported:
        return sets
    rows = manifest.identity["export"]["sets"]
    return {view_set: _with_shards_of(shape, rows[view_set.name]) for view_set, shape in sets.items()}


def _draw(
    parts: Sequence[ImagePart], settings: Sequence[ViewsConfig], rows: Mapping[str, int] | None = None
) -> dict[ViewSet, list[list[DrawnView]]]:
    bases = [DrawBasis(images=part.kept, config=config) for part, config in zip(parts, settings, strict=True)]
    return draw_generations(bases, rows)


def _require_grown(stored: ViewsManifest, grown: ViewsManifest) -> None:
    """Refuse to add views where the views of the cache are not those that this version draws."""
    generations = len(stored.generations)
    before = {view_set: replace(shape, grid=shape.grid.first(generations)) for view_set, shape in grown.sets.items()}
    if {view_set: shape for view_set, shape in before.items() if shape.grid.views} != dict(stored.sets):
        found = "its view sets are not those that its settings and its image list give"
        fix = "use the version of Stillhouse that made this cache"
        raise ContractError("views", [Problem(place=MANIFEST, found=found, fix=fix)])


def _with_shards_of(shape: ViewSetManifest, rows: int) -> ViewSetManifest:
    return replace(shape, grid=ShardGrid(counts=shape.grid.counts, rows_per_shard=rows))
