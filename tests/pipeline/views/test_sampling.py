"""Drawing: proportions, splits and order, which depend on the keys alone."""

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from typing import Literal

import numpy as np
import pytest

from pipeline.config import ViewsConfig
from pipeline.images.listing import SourceImage
from pipeline.views.sampling import (
    DrawBasis,
    DrawnView,
    draw_generations,
    draw_set,
    draw_split,
    draw_views,
    set_manifest,
)
from storage_schemas.format.views import ViewSet

MANY = [f"folder/{number:05d}.jpg" for number in range(5000)]


def images(keys: Sequence[str]) -> list[SourceImage]:
    """A list of images of these keys."""
    return [SourceImage(key=key, uri=f"file:///data/{key}") for key in keys]


def within_chance(count: int, share: float, of: int) -> bool:
    """Whether a count lies within four standard deviations of what its share says."""
    return abs(count - share * of) <= 4 * math.sqrt(of * share * (1 - share))


def test_resolutions_have_the_proportions_of_the_recipe() -> None:
    config = ViewsConfig(low=(128, 256, 384), low_proportions=(1, 2, 5), high=())
    found = Counter(draw_set(key, 0, config).resolution for key in MANY)
    assert all(within_chance(found[side], weight / 8, len(MANY)) for side, weight in ((128, 1), (256, 2), (384, 5)))


def test_resolutions_are_equally_frequent_where_no_proportions_are_given() -> None:
    found = Counter(draw_set(key, 0, ViewsConfig(high=())).resolution for key in MANY)
    assert sorted(found) == [128, 192, 224, 256, 384, 432]
    assert all(within_chance(count, 1 / 6, len(MANY)) for count in found.values())


def test_the_high_partition_gets_its_share() -> None:
    high = sum(draw_set(key, 0, ViewsConfig()).partition == "high" for key in MANY)
    assert within_chance(high, 1 / 9, len(MANY))


@pytest.mark.parametrize("partition", ["low", "high"])
def test_a_recipe_with_one_partition_gives_it_every_view(partition: str) -> None:
    config = ViewsConfig(high=()) if partition == "low" else ViewsConfig(low=())
    assert {draw_set(key, 0, config).partition for key in MANY[:500]} == {partition}


def test_the_share_of_held_out_images_is_that_of_the_recipe() -> None:
    heldout = sum(draw_split(key, ViewsConfig(heldout=0.2)) == "heldout" for key in MANY)
    assert within_chance(heldout, 0.2, len(MANY))


def test_all_views_of_an_image_are_in_one_split() -> None:
    splits: dict[str, set[str]] = {}
    for views in draw_views(images(MANY[:300]), ViewsConfig(draws=5, heldout=0.3)).values():
        for view in views:
            splits.setdefault(view.image.key, set()).add(view.split)
    assert {len(found) for found in splits.values()} == {1}
    assert set.union(*splits.values()) == {"train", "heldout"}


def test_every_draw_of_every_image_is_in_one_set_once() -> None:
    drawn = draw_views(images(MANY[:300]), ViewsConfig(draws=3))
    found = Counter((view.image.key, view.draw) for views in drawn.values() for view in views)
    assert found == Counter((key, draw) for key in MANY[:300] for draw in range(3))


def test_the_order_of_the_images_makes_no_difference() -> None:
    config = ViewsConfig(draws=2)
    assert draw_views(images(MANY[:300]), config) == draw_views(images(MANY[:300][::-1]), config)


def test_the_views_of_an_image_do_not_depend_on_the_other_images() -> None:
    config = ViewsConfig(draws=2)
    alone = draw_views(images(MANY[:1]), config)
    among = draw_views(images(MANY[:300]), config)
    assert all(view in among[view_set] for view_set, views in alone.items() for view in views)


def test_another_seed_draws_every_split_partition_and_resolution_anew() -> None:
    first, second = (ViewsConfig(seed=seed, heldout=0.5, high_share=0.5) for seed in (0, 1))
    assert 0.4 < np.mean([draw_split(key, first) == draw_split(key, second) for key in MANY[:1000]]) < 0.6
    pairs = [(draw_set(key, 0, first), draw_set(key, 0, second)) for key in MANY[:1000]]
    assert 0.4 < np.mean([before.partition == after.partition for before, after in pairs]) < 0.6
    low = [(before, after) for before, after in pairs if before.partition == after.partition == "low"]
    assert np.mean([before.resolution == after.resolution for before, after in low]) < 1 / 6 + 0.1, "one of six"


def test_another_seed_orders_a_set_anew() -> None:
    orders = []
    for seed in (0, 1):
        [views] = draw_views(images(MANY[:1000]), ViewsConfig(low=(128,), high=(), heldout=0, seed=seed)).values()
        orders.append([view.image.key for view in views])
    assert sorted(orders[0]) == sorted(orders[1])
    places = [[order.index(key) for key in MANY[:1000]] for order in orders]
    assert abs(np.corrcoef(places)[0, 1]) < 0.1


def test_training_views_come_first_in_every_set() -> None:
    for views in draw_views(images(MANY[:300]), ViewsConfig(heldout=0.3)).values():
        splits = [view.split for view in views]
        assert splits == sorted(splits, reverse=True), "train sorts after heldout"


def test_neighbours_in_a_set_are_unrelated() -> None:
    config = ViewsConfig(low=(128,), high=(), heldout=0)
    [views] = draw_views(images(MANY[:1000]), config).values()
    places = [MANY.index(view.image.key) for view in views]
    mean_step = sum(abs(after - before) for before, after in itertools.pairwise(places)) / 999
    assert 300 < mean_step < 367, "a third of the list, as between any two numbers"


