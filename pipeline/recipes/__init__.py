"""Recipes: functions that return what a cache is made of, by name.

Door: choice, options, demo_images.
"""

import difflib
from collections.abc import Callable, Mapping

from pipeline.config import Recipe
from pipeline.recipes.c_radio_v4 import c_radio_v4
from pipeline.recipes.demo import demo
from pipeline.recipes.radio_v2_5 import radio_v2_5
from pipeline.recipes.small import small
from storage_schemas.format.errors import Problem, SettingError

RECIPES: Mapping[str, Callable[[], Recipe]] = {
    "demo": demo,
    "small": small,
    "radio_v2_5": radio_v2_5,
    "c_radio_v4": c_radio_v4,
}
"""Every recipe, by the name that RECIPE takes."""


def recipe_of(name: str) -> Recipe:
    """Return a recipe.

    Raises:
        SettingError: there is none of that name.
    """
    if name in RECIPES:
        return RECIPES[name]()
    near = difflib.get_close_matches(name, RECIPES, n=1) or list(RECIPES)
    raise SettingError("RECIPE", [Problem(place=name, found="is no recipe", fix=f"there are {', '.join(near)}")])
