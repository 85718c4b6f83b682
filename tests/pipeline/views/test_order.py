"""The order of a set: the draws of an image lie in shards that are cut together, and never in the same one."""

import math
from collections import Counter, defaultdict
from hashlib import sha256
from itertools import combinations, groupby, pairwise

import numpy as np
import pytest

from pipeline.config import ViewsConfig
from pipeline.images.listing import SourceImage
from pipeline.views.order import DrawnView, image_rank
from pipeline.views.sampling import DrawBasis, draw_generations, draw_views, set_manifest
from storage_schemas.format.layout import ShardGrid
from storage_schemas.format.views import ViewSet
from storage_schemas.row_ranges import row_ranges
from trainer.data.order import rule_of
from trainer.data.order_types import Order, ShuffledSet
from trainer.settings.running import OrderRule

SMALL = {"low": (64,), "high": (), "canvas_tokens": 0, "tokens_per_shard": 160, "heldout": 0.2}
"""One set, in shards of ten views."""


def images(count: int) -> list[SourceImage]:
    """Images with keys of their own."""
    return [SourceImage(key=f"{number:05d}.jpg", uri=f"file:///{number:05d}.jpg") for number in range(count)]


def one_set(count: int, **settings: object) -> tuple[list[DrawnView], ShardGrid]:
    """The views of images in one set, in order, and the set's shards."""
    config = ViewsConfig(**{**SMALL, **settings})  # type: ignore[arg-type]
    [(view_set, views)] = draw_views(images(count), config).items()
    return views, set_manifest(view_set, [len(views)], config).grid


def by_shard(views: list[DrawnView], grid: ShardGrid) -> list[list[DrawnView]]:
    """The views of each shard."""
    return [views[grid.drawn(shard).start : grid.drawn(shard).stop] for shard in range(grid.shards)]


@pytest.mark.parametrize("draws", [2, 5, 12])
def test_no_shard_holds_two_draws_of_an_image(draws: int) -> None:
    views, grid = one_set(300, draws=draws)
    for shard in by_shard(views, grid):
        assert max(Counter(view.image.key for view in shard).values()) == 1


def test_where_a_set_has_fewer_shards_than_draws_they_are_spread_as_evenly_as_can_be() -> None:
    views, grid = one_set(10, draws=12, heldout=0)
    assert grid.shards == 12
    views, grid = one_set(5, draws=12, heldout=0)
    for key in {view.image.key for view in views}:
        counts = [sum(view.image.key == key for view in shard) for shard in by_shard(views, grid)]
        assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("draws", [2, 5, 12])
def test_the_draws_of_an_image_lie_within_two_groups_of_shards(draws: int) -> None:
    views, grid = one_set(400, draws=draws)
    places = defaultdict(set)
    for number, shard in enumerate(by_shard(views, grid)):
        for view in shard:
            places[view.image.key].add(number)
    assert max(max(found) - min(found) for found in places.values()) <= 2 * (2 * draws - 1)
    assert grid.shards > 8 * draws, "else they could not lie farther apart"


@pytest.mark.parametrize("count", [1, 9, 60, 301])
def test_training_views_come_first_and_in_each_shard_images_are_in_order(count: int) -> None:
    views, grid = one_set(count, draws=4, heldout=0.3)
    splits = [view.split for view in views]
    assert splits == sorted(splits, reverse=True), "train sorts after heldout"
    for shard in by_shard(views, grid):
        ranks = [image_rank(view, 0) for view in shard]
        walks = 1 + sum(after < before for before, after in pairwise(ranks))
        assert walks == 1 if count > 50 else walks <= 4
    assert len({(view.image.key, view.draw) for view in views}) == len(views) == 4 * count


