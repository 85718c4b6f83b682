"""Settings: one that cannot work is refused when it is set, with its name and what is wrong."""

from collections.abc import Callable
from typing import Any

import pytest

from pipeline.config import CalibrationConfig, Recipe, RunConfig, TeacherChoice, ViewsConfig, views_settings
from pipeline.recipes import RECIPES, recipe_of
from storage_schemas.format.errors import SettingError


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (ViewsConfig, {"low": (), "high": ()}, "low, high: both are empty: name at least one resolution"),
        (ViewsConfig, {"low": (100,)}, "low: 100 px is not a multiple of the patch, 16 px"),
        (ViewsConfig, {"high": (0,)}, "high: 0 px is not a multiple of the patch, 16 px"),
        (ViewsConfig, {"low": (128, 128)}, "low: (128, 128) contains a resolution twice"),
        (ViewsConfig, {"low_proportions": (1.0,)}, "low_proportions: has 1 numbers for 6 resolutions"),
        (
            ViewsConfig,
            {"low": (128,), "low_proportions": (0.0,)},
            "low_proportions: (0.0,) are not all positive and finite",
        ),
        (
            ViewsConfig,
            {"high": (512,), "high_proportions": (float("inf"),)},
            "high_proportions: (inf,) are not all positive and finite",
        ),
        (ViewsConfig, {"draws": 0}, "draws: 0 is less than 1"),
        (ViewsConfig, {"margin": -1}, "margin: -1 is less than 0"),
        (ViewsConfig, {"tokens_per_shard": 0}, "tokens_per_shard: 0 is less than 1"),
        (ViewsConfig, {"canvas_tokens": -1}, "canvas_tokens: -1 is less than 0"),
        (ViewsConfig, {"min_side": 0}, "min_side: 0 is less than 1"),
        (ViewsConfig, {"max_pixels": 0}, "max_pixels: 0 is less than 1"),
        (ViewsConfig, {"max_aspect": 0.5}, "max_aspect: 0.5 is less than 1"),
        (ViewsConfig, {"high_share": 1.5}, "high_share: 1.5 is not between 0 and 1"),
        (ViewsConfig, {"flip": -0.1}, "flip: -0.1 is not between 0 and 1"),
        (ViewsConfig, {"heldout": float("nan")}, "heldout: nan is not between 0 and 1"),
        (ViewsConfig, {"area": (0.5, 0.2)}, "area: (0.5, 0.2) is not a range within (0, 1]"),
        (ViewsConfig, {"aspect": (1.0, float("inf"))}, "aspect: (1.0, inf) is not a range within (0, 100]"),
        (ViewsConfig, {"shift_sd": 0.0}, "shift_sd: 0.0 is not a positive number of patches"),
        (ViewsConfig, {"shift_sd": float("nan")}, "shift_sd: nan is not a positive number of patches"),
        (CalibrationConfig, {"views": 0}, "views: 0 is less than 1"),
        (CalibrationConfig, {"tokens_per_channel": 0}, "tokens_per_channel: 0 is less than 1"),
        (RunConfig, {"workers": -1}, "workers: -1 is less than 0"),
        (RunConfig, {"threads": 0}, "threads: 0 is less than 1"),
        (RunConfig, {"gpus": float("nan")}, "gpus: nan is less than 0"),
        (RunConfig, {"max_rejected": 2.0}, "max_rejected: 2.0 is not between 0 and 1"),
        (TeacherChoice, {"name": "mine", "source": "dinov3-tiny", "batch": 0}, "batch: 0 is less than 1"),
    ],
)
def test_a_setting_that_cannot_work_is_refused(
    make: Callable[..., object], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingError) as caught:
        make(**settings)
    assert [str(problem) for problem in caught.value.problems] == [message]


