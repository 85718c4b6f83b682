"""The command lines of `inspect` and `preview`."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import final

from pipeline.command_line import CacheUri, parse, require, require_at_least
from pipeline.config import Recipe, ViewsConfig
from pipeline.recipes import recipe_of
from pipeline.recipes.choice import choose
from storage_schemas.command_line import option_value
from storage_schemas.format.stats import TOLERANCE


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewOptions:
    """Settings of `preview`."""

    recipe: str = "demo"
    """The recipe that made the cache; its teachers' windows are drawn."""
    cache: CacheUri = ""
    sheet: str = ""
    """Where the picture goes: a PNG (SHEET). One that is there is replaced."""
    teacher: str = ""
    """Draw the windows of this teacher alone (TEACHER): a short name of the recipe, or `module:Class`."""
    canvases: int = 5
    """How many canvases of each view set are shown."""
    views: ViewsConfig = field(default_factory=ViewsConfig)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class InspectOptions:
    """Settings of `inspect`."""

    cache: CacheUri = ""
    view: str = ""
    """One view instead of the whole cache: set and row, such as `low-128/17`."""
    json: bool = False
    """The same facts as JSON; its fields are those of `pipeline/inspect/facts.py` and `pipeline/inspect/view.py`."""
    tolerance: float = TOLERANCE
    """How far the features of a view set may be from zero mean and unit variance (PHI-S units) before they are called
    off; see docs/phi_s.md for what 0.2 means."""


def preview_options(arguments: Sequence[str]) -> tuple[PreviewOptions, Recipe]:
    """Read the command line of `preview`, and the recipe with its overrides and no teacher that was not asked for."""
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
    return options
