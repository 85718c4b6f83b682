"""The command lines of what looks and changes no cache: `plan`, `preview`, `inspect`, `verify`, `teachers`."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import final

from pipeline.config import CalibrationConfig, Recipe, RunConfig, ViewsConfig
from pipeline.options import choose, named, parse, require
from pipeline.recipes import recipe_of
from pipeline.residuals import TOLERANCE
from storage_schemas.errors import Problem, SettingError


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


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewOptions:
    """Settings of `preview`."""

    recipe: str = "demo"
    """The recipe that made the cache; its teachers' windows are drawn."""
    cache: str = ""
    """Where the cache is: a folder, or any URI that fsspec reaches (CACHE)."""
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

    cache: str = ""
    """Where the cache is: a folder, or any URI that fsspec reaches (CACHE)."""
    view: str = ""
    """One view instead of the whole cache: set and row, such as `low-128/17`."""
    json: bool = False
    """The same facts as JSON; its fields are those of `pipeline/cache_facts.py` and `pipeline/view_facts.py`."""
    tolerance: float = TOLERANCE
    """How far the features of a view set may be from zero mean and unit variance (PHI-S units) before they are called
    off; see docs/phi_s.md for what 0.2 means."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyOptions:
    """Settings of `verify`."""

    cache: str = ""
    """Where the cache is: a folder, or any URI that fsspec reaches (CACHE)."""
    teacher: str = ""
    """Check this teacher's features and details alone (TEACHER): its name in the cache, or `module:Class`."""
    quick: bool = False
    """Leave the arrays' bytes unread: records, manifests and tables are read, and of array shards their sizes compared.
    What was lost or cut short is found, and nothing that was changed in place."""
    recompute: int = 0
    """Run each teacher again on so many views, drawn by hash, and compare with what is stored."""
    weights: str = ""
    """For `recompute`: where the weights of `teacher` are, when not where its recipe says (WEIGHTS)."""
    source: str = ""
    """For `recompute`: what `teacher` is, `module:Class` or a name of the catalogue, when its recipe does not say."""
    run: RunConfig = field(default_factory=lambda: RunConfig(executor="local"))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class GcOptions:
    """Settings of `gc`. It says what can go, and deletes nothing unless told."""

    recipe: str = "demo"
    """Whose teachers' details; see `details`."""
    cache: str = ""
    """Where the cache is: a folder, or any URI that fsspec reaches (CACHE)."""
    details: bool = False
    """Also the details of the recipe's fixed teachers whose features are complete. A teacher that joins later, or
    another size of it, needs the images again."""
    uploads_older_than: float = 24.0
    """Also unfinished uploads to S3 that began so many hours ago or more: no writer takes that long over a shard."""
    delete: bool = False
    """Delete what was found. Refused while a run writes to the cache: what that is writing is named by nothing yet."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TeachersOptions:
    """Prints the catalogue of teachers; there is nothing to set."""


def plan_options(arguments: Sequence[str]) -> tuple[PlanOptions, Recipe]:
    """Read the command line of `plan`, and the recipe with its overrides and no teacher that was not asked for."""
    recipe = recipe_of(named(arguments, "recipe", "demo"))
    default = PlanOptions(recipe=recipe.name, views=recipe.views, calibration=recipe.calibration)
    options = parse("plan", default, arguments)
    _require_positive("images", options.images, least=0)
    _require_positive("tflops", options.tflops, least=1e-3)
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


def preview_options(arguments: Sequence[str]) -> tuple[PreviewOptions, Recipe]:
    """Read the command line of `preview`, and the recipe with its overrides and no teacher that was not asked for."""
    recipe = recipe_of(named(arguments, "recipe", "demo"))
    options = parse("preview", PreviewOptions(recipe=recipe.name, views=recipe.views), arguments)
    require("CACHE", options.cache)
    require("SHEET", options.sheet)
    _require_positive("canvases", options.canvases, least=1)
    teachers = (choose(recipe, options.teacher),) if options.teacher else recipe.teachers
    return options, replace(recipe, views=options.views, teachers=teachers)


def inspect_options(arguments: Sequence[str]) -> InspectOptions:
    """Read the command line of `inspect`."""
    options = parse("inspect", InspectOptions(), arguments)
    require("CACHE", options.cache)
    _require_positive("tolerance", options.tolerance, least=0)
    return options


def verify_options(arguments: Sequence[str]) -> VerifyOptions:
    """Read the command line of `verify`."""
    options = parse("verify", VerifyOptions(), arguments)
    require("CACHE", options.cache)
    _require_positive("recompute", options.recompute, least=0)
    if (options.weights or options.source) and not options.teacher:
        require("TEACHER", "")
    return options


def gc_options(arguments: Sequence[str]) -> GcOptions:
    """Read the command line of `gc`."""
    options = parse("gc", GcOptions(), arguments)
    require("CACHE", options.cache)
    _require_positive("uploads-older-than", options.uploads_older_than, least=0)
    return options


def _require_positive(name: str, value: float, least: float) -> None:
    if not value >= least:
        raise SettingError(name, [Problem(place=f"--{name}", found=f"{value} is less than {least}")])
