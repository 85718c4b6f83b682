"""The order of the views of a set: in which row slot each of them lies.

Training views come first. Then one of two rules holds (`ViewsConfig.order`):

- `views`: each split is sorted by hash of image and draw, so the draws of an image lie anywhere in the set.
- `images`: each split is sorted by hash of the image, and that sequence is dealt in turn to the shards of a group: the
  first view to the first shard, the second to the second, and so on, and from the last shard to the first again. A
  group has at least as many whole shards as an image has draws in the set.

Under `images`, a worker that cuts a group meets each of its images once, and no shard holds two draws of an image. A
trainer shuffles rows of shards that it picked at random, so two draws of an image come into one batch no more often
than two views of any images do. A mosaic holds no two draws of an image, because its views come from one shard.

Where a set has fewer whole shards than an image has draws, it is one group, and it is dealt in walks: each walk passes
all images, and takes from each as many draws as there are whole shards. So draws of an image in one shard are a walk
apart, and mosaics do not collect them. Its images are decoded once a walk.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice, pairwise
from operator import attrgetter, itemgetter
from typing import final

from pipeline.config import ViewsConfig
from pipeline.images.listing import SourceImage
from storage_schemas.format.seeds import digest_of
from storage_schemas.format.views import Split

ImageRank = tuple[bool, bytes]
"""Place of an image in the order of a cache, the same in all of its sets: the split, then a hash of the image."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnView:
    """A view that is to be cut."""

    image: SourceImage
    draw: int
    """Number of the view among those of its image: 0 … draws − 1."""
    split: Split


def image_rank(view: DrawnView, seed: int) -> ImageRank:
    """Return the place of a view's image; see `rank_of`."""
    return rank_of(view.image.key, view.split, seed)


def rank_of(image: str, split: str, seed: int) -> ImageRank:
    """Return the place of an image, from its key and its split. It is that of its first draw under the rule `views`."""
    return split == "heldout", digest_of((seed, image, 0, "order"))


def in_order(views: Sequence[DrawnView], config: ViewsConfig, rows_per_shard: int) -> list[DrawnView]:
    """Return the views that a generation adds to a set in the order of their row slots.

    Args:
        views: the views, in any order.
        config: the seed and the rule.
        rows_per_shard: row slots in a shard; a generation begins in a new shard.
    """
    if config.order == "views":
        return sorted(views, key=lambda view: _view_rank(view, config.seed))
    ranks = {view.image.key: image_rank(view, config.seed) for view in views}
    ranked = sorted(views, key=lambda view: (ranks[view.image.key], view.draw))
    training = sum(view.split == "train" for view in ranked)
    heldout = _dealt(ranked[training:], training, rows_per_shard)
    return [*_dealt(ranked[:training], 0, rows_per_shard), *heldout]


def _view_rank(view: DrawnView, seed: int) -> ImageRank:
    return view.split == "heldout", digest_of((seed, view.image.key, view.draw, "order"))


def _dealt(views: Sequence[DrawnView], first: int, rows_per_shard: int) -> list[DrawnView]:
    """Deal views, sorted by image, to shards.

    Args:
        views: the views of one split.
        first: the row slot, counted from the start of the generation, of the first of them.
        rows_per_shard: row slots in a shard.

    Returns:
        The views in the order of their row slots.
    """
    shards = _shards_of(range(first, first + len(views)), rows_per_shard)
    whole = max(sum(len(slots) == rows_per_shard for slots in shards), 1)
    walks = [
        draw // whole for _, of_image in groupby(views, attrgetter("image.key")) for draw, _ in enumerate(of_image)
    ]
    dealt = iter(sorted(zip(walks, views, strict=True), key=itemgetter(0)))  # stable: images keep their order in a walk
    draws = max(Counter(view.image.key for view in views).values(), default=1)
    view_of = dict[int, DrawnView]()
    for group in _groups(shards, rows_per_shard, draws):
        of_group = list(islice(dealt, sum(map(len, group))))
        slots = _in_turn(group, [walk for walk, _ in of_group])
        view_of |= {slot: view for slot, (_, view) in zip(slots, of_group, strict=True)}
    return [view_of[slot] for slot in range(first, first + len(views))]


def _shards_of(slots: range, rows_per_shard: int) -> list[range]:
    """Divide row slots into those of each shard."""
    starts = range(slots.start // rows_per_shard * rows_per_shard, slots.stop, rows_per_shard)
    return [range(max(start, slots.start), min(start + rows_per_shard, slots.stop)) for start in starts]


def _groups(shards: Sequence[range], rows_per_shard: int, fewest: int) -> Iterator[Sequence[range]]:
    """Divide shards into groups of at least `fewest` whole ones, as even as can be; one group where there are fewer."""
    whole = [number for number, slots in enumerate(shards) if len(slots) == rows_per_shard]
    count = max(1, len(whole) // fewest)
    begins = [0, *(whole[len(whole) * group // count] for group in range(1, count)), len(shards)]
    return (shards[begin:end] for begin, end in pairwise(begins))


def _in_turn(shards: Sequence[range], walks: Sequence[int]) -> Iterator[int]:
    """Yield the row slot of each view: the next free one of each shard in turn.

    A walk begins with the shard of its number: else a number of images that is a multiple of the shards would bring
    each image to the same shard in every walk.
    """
    free, turn, walk = [iter(slots) for slots in shards], 0, 0
    left = [len(slots) for slots in shards]
    for number in walks:
        if number != walk:
            turn = walk = number
        while not left[turn % len(shards)]:
            turn += 1
        left[turn % len(shards)] -= 1
        yield next(free[turn % len(shards)])
        turn += 1