def test_every_wrong_setting_is_named_at_once() -> None:
    with pytest.raises(SettingError) as caught:
        ViewsConfig(low=(100, 200), draws=0, flip=2)
    assert str(caught.value) == (
        "views settings cannot be used:\n"
        "  low: 100 px is not a multiple of the patch, 16 px\n"
        "  low: 200 px is not a multiple of the patch, 16 px\n"
        "  draws: 0 is less than 1\n"
        "  flip: 2 is not between 0 and 1"
    )


def test_the_fewest_workers_are_no_more_than_the_most() -> None:
    assert RunConfig(min_workers=4).workers == 0
    with pytest.raises(SettingError) as caught:
        RunConfig(workers=3, min_workers=4)
    assert str(caught.value) == "run settings cannot be used:\n  min_workers: 4 is more than --run.workers, 3"


def test_resolutions_have_the_given_weights_or_equal_ones() -> None:
    config = ViewsConfig(low=(128, 256), low_proportions=(3, 1), high=(512, 768))
    assert config.proportions("low") == {128: 3, 256: 1}
    assert config.proportions("high") == {512: 1, 768: 1}


def test_every_setting_of_the_views_is_part_of_their_identity() -> None:
    assert views_settings(ViewsConfig(seed=7))["seed"] == 7
    assert views_settings(ViewsConfig())["low"] == [128, 192, 224, 256, 384, 432]
    later = {"keys": "archive", "members": "*.jpg", "image_column": "img", "key_column": "name"}
    assert set(views_settings(ViewsConfig())) == set(ViewsConfig.__slots__) - {*later, "placing"}, (
        "caches without them are alike"
    )
    of_evaluation = {"placing": "centre", "margin": 0, "flip": 0, "heldout": 0}
    assert set(views_settings(ViewsConfig(**later, **of_evaluation))) == set(ViewsConfig.__slots__)


@pytest.mark.parametrize("name", sorted(RECIPES.keys() - {"evaluation"}))
def test_a_recipe_is_found_by_its_name_and_has_a_teacher_of_each_kind(name: str) -> None:
    recipe = recipe_of(name)
    assert recipe.name == name
    expected = {"clip", "siglip", "dinov2", "sam"} if name == "radio_v2_5" else {"dinov3", "siglip2", "sam3"}
    assert {choice.name for choice in recipe.teachers} == expected


@pytest.mark.parametrize("name", sorted(RECIPES.keys() - {"evaluation"}))
def test_random_weights_are_in_no_recipe_but_the_demo(name: str) -> None:
    random = [choice.weights.startswith("random:") for choice in recipe_of(name).teachers]
    assert set(random) == {name == "demo"}


def test_the_recipe_for_evaluation_names_no_teachers() -> None:
    assert (recipe_of("evaluation").name, recipe_of("evaluation").teachers) == ("evaluation", ())


def test_an_unknown_recipe_is_answered_with_the_nearest() -> None:
    with pytest.raises(SettingError) as caught:
        recipe_of("c_radio_v3")
    assert str(caught.value) == (
        "RECIPE cannot be used:\n"
        "  c_radio_v3: no such recipe (did you mean c_radio_v4 or radio_v2_5? there are demo, small, radio_v2_5, "
        "c_radio_v4, evaluation)"
    )


def test_an_unknown_recipe_that_is_near_none_is_answered_with_all() -> None:
    with pytest.raises(SettingError) as caught:
        recipe_of("xyz")
    assert caught.value.problems[0].fix == "there are demo, small, radio_v2_5, c_radio_v4, evaluation"


def test_a_teacher_that_a_recipe_lacks_is_answered_with_those_it_has() -> None:
    with pytest.raises(SettingError) as caught:
        Recipe(name="mine", teachers=recipe_of("demo").teachers).teacher("dinov2")
    assert str(caught.value) == (
        "TEACHER cannot be used:\n"
        "  dinov2: recipe mine has no teacher 'dinov2' "
        "(it has dinov3, siglip2, sam3; or give timm:<model.tag> or module:Class)"
    )
