"""The command line of `views`."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import final

from pipeline.command_line import named, parse, require
from pipeline.config import Recipe, RunConfig, ViewsConfig
from pipeline.recipes import recipe_of


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ViewsOptions:
    """Settings of `views`."""

    recipe: str = "demo"
    """What is made; see `pipeline/recipes`."""
    cache: str = ""
    """Where the cache is: a folder, or any URI that fsspec reaches (CACHE)."""
    data: str = ""
    """The images (DATA): a folder of them, tars, Parquet files, or a list of URIs; see docs/images.md."""
    extend: bool = False
    """Add the views of more images, draws or resolutions than the cache was made with. What is there stays."""
    views: ViewsConfig = field(default_factory=ViewsConfig)
    run: RunConfig = field(default_factory=RunConfig)


def views_options(arguments: Sequence[str]) -> tuple[ViewsOptions, Recipe]:
    """Read the command line of `views`, and the recipe with its overrides."""
    recipe = recipe_of(named(arguments, "recipe", "demo"))
    options = parse("views", ViewsOptions(recipe=recipe.name, views=recipe.views), arguments)
    require("CACHE", options.cache)
    return options, replace(recipe, views=options.views)
