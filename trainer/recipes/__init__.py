"""The training recipes by name."""

from collections.abc import Callable

from trainer.recipes.c_radio_v4 import c_radio_v4
from trainer.recipes.demo import demo
from trainer.recipes.radio_v2_5 import radio_v2_5
from trainer.recipes.small import small
from trainer.settings.config import TrainRecipe

RECIPES: dict[str, Callable[[], TrainRecipe]] = {
    "demo": demo,
    "small": small,
    "radio_v2_5": radio_v2_5,
    "c_radio_v4": c_radio_v4,
}
"""Name → function that returns the recipe."""