@pytest.mark.parametrize(("count", "draws"), [(100, 8), (101, 8), (120, 12)])
def test_a_mosaic_holds_draws_of_an_image_no_more_often_than_chance(count: int, draws: int) -> None:
    config = ViewsConfig(low=(128,), high=(), heldout=0, draws=draws)
    [views] = draw_views(images(count), config).values()
    assert len(views) // 486 < draws, "an image has draws twice in a shard"
    mosaics = [views[first : first + 81] for first in range(0, len(views) - 80, 81)]
    together = [
        sum(math.comb(found, 2) for found in Counter(view.image.key for view in mosaic).values()) for mosaic in mosaics
    ]
    assert np.mean(together) <= math.comb(81, 2) * (draws - 1) / (len(views) - 1)


def test_with_one_draw_both_rules_give_the_same_order() -> None:
    assert draw_views(images(200), ViewsConfig(heldout=0.3)) == draw_views(
        images(200), ViewsConfig(heldout=0.3, order="views")
    )


def test_every_generation_spreads_its_own_draws() -> None:
    settings = [ViewsConfig(**{**SMALL, "draws": draws}) for draws in (3, 7)]  # type: ignore[arg-type]
    bases = [DrawBasis(images=images(200), config=settings[0]), DrawBasis(images=(), config=settings[1])]
    [(view_set, generations)] = draw_generations(bases).items()
    assert [len(views) for views in generations] == [600, 800]
    grid = set_manifest(view_set, map(len, generations), settings[1]).grid
    for shard in by_shard([view for views in generations for view in views], grid):
        assert max(Counter(view.image.key for view in shard).values()) == 1


@pytest.mark.parametrize("rule", ["permutation", "table"])
@pytest.mark.parametrize(("count", "batch", "window"), [(200, 16, 3), (60, 32, 4), (30, 8, 2), (8, 8, 2)])
def test_a_batch_holds_two_draws_of_an_image_no_more_often_than_chance(
    count: int, batch: int, window: int, rule: OrderRule
) -> None:
    views, grid = one_set(count, draws=12, heldout=0)
    image, view_set = np.array([view.image.key for view in views]), ViewSet(partition="low", resolution=64)
    rows = row_ranges([0], [len(views)])
    shuffled_set = ShuffledSet(rows=rows, rows_per_shard=grid.rows_per_shard, proportion=1.0)
    drawn = rule_of(
        Order(seed=0, sets={view_set: shuffled_set}, batches={"low": batch}, window_shards=window, rule=rule)
    )
    epochs = 40
    together = []
    for epoch in range(epochs):
        of_image = image[drawn.rows(view_set, epoch, np.arange(len(views)))]
        batches = [of_image[first : first + batch] for first in range(0, len(of_image) - batch + 1, batch)]
        together.append(sum(math.comb(found, 2) for keys in batches for found in Counter(keys.tolist()).values()))
    pairs = (len(views) // batch) * math.comb(batch, 2)
    by_chance = pairs * (12 - 1) / (len(views) - 1)
    error = np.std(together) / math.sqrt(epochs)
    assert np.mean(together) <= by_chance + 3 * error
    clustered = sum(a == b for group in _blocks(image, grid.rows_per_shard) for a, b in combinations(group, 2))
    spread = sum(math.comb(len(list(found)), 2) for _, found in groupby(np.sort(image)))
    assert clustered / spread <= (grid.rows_per_shard - 1) / (len(views) - 1), "of pairs in one shard"


def _blocks(image: np.ndarray, size: int) -> list[list[str]]:
    return [image[first : first + size].tolist() for first in range(0, len(image), size)]


def test_this_order_is_the_same_in_every_release() -> None:
    # another release may finish a cache: these values are part of the format
    views, _ = one_set(7, draws=3, heldout=0.5)
    many, _ = one_set(200, draws=5)
    names = [f"{view.image.key[4]}{view.draw}{view.split[0]}" for view in views]
    assert " ".join(names) == "30t 20t 31t 61t 21t 11t 32t 62t 22t 12t 60t 10t 50h 00h 51h 41h 01h 52h 42h 02h 40h"
    text = repr([(view.image.key, view.draw, view.split) for view in many])
    assert sha256(text.encode()).hexdigest() == "df4df56fd4489bcb50485a9c53701ca03a576debe555909de3190e06f29d0126"
