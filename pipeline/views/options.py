"""The command line of `views`."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import final

from pipeline.command_line import CacheUri, parse, require
from pipeline.config import Recipe, RunConfig, ViewsConfig
from pipeline.recipes import recipe_of
from storage_schemas.command_line import option_value


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ViewsOptions:
    """Settings of the command `views`."""

    recipe: str = "demo"
    """The recipe that decides which views are cut; see `pipeline/recipes`."""
    cache: CacheUri = ""
    data: str = ""
    """The images (DATA): a folder of images, tars, Parquet files, or a list of URIs; see docs/images.md."""
    extend: bool = False
    """Add views of images, draws or resolutions that the cache does not have. Existing views stay as they are."""
    views: ViewsConfig = field(default_factory=ViewsConfig)
    run: RunConfig = field(default_factory=RunConfig)


def views_options(arguments: Sequence[str]) -> tuple[ViewsOptions, Recipe]:
    """Read the command line of `views`; return its settings, and the recipe with the overrides applied."""
    recipe = recipe_of(option_value(arguments, "recipe", "demo"))
    options = parse("views", ViewsOptions(recipe=recipe.name, views=recipe.views), arguments)
    require("CACHE", options.cache)
    return options, replace(recipe, views=options.views)
