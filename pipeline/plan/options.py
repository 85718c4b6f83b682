"""The command line of `plan`."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import final

from pipeline.command_line import parse, require, require_at_least
from pipeline.config import CalibrationConfig, Recipe, RunConfig, ViewsConfig
from pipeline.recipes import recipe_of
from pipeline.recipes.choice import choose
from storage_schemas.command_line import option_value


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """Settings of `plan`."""

    recipe: str = "demo"
    """What would be made; see `pipeline/recipes`."""
    cache: str = ""
    """Where it would go (CACHE): says whether it fits there, and whether another recipe's cache is in the way. Need
    not be given."""
    data: str = ""
    """The images (DATA), in any form that docs/images.md names: only listed, none is opened."""
    extend: bool = False
    """Plan the cache as `views --extend` would leave it: what it has, and what is added to it."""
    images: int = 0
    """Plan for so many images, listing none: every view set gets its expected share of views."""
    teacher: str = ""
    """Which teacher alone (TEACHER): a short name of the recipe, or `module:Class`. All of the recipe's when empty."""
    tflops: float = 300.0
    """What one GPU sustains in the teachers' forwards (TFLOP/s). The default is some 30 % of the 989 TFLOP/s that the
    data sheets of H100 and H200 name for dense bfloat16: a statement, not a measurement. Give your own."""
    probe: bool = False
    """Measure instead of stating: run some batches of each teacher, and write one shard of its features to `cache` and
    take it away again. The weights must be at hand."""
    weights: str = ""
    """For `probe`: where the weights of `teacher` are, when not where its recipe says (WEIGHTS)."""
    views: ViewsConfig = field(default_factory=ViewsConfig)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    run: RunConfig = field(default_factory=lambda: RunConfig(executor="local"))
    """For `probe`: one worker of this kind is measured."""


def plan_options(arguments: Sequence[str]) -> tuple[PlanOptions, Recipe]:
    """Read the command line of `plan`, and the recipe with its overrides and no teacher that was not asked for."""
    recipe = recipe_of(option_value(arguments, "recipe", "demo"))
    default = PlanOptions(recipe=recipe.name, views=recipe.views, calibration=recipe.calibration)
    options = parse("plan", default, arguments)
    require_at_least("images", options.images, least=0)
    require_at_least("tflops", options.tflops, least=1e-3)
    if not options.images:
        require("DATA", options.data)
    if options.probe:
        require("CACHE", options.cache)
    if options.weights and not options.teacher:
        require("TEACHER", "")
    teachers = (choose(recipe, options.teacher),) if options.teacher else recipe.teachers
    if options.weights:
        teachers = tuple(replace(choice, weights=options.weights) for choice in teachers)
    return options, replace(recipe, views=options.views, calibration=options.calibration, teachers=teachers)
