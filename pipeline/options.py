"""The command line of each stage: a recipe's fields, to be overridden by name, with their docstrings as help."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, TypeVar, final

import tyro

from pipeline.config import CalibrationConfig, Recipe, RunConfig, TeacherChoice, ViewsConfig
from pipeline.recipes import RECIPES, recipe_of
from pipeline.residuals import TOLERANCE
from storage_schemas.errors import MissingError, Problem, SettingError

Options = TypeVar("Options")


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


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractOptions:
    """Settings of `extract`."""

    recipe: str = "demo"
    """What is made; see `pipeline/recipes`."""
    cache: str = ""
    """Where the cache is: a folder, or any URI that fsspec reaches (CACHE)."""
    data: str = ""
    """The images (DATA), in any form that docs/images.md names; read only when views are missing."""
    teacher: str = ""
    """Which teacher (TEACHER): a short name of the recipe, or `module:Class`."""
    choice: TeacherChoice = field(default_factory=lambda: TeacherChoice(name="", source=""))
    views: ViewsConfig = field(default_factory=ViewsConfig)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    run: RunConfig = field(default_factory=RunConfig)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StatsOptions:
    """Settings of `stats`."""

    cache: str = ""
    """Where the cache is: a folder, or any URI that fsspec reaches (CACHE)."""
    teacher: str = ""
    """Which teacher (TEACHER); every teacher in the cache when empty."""
    tolerance: float = TOLERANCE
    """How far the features of a view set may be from zero mean and unit variance (PHI-S units) before they are called
    off; see docs/phi_s.md for what 0.2 means."""
    run: RunConfig = field(default_factory=RunConfig)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PhotographsOptions:
    """Settings of `photographs`."""

    data: str = ""
    """Folder to lay them out in (DATA)."""


def views_options(arguments: Sequence[str]) -> tuple[ViewsOptions, Recipe]:
    """Read the command line of `views`, and the recipe with its overrides."""
    recipe = recipe_of(named(arguments, "recipe", "demo"))
    options = parse("views", ViewsOptions(recipe=recipe.name, views=recipe.views), arguments)
    require("CACHE", options.cache)
    return options, replace(recipe, views=options.views)


def extract_options(arguments: Sequence[str]) -> tuple[ExtractOptions, Recipe]:
    """Read the command line of `extract`, and the recipe with its overrides."""
    recipe = recipe_of(named(arguments, "recipe", "demo"))
    teacher = named(arguments, "teacher", "")
    asked_for_help = any(argument in ("-h", "--help") for argument in arguments)
    choice = choose(recipe, teacher or (recipe.teachers[0].name if asked_for_help else ""))
    default = ExtractOptions(
        recipe=recipe.name, teacher=teacher, choice=choice, views=recipe.views, calibration=recipe.calibration
    )
    options = parse("extract", default, arguments)
    require("CACHE", options.cache)
    return options, replace(recipe, views=options.views, calibration=options.calibration)


def stats_options(arguments: Sequence[str]) -> StatsOptions:
    """Read the command line of `stats`."""
    options = parse("stats", StatsOptions(), arguments)
    require("CACHE", options.cache)
    if not options.tolerance >= 0:
        found = f"{options.tolerance} is less than 0"
        raise SettingError("tolerance", [Problem(place="--tolerance", found=found)])
    return options


def photographs_options(arguments: Sequence[str]) -> PhotographsOptions:
    """Read the command line of `photographs`."""
    options = parse("photographs", PhotographsOptions(), arguments)
    require("DATA", options.data)
    return options


def choose(recipe: Recipe, teacher: str) -> TeacherChoice:
    """Return the recipe's choice of a short name, or a choice for a class of the user's own.

    Raises:
        SettingError: neither.
    """
    if not teacher:
        names = ", ".join(choice.name for choice in recipe.teachers)
        raise MissingError(
            "TEACHER", [Problem(place="--teacher", found="is not given", fix=f"{names}, or module:Class")]
        )
    if ":" not in teacher:
        return recipe.teacher(teacher)
    from teachers.own import own_class  # imports torch, which the recipes' own teachers do not need yet

    return TeacherChoice(name=own_class(teacher).declared.name, source=teacher, weights="own")


def parse(command: str, default: Options, arguments: Sequence[str]) -> Options:
    """Read a command line over defaults; a wrong one ends the process with status 2 and says why."""
    program = f"python -m pipeline {command}"
    kind: Any = Annotated[type(default), tyro.conf.configure(tyro.conf.FlagCreatePairsOff)]
    return tyro.cli(kind, prog=program, default=default, args=list(arguments))


def named(arguments: Sequence[str], name: str, default: str) -> str:
    """Return the value of `--name value` or `--name=value`: what must be known before the rest can be read."""
    value = default
    for position, argument in enumerate(arguments):
        if argument == f"--{name}" and position + 1 < len(arguments):
            value = arguments[position + 1]
        elif argument.startswith(f"--{name}="):
            value = argument.partition("=")[2]
    return value


def require(name: str, value: str) -> None:
    """Refuse a setting that is not given."""
    if not value:
        raise SettingError(name, [Problem(place=f"--{name.lower()}", found="is not given", fix=f"make … {name}=…")])


COMMAND_HELP: dict[str, str] = {
    "plan": "what a run would make and cost, stated or measured (--probe); writes nothing",
    "views": "cut the views",
    "preview": "a contact sheet: canvases with every teacher's window, and mosaics",
    "extract": "run one teacher over the views (cutting them first where they are missing)",
    "stats": "measure what is stored: PHI-S residual, dispersion",
    "train": "train a student on Ray; without Ray: python -m trainer train",
    "inspect": "what is in a cache, and how far each stage is",
    "verify": "check that what is there is what was committed",
    "export": "a subset of a cache, re-sharded or re-encoded, as a cache of its own in another place",
    "gc": "what can go: leftovers of killed runs, details that are done with; deletes them when told",
    "teachers": "the catalogue of teachers",
    "photographs": "lay out the demo's photographs as a folder",
}
"""Every command, with what it does."""

USAGE = "\n".join(
    [
        "python -m pipeline COMMAND [--help] [settings]",
        "",
        *(f"  {command:<12} {says}" for command, says in COMMAND_HELP.items()),
        "",
        f"Recipes: {', '.join(RECIPES)}.",
    ]
)
"""What `python -m pipeline --help` says."""

Command = Callable[[Sequence[str]], None]
