"""The command lines of `inspect` and `preview`."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import final

from pipeline.command_line import CacheUri, parse, require, require_at_least
from pipeline.config import Recipe, ViewsConfig
from pipeline.recipes import recipe_of
from pipeline.recipes.choice import choose
from storage_schemas.command_line import option_value
from storage_schemas.format.errors import Problem, SettingError
from storage_schemas.format.stats import TOLERANCE


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewOptions:
    """Settings of `preview`."""

    recipe: str = "demo"
    """The recipe of the cache, whose teachers' windows are drawn."""
    cache: CacheUri = ""
    sheet: str = ""
    """The picture to write, a PNG file (SHEET). An existing file is replaced."""
    teacher: str = ""
    """Draw only this teacher's windows (TEACHER): one of the recipe's short names, `timm:<model.tag>` or
    `module:Class`."""
    canvases: int = 5
    """How many canvases of each view set to show."""
    views: ViewsConfig = field(default_factory=ViewsConfig)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class InspectOptions:
    """Settings of `inspect`."""

    cache: CacheUri = ""
    view: str = ""
    """Show one view instead of the whole cache: its set and row, such as `low-128/17`."""
    rejected: bool = False
    """List the images whose views could not be cut, each with the reason, instead of the whole cache."""
    json: bool = False
    """Print the same facts as JSON. `pipeline/inspect/facts.py` and `pipeline/inspect/view.py` describe its fields."""
    tolerance: float = TOLERANCE
    """How far a view set's features may be from zero mean and unit variance (PHI-S units) before they count as off;
    see docs/phi_s.md for the meaning of 0.2."""


def preview_options(arguments: Sequence[str]) -> tuple[PreviewOptions, Recipe]:
    """Read the command line of `preview`; return its settings, and the recipe with overrides and chosen teachers."""
    recipe = recipe_of(option_value(arguments, "recipe", "demo"))
    options = parse("preview", PreviewOptions(recipe=recipe.name, views=recipe.views), arguments)
    require("CACHE", options.cache)
    require("SHEET", options.sheet)
    require_at_least("canvases", options.canvases, least=1)
    teachers = (choose(recipe, options.teacher),) if options.teacher else recipe.teachers
    return options, replace(recipe, views=options.views, teachers=teachers)


def inspect_options(arguments: Sequence[str]) -> InspectOptions:
    """Read the command line of `inspect`."""
    options = parse("inspect", InspectOptions(), arguments)
    require("CACHE", options.cache)
    require_at_least("tolerance", options.tolerance, least=0)
    if options.view and options.rejected:
        problem = Problem(place="--view, --rejected", found="both are given", fix="give one of them")
        raise SettingError("inspect", [problem])
    return options
