"""The views that a run would cut: drawn from a list of images, or expected of a number of images."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final, get_args

from pipeline.config import ViewsConfig
from pipeline.draw import draw_views, set_manifest
from pipeline.image_list import SourceImage
from storage_schemas.manifest import ViewSetManifest
from storage_schemas.views import Partition, ViewSet


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedViews:
    """Views by set, before any is cut. None is taken for rejected."""

    images: int
    """Images that they come from."""
    shapes: Mapping[ViewSet, ViewSetManifest]
    """Canvas and row slots of each set, in order of name; sets without a view are left out."""
    training: Mapping[ViewSet, int]
    """Training views of each set: they fill its first row slots."""

    def training_views(self, view_set: ViewSet, shard: int) -> int:
        """Return how many training views a shard holds."""
        slots = self.shapes[view_set].grid.slots(shard)
        return max(0, min(slots.stop, self.training[view_set]) - slots.start)


def drawn_views(images: Sequence[SourceImage], config: ViewsConfig) -> PlannedViews:
    """Draw the views of a list of images, as `views` would."""
    drawn = draw_views(images, config)
    return PlannedViews(
        images=len(images),
        shapes={view_set: set_manifest(view_set, [len(views)], config) for view_set, views in drawn.items()},
        training={view_set: sum(view.split == "train" for view in views) for view_set, views in drawn.items()},
    )


def expected_views(images: int, config: ViewsConfig) -> PlannedViews:
    """Return what so many images would give if every draw fell out as often as its share says.

    Each set has images × draws × share views, rounded down. The views that are left over go one each to the sets that
    lost the largest fractions; of equal ones, to the first by name. Of each set ⌊views × heldout + ½⌋ are held out.

    Args:
        images: how many, at least 1.
        config: the recipe's.
    """
    counts = _largest_remainders(images * config.draws, set_shares(config))
    return PlannedViews(
        images=images,
        shapes={view_set: set_manifest(view_set, [views], config) for view_set, views in counts.items() if views},
        training={view_set: rows - math.floor(rows * config.heldout + 0.5) for view_set, rows in counts.items()},
    )


def set_shares(config: ViewsConfig) -> dict[ViewSet, float]:
    """Return the share of all views that each view set gets on average, in order of name; they sum to 1."""
    high = config.high_share if config.low and config.high else float(bool(config.high))
    of_partition = {"low": 1 - high, "high": high}
    shares = {}
    for partition in get_args(Partition):
        proportions = config.proportions(partition)
        for resolution, weight in proportions.items():
            share = of_partition[partition] * weight / sum(proportions.values())
            shares[ViewSet(partition=partition, resolution=resolution)] = share
    return {view_set: shares[view_set] for view_set in sorted(shares)}


def _largest_remainders(total: int, shares: Mapping[ViewSet, float]) -> dict[ViewSet, int]:
    counts = {view_set: math.floor(total * share) for view_set, share in shares.items()}
    left = total - sum(counts.values())
    by_loss = sorted(shares, key=lambda view_set: counts[view_set] - total * shares[view_set])  # stable: then by name
    for view_set in by_loss[:left]:
        counts[view_set] += 1
    return counts
