"""Evaluation views: every image at every resolution, at a place that its size alone decides."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import ViewsConfig
from pipeline.images.listing import SourceImage
from pipeline.plan.forecast import drawn_views, expected_views
from pipeline.recipes import recipe_of
from pipeline.recipes.choice import choose
from pipeline.views.crop import draw_crop
from pipeline.views.sampling import DrawBasis, draw_generations, draw_views
from storage_schemas.format.errors import SettingError

CENTRE = replace(recipe_of("evaluation").views, low=(64, 128), high=(256,))
WINDOWS = replace(CENTRE, placing="windows", draws=3, max_aspect=3)
IMAGES = [SourceImage(key=f"{number}.png", uri=f"/{number}.png") for number in range(40)]


@pytest.mark.parametrize(("config", "draws"), [(CENTRE, 1), (WINDOWS, 3)])
def test_every_image_is_in_every_view_set_as_often_as_it_has_windows(config: ViewsConfig, draws: int) -> None:
    drawn = draw_views(IMAGES, config)
    assert [view_set.name for view_set in drawn] == ["high-256", "low-64", "low-128"]
    for views in drawn.values():
        assert Counter((view.image.key, view.draw) for view in views) == Counter(
            (image.key, draw) for image in IMAGES for draw in range(draws)
        )
        assert {view.split for view in views} == {"train"}


@pytest.mark.parametrize("config", [CENTRE, WINDOWS])
def test_the_plan_of_a_number_of_images_counts_what_is_drawn(config: ViewsConfig) -> None:
    assert expected_views(len(IMAGES), config) == drawn_views(IMAGES, config)


def test_a_resolution_that_is_added_gets_every_image_and_leaves_the_others_as_they_are() -> None:
    before = DrawBasis(images=IMAGES[:30], config=replace(CENTRE, high=()))
    drawn = draw_generations([before, DrawBasis(images=IMAGES[30:], config=CENTRE)])
    counts = {view_set.name: [len(views) for views in generations] for view_set, generations in drawn.items()}
    assert counts == {"high-256": [0, 40], "low-64": [30, 10], "low-128": [30, 10]}


@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(0, 5))
def test_a_centred_view_is_the_largest_square_with_equal_margins(width: int, height: int, seed: int) -> None:
    crop = draw_crop(width, height, CENTRE, (seed, "image", 0))
    assert crop.width == crop.height == min(width, height)
    assert (crop.left, crop.top) == ((width - crop.width) / 2, (height - crop.height) / 2)
    assert not crop.flip


@given(st.integers(9, 300), st.integers(9, 300))
def test_windows_lie_side_by_side_and_cover_the_image_whole(width: int, height: int) -> None:
    count = -(-max(width, height) // min(width, height))
    config = replace(WINDOWS, draws=count, max_aspect=count)
    crops = [draw_crop(width, height, config, (0, "image", draw)) for draw in range(count)]
    assert all(crop.width == crop.height == min(width, height) for crop in crops)
    starts = [crop.left if width > height else crop.top for crop in crops]
    assert {crop.top if width > height else crop.left for crop in crops} == {0}
    assert starts[0] == 0
    assert starts[-1] + min(width, height) == max(width, height)
    gaps = [later - earlier for earlier, later in pairwise(starts)]
    assert all(gap == min(width, height) for gap in gaps[:-1])
    assert all(0 < gap <= min(width, height) for gap in gaps)


@pytest.mark.parametrize(
    ("settings", "places"),
    [
        ({"margin": 2}, ["margin"]),
        ({"flip": 0.5, "heldout": 0.1}, ["flip", "heldout"]),
        ({"draws": 2}, ["draws"]),
        ({"low_proportions": (1, 2)}, ["low_proportions"]),
        ({"placing": "windows", "draws": 2}, ["draws, max_aspect"]),
    ],
)
def test_settings_that_would_draw_something_or_leave_images_out_are_refused(
    settings: dict[str, Any], places: list[str]
) -> None:
    with pytest.raises(SettingError) as caught:
        replace(CENTRE, **settings)
    assert [problem.place for problem in caught.value.problems] == places


def test_a_recipe_without_teachers_takes_those_of_the_catalogue_by_name() -> None:
    choice = choose(recipe_of("evaluation"), "dinov3-b")
    assert (choice.name, choice.source, choice.weights) == ("dinov3-b", "dinov3-b", "hub")
    with pytest.raises(SettingError, match="no such teacher; did you mean dinov3-b"):
        choose(recipe_of("evaluation"), "dinov3-bb")
    with pytest.raises(SettingError, match="recipe demo has no teacher 'dinov3-b'"):
        choose(recipe_of("demo"), "dinov3-b")
