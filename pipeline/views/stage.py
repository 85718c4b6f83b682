"""The views stage: list the images, draw their views, cut those that are missing. Run again, it resumes."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

from pipeline.compact.stage import seal_finished
from pipeline.config import Recipe, RunConfig
from pipeline.inventory.arrays import detail_spec, pixels_spec
from pipeline.inventory.commit_log import exported_names
from pipeline.inventory.present import require_present
from pipeline.leases.lease import VIEWS_LEASE, leased
from pipeline.views.accepted import are_too_many
from pipeline.views.duplicates import equal_images, equal_images_line
from pipeline.views.extension import require_settings, under_rules_of
from pipeline.views.generations import ViewsPlan, total_views
from pipeline.views.planning import (
    Details,
    StoredViews,
    ViewsRequest,
    details_to_cut,
    plan_missing_views,
    refuse_export,
)
from pipeline.views.rejected import require_few_rejected
from pipeline.views.shard_task import CutReport, details_of
from pipeline.views.split import counts_of, split_lines
from pipeline.views.tasks import CommittedViews, cut_together, read_committed
from pipeline.views.worker import ViewCutter
from pipeline.workers.open_pool import open_pool
from pipeline.workers.progress import Say, progress
from pipeline.workers.worker_count import expected_workers, usable_cores
from storage_schemas.cache import Cache
from storage_schemas.format.errors import IdentityError, MissingError, Problem
from storage_schemas.format.layout import FEATURES, detail_unit, images_part, views_unit
from storage_schemas.format.manifest import CacheManifests, ViewsManifest
from storage_schemas.format.tables import to_parquet
from storage_schemas.format.teacher import TeacherSpec
from storage_schemas.objects.publish import TEMPORARY, publish_bytes, publish_group
from storage_schemas.read_groups import stored_format
from storage_schemas.rejected import rejected_count, rejected_line
from storage_schemas.shard_writer import create_array


def make_views(
    cache: Cache,
    recipe: Recipe,
    specs: Sequence[TeacherSpec],
    data: str,
    run: RunConfig,
    say: Say,
    *,
    extend: bool = False,
) -> None:
    """Cut every view that is missing.

    Args:
        cache: where the views go.
        recipe: decides which views are cut.
        specs: teachers that will read the views; the fixed ones need details. Where views are added to a cache, all
            teachers of the recipe read them.
        data: the images; see `pipeline.images.listing`. May be empty when nothing is missing.
        run: how the work is carried out.
        say: takes lines for the user.
        extend: whether images, draws or resolutions that the cache does not have are added to it.

    Raises:
        MissingError: there are no images, or one cannot be read.
        IdentityError: the cache holds another recipe's views, or those of another image list.
        SettingError: more views were rejected than `run.max_rejected` allows (what is committed is kept); or the cache
            is an export, and views are missing.
        BusyError: another run is cutting views into this cache.
    """
    request = ViewsRequest(recipe=recipe, specs=specs, data=data, extend=extend, run=run, say=say)
    stored = _stored_views(cache, request)
    request = replace(request, recipe=under_rules_of(stored.manifest, recipe))
    plan = plan_missing_views(cache, request, stored)
    if plan is None:
        _report_complete(cache, request, stored)
        return
    with leased(cache, VIEWS_LEASE, "views") as lease:
        now = _stored_views(lease.cache, request)
        if not now.has_plan_of(stored):  # another run wrote views before this one got the lease
            request = replace(request, recipe=under_rules_of(now.manifest, recipe))
            plan = plan_missing_views(lease.cache, request, now)
        if plan is None:
            _report_complete(lease.cache, request, now)
            return
        details = details_to_cut(request, now, plan)
        _write_metadata(lease.cache, recipe, plan, details)
        _cut_missing_views(lease.cache, request, plan, details)
        seal_finished(lease.cache, _units(plan.manifest, details), "views", say)
        require_few_rejected(lease.cache, read_committed(lease.cache, plan.manifest, details), run.max_rejected)


def require_recipe(cache: Cache, recipe: Recipe, *, extend: bool = False) -> ViewsManifest | None:
    """Return the manifest of a cache's views, after checking that this recipe made it.

    Args:
        cache: the cache.
        recipe: the recipe that it was made with, or last extended with.
        extend: whether to accept a recipe that extends that recipe.

    Returns:
        The manifest; None before any view was cut.

    Raises:
        IdentityError, SettingError: as `read_manifests`.
    """
    manifests = read_manifests(cache, recipe, extend=extend)
    return None if manifests is None else manifests.views


def read_manifests(
    cache: Cache, recipe: Recipe, teachers: Iterable[str] = (), *, extend: bool = False
) -> CacheManifests | None:
    """Read a cache's manifests, each once, and check that this recipe made the cache.

    Args:
        cache: the cache.
        recipe: the recipe that it was made with, or last extended with.
        teachers: names of the teachers whose manifests are wanted.
        extend: whether to accept a recipe that extends that recipe.

    Returns:
        The manifests; None where there is no cache yet.

    Raises:
        IdentityError: another recipe, other settings or another program made it.
        SettingError: it is an export, which cannot be extended.
    """
    names = list(teachers)
    try:
        manifests = cache.manifests(names)
    except MissingError:
        if _is_new(cache):
            return None
        manifests = cache.manifests(names)
    if manifests.views is not None:
        if manifests.views.exported and extend:
            refuse_export(cache, "is an export, which cannot be extended", "extend")
        require_settings(manifests.views, recipe, extend=extend)
    return manifests


def describe_sets(manifest: ViewsManifest) -> str:
    """Return a line such as `176 views: low-128 70, low-192 66, high-256 40`."""
    counts = (f"{view_set.name} {shape.grid.views}" for view_set, shape in manifest.sets.items())
    return f"{total_views(manifest)} views: {', '.join(counts)}"


def _is_new(cache: Cache) -> bool:
    # a run of ours that was killed while it wrote its first object leaves that object's temporary file, and the folder
    if all(name.endswith(TEMPORARY) for name in cache.store.listing(FEATURES)):
        return True
    if cache.attributes("") is None:
        found, fix = f"holds a {FEATURES} that Stillhouse did not make", "point CACHE at a new place"
        raise IdentityError("cache", [Problem(place=cache.store.uri, found=found, fix=fix)])
    return False  # another run made it after the caller had looked


def _stored_views(cache: Cache, request: ViewsRequest) -> StoredViews:
    manifest = require_recipe(cache, request.recipe, extend=request.extend)
    if manifest is None:
        return StoredViews(committed=None, complete=False)
    committed = read_committed(cache, manifest, details_of(manifest, request.specs))
    return StoredViews(committed=committed, complete=not committed.missing_shards())


def require_present_views(cache: Cache, recipe: str, committed: CommittedViews) -> None:
    """Refuse to go on where an array shard of canvases or details that is committed is lost; see `require_present`."""
    require_present(cache, recipe, committed.by_unit, exported_names(committed.manifest, ()))


def _report_complete(cache: Cache, request: ViewsRequest, stored: StoredViews) -> None:
    assert stored.committed is not None  # else there would be a plan
    require_present_views(cache, request.recipe.name, stored.committed)
    request.say(f"views: complete, nothing to do ({describe_sets(stored.committed.manifest)})")
    require_few_rejected(cache, stored.committed, request.run.max_rejected)
    if rejected := rejected_count(stored.committed.canvases.values()):
        request.say(f"views: {rejected_line(cache.store.uri, rejected)}")


def _units(manifest: ViewsManifest, details: Details) -> list[str]:
    """Return the names of the units that a run cuts."""
    windows = [detail_unit(view_set, detail.teacher) for view_set in manifest.sets for detail in details[view_set]]
    return [*map(views_unit, manifest.sets), *windows]


def _write_metadata(cache: Cache, recipe: Recipe, plan: ViewsPlan, details: Details) -> None:
    """Write the image list, the manifest and the arrays' metadata."""
    publish_group(cache.store, "", {"format": stored_format(cache.store), "recipe": recipe.name})
    for number in plan.images.unwritten:
        publish_bytes(cache.store, images_part(number), to_parquet(plan.images.parts[number].table()))
    # an extension counts from here on: before, nothing names its images; after, the same command resumes it
    publish_group(cache.store, "views", plan.manifest.attributes())
    for view_set, shape in plan.manifest.sets.items():
        create_array(cache.store, pixels_spec(view_set, shape))
        for detail in details[view_set]:
            create_array(cache.store, detail_spec(view_set, shape, detail.teacher, detail.side))


