"""Drawing again the views that a cache has, from what it says of itself: its settings and its image list."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pipeline.draw import DrawBasis, DrawnView, draw_generations, set_manifest
from pipeline.extension import stored_config
from pipeline.image_parts import ImagePart
from storage_schemas.layout import ShardGrid
from storage_schemas.manifest import ViewSetManifest, ViewsManifest
from storage_schemas.views import ViewSet

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
