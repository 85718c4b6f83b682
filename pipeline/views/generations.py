"""Planning the views of a cache: all that it was made with, and all that was added or is to be added since."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

from pipeline.config import Recipe, views_settings
from pipeline.views.extension import ImageParts, stored_config, views_identity
from pipeline.views.image_parts import ImagePart
from pipeline.views.sampling import DrawBasis, DrawnView, draw_generations, set_manifest
from storage_schemas.format.errors import ContractError, Problem
from storage_schemas.format.layout import ShardGrid
from storage_schemas.format.manifest import Generation, ViewSetManifest, ViewsManifest
from storage_schemas.format.views import ViewSet


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ViewsPlan:
    """Everything that is to be cut."""

    manifest: ViewsManifest
    views: Mapping[ViewSet, Sequence[DrawnView]]
    """Of each set, generation after generation."""
    images: ImageParts
    """The whole list, copies too."""


def plan_views(recipe: Recipe, images: ImageParts, made: ViewsManifest | None) -> ViewsPlan:
    """Draw every view of every generation of images. Copies are as if they were not there.

    Args:
        recipe: what is drawn now.
        images: the images of each generation.
        made: the manifest of what there is already; None for nothing.

    Raises:
        ContractError: what there is was not drawn as this version draws.
    """
    before = () if made is None else made.generations
    settings = [stored_config(one.views) for one in before]
    parts = list(images.parts)
    if len(parts) > len(before) or recipe.views != settings[-1]:
        settings.append(recipe.views)
        parts += [ImagePart(images=(), copies={})] * (len(settings) - len(parts))
    bases = [DrawBasis(images=part.kept, config=one) for part, one in zip(parts, settings, strict=True)]
    drawn = draw_generations(bases)
    said = [
        Generation(views=views_settings(one.config), images=part.identity)
        for one, part in zip(bases, parts, strict=True)
    ]
    identity = {**views_identity(recipe), "views": said[0].views, "images": said[0].images}
    sets = {view_set: set_manifest(view_set, map(len, views), recipe.views) for view_set, views in drawn.items()}
    manifest = ViewsManifest(identity=identity, sets=sets, extensions=tuple(said[1:]))
    if made is not None:
        _require_grown(made, manifest)
    unwritten = (*images.unwritten, *range(len(images.parts), len(parts)))
    views = {view_set: [view for views in added for view in views] for view_set, added in drawn.items()}
    return ViewsPlan(manifest=manifest, views=views, images=ImageParts(parts=tuple(parts), unwritten=unwritten))


def _require_grown(made: ViewsManifest, grown: ViewsManifest) -> None:
    """Refuse to go on where the views that are there already would be others now."""
    generations = len(made.generations)
    before = {view_set: replace(one, grid=one.grid.first(generations)) for view_set, one in grown.sets.items()}
    if {view_set: one for view_set, one in before.items() if one.grid.views} != dict(made.sets):
        found = "its view sets are not those that its settings and its image list give"
        fix = "use the version of Stillhouse that made this cache"
        raise ContractError("views", [Problem(place="features.zarr/views/zarr.json", found=found, fix=fix)])


Drawn = Mapping[ViewSet, Sequence[Sequence[DrawnView]]]
"""Views by set and generation, sets in order of name."""


def redraw(manifest: ViewsManifest, parts: Sequence[ImagePart]) -> Drawn:
    """Draw the views of every generation.

    An export has just what its images give in the sets that it took. Partition, resolution, split and order of a view
    do not depend on which other images there are, so these are views of the cache that it came from, in the same order.

    Args:
        manifest: of the views.
        parts: the images that each generation brought.

    Raises:
        ContractError: the settings are not those of this version.
    """
    settings = [stored_config(generation.views) for generation in manifest.generations]
    bases = [DrawBasis(images=part.kept, config=one) for part, one in zip(parts, settings, strict=True)]
    drawn = draw_generations(bases)
    if not manifest.exported:
        return drawn
    taken = manifest.identity["export"]["sets"]
    return {view_set: views for view_set, views in drawn.items() if view_set.name in taken}


def implied_sets(manifest: ViewsManifest, drawn: Drawn) -> dict[ViewSet, ViewSetManifest]:
    """Return the shapes of the view sets that a manifest's settings and its drawn views imply."""
    settings = stored_config(manifest.generations[-1].views)
    sets = {view_set: set_manifest(view_set, map(len, views), settings) for view_set, views in drawn.items()}
    if not manifest.exported:
        return sets
    rows = manifest.identity["export"]["sets"]
    return {view_set: _in_shards_of(shape, rows[view_set.name]) for view_set, shape in sets.items()}


def _in_shards_of(shape: ViewSetManifest, rows: int) -> ViewSetManifest:
    return replace(shape, grid=ShardGrid(counts=shape.grid.counts, rows_per_shard=rows))
