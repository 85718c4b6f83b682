"""The plan stage: says what a run would make and cost. It writes nothing that stays."""

from pipeline.config import Recipe
from pipeline.images.listing import list_images
from pipeline.plan.forecast import PlannedViews, drawn_views, expected_views, grown_views
from pipeline.plan.options import PlanOptions
from pipeline.plan.plan import Plan, plan_run
from pipeline.plan.speed import NOTHING_MEASURED, Speeds
from pipeline.plan.storage import space_for
from pipeline.plan.text import plan_lines, space_line
from pipeline.views.stage import require_recipe
from pipeline.workers.progress import Say
from storage_schemas.cache import Cache
from storage_schemas.format.errors import SettingError
from storage_schemas.objects.dangling import refuse_dangling_link
from storage_schemas.objects.store import Store


def say_plan(options: PlanOptions, recipe: Recipe, say: Say) -> None:
    """Plan a run, and say what it would make and cost.

    Args:
        options: the command line's.
        recipe: with its overrides, and the teachers that were asked for.
        say: takes each line.

    Raises:
        SettingError: `extract` would refuse a teacher. The plan of the others is said before.
        IdentityError: the cache is of another recipe.
        MissingError: there are no images, or with `--probe` no weights.
    """
    cache = Cache(store=Store(uri=options.cache)) if options.cache else None
    if cache:
        refuse_dangling_link(cache.store)
    plan = plan_run(recipe, planned_views(cache, options, recipe, say))
    refusals = [problem for teacher in plan.teachers for problem in teacher.refusals]
    speeds = _measured(cache, plan, options) if options.probe and cache and not refusals else NOTHING_MEASURED
    for line in plan_lines(plan, options.tflops, speeds):
        say(line)
    if cache:
        say(space_line(cache.store.uri, space_for(cache.store, plan.units)))
    if refusals:
        raise SettingError(f"recipe {recipe.name}", refusals)


def planned_views(cache: Cache | None, options: PlanOptions, recipe: Recipe, say: Say | None = None) -> PlannedViews:
    """Return the views of a run: expected of a number of images, of a cache that grows, or drawn from listed images.

    Args:
        cache: where they would go; None where the user names no place.
        options: the command line's.
        recipe: with its overrides.
        say: takes a line about what was passed over in DATA.

    Raises:
        IdentityError: the cache is of another recipe.
        MissingError: there are no images.
    """
    manifest = require_recipe(cache, recipe, extend=options.extend) if cache else None
    if options.images:
        return expected_views(options.images, recipe.views)
    if cache and manifest and options.extend:
        return grown_views(cache, manifest, recipe, options.data, say)
    return drawn_views(list_images(options.data, recipe.views, say=say), recipe.views)


def _measured(cache: Cache, plan: Plan, options: PlanOptions) -> Speeds:
    from pipeline.plan.probe import probe_teachers  # imports torch, which a plan without a probe does not need

    return probe_teachers(cache.store, plan.teachers, options.run)