def _cut_missing_views(cache: Cache, request: ViewsRequest, plan: ViewsPlan, details: Details) -> None:
    """Cut the shards that are not committed. End early when more views are rejected than the user accepts."""
    manifest, run, say = plan.manifest, request.run, request.say
    committed = read_committed(cache, manifest, details)
    config, shards = request.recipe.views, committed.missing_shards(plan.views)
    tasks = cut_together(shards, config, expected_workers(run))
    total, to_cut = total_views(manifest), sum(task.views for task in tasks)
    say(f"views: {describe_sets(manifest)}; {to_cut} to cut in {len(shards)} shards")
    for line in split_lines(counts_of(plan.views), config):
        say(f"views: {line}")
    require_present_views(cache, request.recipe.name, committed)
    require_few_rejected(cache, committed, run.max_rejected)
    rejected = rejected_count(committed.canvases.values())
    reports: list[CutReport] = []
    threads = usable_cores() if run.executor == "local" else run.threads
    cutter = partial(ViewCutter, store=cache.store, config=config, threads=threads)
    with (
        open_pool(cutter, replace(run, gpus=0), tasks=len(tasks)) as pool,
        progress("views", done=total - to_cut, total=total, report=run.report) as bar,
    ):
        for _, report in pool.run(ViewCutter.cut, tasks):
            reports.append(report)
            bar.add(report.views, rejected=report.rejected, size=report.bytes)
            rejected += report.newly_rejected
            if are_too_many(cache, rejected, manifest, run.max_rejected):
                break
    size = sum(report.bytes for report in reports)
    counts = f"cut {sum(report.views for report in reports)}, rejected {sum(report.rejected for report in reports)}"
    say(f"views: {counts}, wrote {size / 1e6:.1f} MB in {bar.rate}")
    if rejected:
        say(f"views: {rejected_line(cache.store.uri, rejected)}")
    if groups := equal_images(cache, manifest):
        say(equal_images_line(groups))