@pytest.mark.parametrize("order", ["images", "views"])
def test_views_of_the_same_image_are_not_neighbours(order: Literal["images", "views"]) -> None:
    config = ViewsConfig(low=(128,), high=(), heldout=0, draws=8, order=order)
    [views] = draw_views(images(MANY[:100]), config).values()
    together = sum(view.image == following.image for view, following in itertools.pairwise(views))
    assert together < 25, "7 of 799 neighbours by chance"


def test_sets_are_in_order_of_name_and_sets_without_views_are_left_out() -> None:
    config = ViewsConfig(low=(128, 256), high=(512,), high_share=0)
    assert list(draw_views(images(MANY[:200]), config)) == [
        ViewSet(partition="low", resolution=128),
        ViewSet(partition="low", resolution=256),
    ]


def test_these_draws_are_the_same_in_every_release() -> None:
    # another release may finish a cache: these values are part of the format
    config = ViewsConfig(draws=2, heldout=0.6, high_share=0.4, order="views")
    drawn = draw_views(images(["a.jpg", "b/c.png", "ünï.webp"]), config)
    found = [
        (view_set.name, view.image.key, view.draw, view.split) for view_set, views in drawn.items() for view in views
    ]
    assert found == [
        ("high-768", "ünï.webp", 1, "train"),
        ("high-768", "a.jpg", 1, "heldout"),
        ("low-128", "a.jpg", 0, "heldout"),
        ("low-192", "b/c.png", 1, "heldout"),
        ("low-432", "ünï.webp", 0, "train"),
        ("low-432", "b/c.png", 0, "heldout"),
    ]


def test_many_draws_are_the_same_in_every_release() -> None:
    drawn = draw_views(images(MANY[:500]), ViewsConfig(draws=2, heldout=0.5, high_share=0.4, order="views"))
    text = repr(
        [(view_set.name, view.image.key, view.draw, view.split) for view_set, views in drawn.items() for view in views]
    )
    assert sha256(text.encode()).hexdigest() == "abc1b01775e0febed33c6cb42363717e5dcc61441c3933c9f1cfd33b10a14299"


def test_a_generation_adds_the_views_that_no_earlier_one_holds() -> None:
    keys = MANY[:90]
    settings = [
        ViewsConfig(low=(128,), high=(), heldout=0, draws=2),
        ViewsConfig(low=(128, 256), high=(), heldout=0, draws=2),
        ViewsConfig(low=(128, 256), high=(), heldout=0, draws=3),
        ViewsConfig(low=(128,), high=(), heldout=0, draws=3),
    ]
    bases = [
        DrawBasis(images=images(keys[30 * number : 30 * number + 30]), config=config)
        for number, config in enumerate(settings)
    ]
    held: set[tuple[str, str, int]] = set()
    for number, config in enumerate(settings):
        added = {
            (view_set.name, view.image.key, view.draw)
            for view_set, generations in draw_generations(bases[: number + 1]).items()
            for view in generations[number]
        }
        wanted = {
            (draw_set(key, draw, config).name, key, draw)
            for key in keys[: 30 * number + 30]
            for draw in range(config.draws)
        }
        assert added == wanted - held
        held |= added
    assert len(held) == 401


# how many windows of each resolution fit into a mosaic of 72 × 72 tokens
PER_MOSAIC = {128: 81, 192: 36, 224: 25, 256: 16, 384: 9, 432: 4, 512: 4, 768: 1, 1024: 1, 1152: 1}


@pytest.mark.parametrize(("resolution", "windows"), PER_MOSAIC.items())
def test_a_shard_holds_whole_mosaics_of_about_the_tokens_asked_for(resolution: int, windows: int) -> None:
    view_set = ViewSet(partition="low", resolution=resolution)
    manifest = set_manifest(view_set, [100_000], ViewsConfig())
    slots, tokens = manifest.grid.rows_per_shard, (resolution // 16) ** 2
    assert slots % windows == 0
    assert abs(slots * tokens - 32768) <= windows * tokens / 2
    assert (manifest.grid.rows, manifest.geometry.side) == (100_000, resolution + 32)


def test_a_shard_holds_at_least_a_mosaic() -> None:
    manifest = set_manifest(ViewSet(partition="low", resolution=128), [10], ViewsConfig(tokens_per_shard=1))
    assert manifest.grid.rows_per_shard == 81


def test_shards_need_not_fill_mosaics_where_no_canvas_teacher_comes() -> None:
    config = ViewsConfig(tokens_per_shard=640, canvas_tokens=0)
    assert set_manifest(ViewSet(partition="low", resolution=128), [100], config).grid.rows_per_shard == 10


def test_windows_as_large_as_a_canvas_fill_a_mosaic_each() -> None:
    config = ViewsConfig(tokens_per_shard=3072, canvas_tokens=32)
    assert set_manifest(ViewSet(partition="low", resolution=512), [100], config).grid.rows_per_shard == 3


def test_windows_larger_than_a_canvas_do_not_change_its_shards() -> None:
    config = ViewsConfig(tokens_per_shard=2000, canvas_tokens=24)
    assert set_manifest(ViewSet(partition="low", resolution=512), [100], config).grid.rows_per_shard == 2
    three = ViewsConfig(tokens_per_shard=3072, canvas_tokens=24)
    assert set_manifest(ViewSet(partition="low", resolution=512), [100], three).grid.rows_per_shard == 3


def test_a_drawn_view_names_its_image() -> None:
    [image] = images(["a.jpg"])
    [[view]] = draw_views([image], ViewsConfig(heldout=0)).values()
    assert view == DrawnView(image=image, draw=0, split="train")
