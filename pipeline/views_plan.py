"""Planning the views of a cache: all that it was made with, and all that was added or is to be added since."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

from pipeline.config import Recipe, views_settings
from pipeline.draw import DrawBasis, DrawnView, draw_generations, set_manifest
from pipeline.extension import ImageParts, stored_config, views_identity
from pipeline.image_parts import ImagePart
from storage_schemas.errors import ContractError, Problem
from storage_schemas.manifest import Generation, ViewsManifest
from storage_schemas.views import ViewSet


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
