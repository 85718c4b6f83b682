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
    """The recipe to plan; see `pipeline/recipes`."""
    cache: str = ""
    """Where the cache would be (CACHE); optional. The plan then says whether it fits there, and is refused where a
    cache of another recipe is in the way."""
    data: str = ""
    """The images (DATA), in any form that docs/images.md describes. They are listed, and not opened."""
    extend: bool = False
    """Plan the cache as `views --extend` would leave it: with its present views and the added ones."""
    images: int = 0
    """Plan for this number of images, without a list of them: each view set gets its expected share of views."""
    teacher: str = ""
    """Plan only this teacher (TEACHER): one of the recipe's short names, `timm:<model.tag>` or `module:Class`.
    All teachers when empty."""
    tflops: float = 300.0
    """What one GPU sustains in the teachers' forwards (TFLOP/s). The default is about 30 % of the 989 TFLOP/s in the
    data sheets of H100 and H200 for dense bfloat16. It is not measured: give the number of your GPU, or use `probe`."""
    probe: bool = False
    """Measure the speed instead: run some batches of each teacher, write one shard of features to `cache`, and delete
    it again. This needs the teachers' weights."""
    weights: str = ""
    """For `probe`: the weights of `teacher`, where they are not those of its recipe (WEIGHTS)."""
    views: ViewsConfig = field(default_factory=ViewsConfig)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    run: RunConfig = field(default_factory=lambda: RunConfig(executor="local"))
    """For `probe`: how the measured worker runs."""


def plan_options(arguments: Sequence[str]) -> tuple[PlanOptions, Recipe]:
    """Read the command line of `plan`; return its settings, and the recipe with its overrides and chosen teachers."""
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
