"""Recipes: named functions, each of which returns all settings that decide what is in a cache.

`RECIPES` and `recipe_of`, below, belong to the door too.

Door: choice, options, demo_images.
"""

from collections.abc import Callable, Mapping

from pipeline.config import Recipe
from pipeline.recipes.c_radio_v4 import c_radio_v4
from pipeline.recipes.demo import demo
from pipeline.recipes.evaluation import evaluation
from pipeline.recipes.radio_v2_5 import radio_v2_5
from pipeline.recipes.small import small
from storage_schemas.format.errors import Problem, SettingError
from storage_schemas.format.near_names import did_you_mean

RECIPES: Mapping[str, Callable[[], Recipe]] = {
    "demo": demo,
    "small": small,
    "radio_v2_5": radio_v2_5,
    "c_radio_v4": c_radio_v4,
    "evaluation": evaluation,
}
"""Every recipe, by its name (RECIPE)."""


def recipe_of(name: str) -> Recipe:
    """Return a recipe.

    Raises:
        SettingError: there is no recipe of that name; it lists all, the nearest first.
    """
    if name in RECIPES:
        return RECIPES[name]()
    fix = did_you_mean(name, RECIPES)
    raise SettingError("RECIPE", [Problem(place=name, found="no such recipe", fix=fix)])
