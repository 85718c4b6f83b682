"""Which views a run would cut: drawn from a list of images, or expected of a number of images."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import final, get_args

from pipeline.config import Recipe, ViewsConfig
from pipeline.images.listing import SourceImage, list_images
from pipeline.views.evaluation_views import evaluation_sets
from pipeline.views.extension import divide, match_images, under_rules_of
from pipeline.views.generations import plan_views
from pipeline.views.order import DrawnView
from pipeline.views.sampling import draw_views, set_manifest
from pipeline.workers.progress import Say
from storage_schemas.cache import Cache
from storage_schemas.format.manifest import ViewSetManifest, ViewsManifest
from storage_schemas.format.views import Partition, ViewSet


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedViews:
    """Views by set, before any is cut. It is assumed that none is rejected."""

    images: int
    """Images that the views come from, without known copies."""
    shapes: Mapping[ViewSet, ViewSetManifest]
    """Canvas and row slots of each set, in order of name; sets without a view are left out."""
    training: Mapping[ViewSet, tuple[int, ...]]
    """How many training views each generation of a set has; they come first in it."""

    @property
    def split_counts(self) -> dict[ViewSet, tuple[int, int]]:
        """Training and held-out views of each set."""
        trained = {view_set: sum(self.training[view_set]) for view_set in self.shapes}
        return {
            view_set: (trained[view_set], self.shapes[view_set].grid.views - trained[view_set]) for view_set in trained
        }

    def training_views(self, view_set: ViewSet, shard: int) -> int:
        """Return how many training views a shard holds."""
        grid, before = self.shapes[view_set].grid, 0
        drawn, trained = grid.drawn(shard), 0
        for count, training in zip(grid.counts, self.training[view_set], strict=True):
            first, stop = max(drawn.start, before), min(drawn.stop, before + training)
            trained, before = trained + max(0, stop - first), before + count
        return trained


def drawn_views(images: Sequence[SourceImage], config: ViewsConfig) -> PlannedViews:
    """Draw the views of a list of images, as the command `views` would."""
    drawn = draw_views(images, config)
    return PlannedViews(
        images=len(images),
        shapes={view_set: set_manifest(view_set, [len(views)], config) for view_set, views in drawn.items()},
        training={view_set: (_training(views),) for view_set, views in drawn.items()},
    )


def grown_views(
    cache: Cache, manifest: ViewsManifest, recipe: Recipe, data: str, say: Say | None = None
) -> PlannedViews:
    """Draw all views that a cache would have after `views --extend`. No image is opened, so copies are not recognised.

    Args:
        cache: the cache.
        manifest: manifest of its views.
        recipe: the recipe with the new settings.
        data: the images: those of the cache, and new ones.
        say: takes a line about what was passed over in `data`.

    Raises:
        IdentityError: images of the cache are missing from `data`.
        MissingError: there are no images, or a part of the cache's own list is lost.
    """
    recipe = under_rules_of(manifest, recipe)
    listed = list_images(data, recipe.views, cache.store.retries, say)
    images = divide(match_images(cache, manifest, listed, data, extend=True), copies={})
    plan = plan_views(recipe, images, manifest)
    training = {}
    for view_set, shape in plan.manifest.sets.items():
        edges = [0, *accumulate(shape.grid.counts)]
        training[view_set] = tuple(_training(plan.views[view_set][start:stop]) for start, stop in pairwise(edges))
    kept = sum(len(part.kept) for part in images.parts)
    return PlannedViews(images=kept, shapes=plan.manifest.sets, training=training)


def expected_views(images: int, config: ViewsConfig) -> PlannedViews:
    """Return the expected views of a number of images: each set gets its share of all views.

    A set has images × draws × share views, rounded down. The remaining views go, one each, to the sets that lost the
    largest fractions by rounding; among equal fractions, to the first by name. Of each set ⌊views × heldout + ½⌋ are
    held out.

    Args:
        images: number of images, at least 1.
        config: the recipe's settings of views.
    """
    sets_of_a_draw = 1 if config.placing == "drawn" else len(evaluation_sets(config))
    counts = _largest_remainders(images * config.draws * sets_of_a_draw, set_shares(config))
    return PlannedViews(
        images=images,
        shapes={view_set: set_manifest(view_set, [views], config) for view_set, views in counts.items() if views},
        training={view_set: (views - math.floor(views * config.heldout + 0.5),) for view_set, views in counts.items()},
    )


def set_shares(config: ViewsConfig) -> dict[ViewSet, float]:
    """Return the expected share of each view set in all views, in order of name. The shares sum to 1."""
    if config.placing != "drawn":
        sets = evaluation_sets(config)
        return dict.fromkeys(sets, 1 / len(sets))
    high = config.high_share if config.low and config.high else float(bool(config.high))
    of_partition = {"low": 1 - high, "high": high}
    shares = {}
    for partition in get_args(Partition):
        proportions = config.proportions(partition)
        for resolution, weight in proportions.items():
            share = of_partition[partition] * weight / sum(proportions.values())
            shares[ViewSet(partition=partition, resolution=resolution)] = share
    return {view_set: shares[view_set] for view_set in sorted(shares)}


def _training(views: Sequence[DrawnView]) -> int:
    return sum(view.split == "train" for view in views)


def _largest_remainders(total: int, shares: Mapping[ViewSet, float]) -> dict[ViewSet, int]:
    counts = {view_set: math.floor(total * share) for view_set, share in shares.items()}
    left = total - sum(counts.values())
    by_loss = sorted(shares, key=lambda view_set: counts[view_set] - total * shares[view_set])  # stable: then by name
    for view_set in by_loss[:left]:
        counts[view_set] += 1
    return counts
