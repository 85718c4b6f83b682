"""The command line of `extract`."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import final

from pipeline.command_line import CacheUri, parse, require
from pipeline.config import CalibrationConfig, Recipe, RunConfig, TeacherChoice, ViewsConfig
from pipeline.recipes import recipe_of
from pipeline.recipes.choice import choose
from storage_schemas.command_line import option_value


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractOptions:
    """Settings of `extract`."""

    recipe: str = "demo"
    """Name of the recipe; see `pipeline/recipes`."""
    cache: CacheUri = ""
    data: str = ""
    """The images (DATA), in any form that docs/images.md describes; read only when views are missing."""
    teacher: str = ""
    """The teacher to run (TEACHER): one of the recipe's short names, `timm:<model.tag>`,
    `hf:<repository or folder>`, or `module:Class`."""
    choice: TeacherChoice = field(default_factory=lambda: TeacherChoice(name="", source=""))
    views: ViewsConfig = field(default_factory=ViewsConfig)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    run: RunConfig = field(default_factory=RunConfig)


def extract_options(arguments: Sequence[str]) -> tuple[ExtractOptions, Recipe]:
    """Read the command line of `extract`, and the recipe with its overrides."""
    recipe = recipe_of(option_value(arguments, "recipe", "demo"))
    teacher = option_value(arguments, "teacher", "")
    asked_for_help = any(argument in ("-h", "--help") for argument in arguments)
    choice = TeacherChoice(name="", source="") if asked_for_help and not teacher else choose(recipe, teacher)
    default = ExtractOptions(
        recipe=recipe.name, teacher=teacher, choice=choice, views=recipe.views, calibration=recipe.calibration
    )
    options = parse("extract", default, arguments)
    require("CACHE", options.cache)
    return options, replace(recipe, views=options.views, calibration=options.calibration)
