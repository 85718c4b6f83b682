"""The training recipes by name."""

from collections.abc import Callable

from trainer.config import TrainRecipe
from trainer.recipes.demo import demo
from trainer.recipes.small import small

RECIPES: dict[str, Callable[[], TrainRecipe]] = {"demo": demo, "small": small}
"""Name → function that returns the recipe."""
