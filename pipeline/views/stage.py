"""The views stage: list the images, draw their views, cut what is missing. It resumes by itself."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from pipeline.config import Recipe, RunConfig
from pipeline.images.listing import SourceImage, list_images
from pipeline.inventory.arrays import detail_identity, detail_spec, pixels_spec
from pipeline.inventory.commands import export_command
from pipeline.inventory.commit_log import require_as_committed
from pipeline.inventory.teacher_maps import teacher_spec
from pipeline.leases.lease import VIEWS_LEASE, leased
from pipeline.views.duplicates import equal_images, equal_images_line, find_copies
from pipeline.views.extension import ImageParts, divide, require_settings, stored_config
from pipeline.views.generations import ViewsPlan, plan_views
from pipeline.views.image_parts import Copies, ImagePart
from pipeline.views.rejected import exceeds, rejected_views, require_few_rejected
from pipeline.views.tasks import missing_tasks, read_committed
from pipeline.views.worker import CutReport, Detail, ViewCutter
from pipeline.workers.open_pool import open_pool
from pipeline.workers.progress import Say, progress
from storage_schemas.cache import Cache
from storage_schemas.format.errors import IdentityError, MissingError, Problem, SettingError
from storage_schemas.format.layout import FEATURES, FORMAT_VERSION, images_part
from storage_schemas.format.manifest import CacheManifests, ViewsManifest
from storage_schemas.format.tables import to_parquet
from storage_schemas.format.teacher import TeacherSpec
from storage_schemas.format.views import ViewSet, detail_side
from storage_schemas.objects.publish import TEMPORARY, publish_bytes, publish_group
from storage_schemas.shard_writer import create_array


def require_recipe(cache: Cache, recipe: Recipe, *, extend: bool = False) -> ViewsManifest | None:
    """Return the manifest of a cache's views after checking that this recipe made it; None when there are none yet.

    Args:
        cache: the cache.
        recipe: what it should have been made by, or last extended by.
        extend: whether a recipe that extends that one will do as well.

    Raises:
        IdentityError, SettingError: as `read_manifests`.
    """
    manifests = read_manifests(cache, recipe, extend=extend)
    return None if manifests is None else manifests.views


def read_manifests(
    cache: Cache, recipe: Recipe, teachers: Iterable[str] = (), *, extend: bool = False
) -> CacheManifests | None:
    """Read a cache's manifests, each once, and check that this recipe made it. Return None when there is no cache yet.

    Args:
        cache: the cache.
        recipe: what it should have been made by, or last extended by.
        teachers: names of the teachers whose manifests are wanted.
        extend: whether a recipe that extends that one will do as well.

    Raises:
        IdentityError: it was another recipe, or other settings, or not Stillhouse.
        SettingError: it is an export, and is to be extended.
    """
    names = list(teachers)
    try:
        manifests = cache.manifests(names)
    except MissingError:
        if _is_unmade(cache):
            return None
        manifests = cache.manifests(names)
    if manifests.views is not None:
        if manifests.views.exported and extend:
            _refuse_export(cache, "is an export, which is not extended", "extend the cache that it was taken of")
        require_settings(manifests.views, recipe, extend=extend)
    return manifests


def _refuse_export(cache: Cache, found: str, fix: str) -> None:
    fix = f"{fix}, and export that; `{export_command(cache)}` finishes an export that was cut short"
    raise SettingError("views", [Problem(place=cache.store.uri, found=found, fix=fix)])


def _is_unmade(cache: Cache) -> bool:
    # a run of ours that was killed at its very first object leaves that one's temporary file, and the folder
    if all(name.endswith(TEMPORARY) for name in cache.store.listing(FEATURES)):
        return True
    if cache.attributes("") is None:
        found, fix = f"holds a {FEATURES} that Stillhouse did not make", "point CACHE at a new place"
        raise IdentityError("cache", [Problem(place=cache.store.uri, found=found, fix=fix)])
    return False  # another run made it between two looks


def details_of(manifest: ViewsManifest, specs: Iterable[TeacherSpec]) -> dict[ViewSet, tuple[Detail, ...]]:
    """Return what is to be cut of each set at their own scale for the fixed ones among some teachers."""
    fixed = [spec for spec in specs if spec.size_rule == "fixed"]
    return {view_set: tuple(_detail(manifest, view_set, spec) for spec in fixed) for view_set in manifest.sets}


def _detail(manifest: ViewsManifest, view_set: ViewSet, spec: TeacherSpec) -> Detail:
    side = detail_side(spec, view_set)
    return Detail(teacher=spec.name, side=side, identity=detail_identity(manifest, spec.name, side))


def views_missing(cache: Cache, manifest: ViewsManifest, specs: Iterable[TeacherSpec]) -> bool:
    """Say whether any shard of the views, or of a detail that some teachers need, is not committed."""
    return bool(read_committed(cache, manifest, details_of(manifest, specs)).missing_tasks())


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
        cache: where they go.
        recipe: what is cut.
        specs: teachers that will look; the fixed ones need details. At views that are added all of the recipe's look.
        data: the images; see `pipeline.images.listing`. They need not be given when nothing is missing.
        run: how the work is carried.
        say: takes lines for the user.
        extend: whether more images, draws or resolutions than the cache has are added to it.

    Raises:
        MissingError: there are no images, or one cannot be read.
        IdentityError: the cache holds another recipe's views, or those of another image list.
        SettingError: more views were rejected than `run.max_rejected` allows, what is committed is kept; or the cache
            is an export, and views are missing.
        BusyError: another run is cutting views into this cache.
    """

    def planned(cache: Cache, before: ViewsManifest | None) -> tuple[ViewsManifest, ViewsPlan | None]:
        return _planned(cache, before, recipe, specs, data, run, say, extend=extend)

    before = require_recipe(cache, recipe, extend=extend)
    manifest, plan = planned(cache, before)
    if plan is not None:
        with leased(cache, VIEWS_LEASE, "views") as lease:
            now = require_recipe(lease.cache, recipe, extend=extend)
            if now != before or (now == manifest and not views_missing(lease.cache, manifest, specs)):
                manifest, plan = planned(lease.cache, now)  # another run was there first
            if plan is not None:
                if now is not None and now != manifest:
                    specs = list({spec.name: spec for spec in [*map(teacher_spec, recipe.teachers), *specs]}.values())
                details = details_of(manifest, specs)
                _prepare(lease.cache, recipe, plan, details)
                _cut(lease.cache, recipe, plan, details, run, say)
                require_few_rejected(lease.cache, manifest, run.max_rejected)
                return
    say(f"views: complete, nothing to do ({describe_sets(manifest)})")
    require_few_rejected(cache, manifest, run.max_rejected)


def _planned(
    cache: Cache,
    before: ViewsManifest | None,
    recipe: Recipe,
    specs: Sequence[TeacherSpec],
    data: str,
    run: RunConfig,
    say: Say,
    *,
    extend: bool,
) -> tuple[ViewsManifest, ViewsPlan | None]:
    """Return what the views are to be, and the plan of them; None where nothing is to be written for it."""
    missing = before is None or views_missing(cache, before, specs)
    if before is not None and before.exported:
        if missing:
            found = "is an export, and not all that is wanted of its views is there: canvases, or details of a teacher"
            _refuse_export(cache, found, "cut them in the cache that it was taken of")
        return before, None
    same = before is not None and stored_config(before.generations[-1].views) == recipe.views
    if before is not None and same and not missing and not data:
        return before, None
    plan = _plan_over(cache, before, recipe, data, run, say, extend=extend)
    if before is None:
        require_as_committed(cache, plan.manifest)
    return plan.manifest, plan if missing or plan.manifest != before else None


def _plan_over(
    cache: Cache, manifest: ViewsManifest | None, recipe: Recipe, data: str, run: RunConfig, say: Say, *, extend: bool
) -> ViewsPlan:
    """Plan the views of the images: just those that the cache was made from where there is one, or more."""
    listed = list_images(data, cache.store.patience)

    def copies(images: Sequence[SourceImage]) -> Copies:
        return find_copies(images, cache.store.patience, run, say) if recipe.views.duplicates == "drop" else {}

    if manifest is None:
        first = ImagePart(images=listed, copies=copies(listed))
        return plan_views(recipe, ImageParts(parts=(first,), unwritten=(0,)), None)
    return plan_views(recipe, divide(cache, manifest, listed, copies, extend=extend, data=data), manifest)


def describe_sets(manifest: ViewsManifest) -> str:
    """Return a line such as `176 views: low-128 70, low-192 66, high-256 40`."""
    counts = {view_set.name: one.grid.views for view_set, one in manifest.sets.items()}
    return f"{sum(counts.values())} views: {', '.join(f'{name} {views}' for name, views in counts.items())}"


def _prepare(cache: Cache, recipe: Recipe, plan: ViewsPlan, details: Mapping[ViewSet, Sequence[Detail]]) -> None:
    publish_group(cache.store, "", {"format": FORMAT_VERSION, "recipe": recipe.name})
    for number in plan.images.unwritten:
        publish_bytes(cache.store, images_part(number), to_parquet(plan.images.parts[number].table()))
    # an extension begins here: before, its images are named by nothing; after, the same command goes on with it
    publish_group(cache.store, "views", plan.manifest.attributes())
    for view_set, one in plan.manifest.sets.items():
        create_array(cache.store, pixels_spec(view_set, one))
        for detail in details[view_set]:
            create_array(cache.store, detail_spec(view_set, one, detail.teacher, detail.side))


def _cut(
    cache: Cache,
    recipe: Recipe,
    plan: ViewsPlan,
    details: Mapping[ViewSet, Sequence[Detail]],
    run: RunConfig,
    say: Say,
) -> None:
    tasks = missing_tasks(cache, plan.manifest, details, plan.views)
    total = sum(one.grid.views for one in plan.manifest.sets.values())
    waiting = sum(len(task.views) for task in tasks)
    say(f"views: {describe_sets(plan.manifest)}; {waiting} to cut in {len(tasks)} shards")
    require_few_rejected(cache, plan.manifest, run.max_rejected)
    on_record = rejected_views(cache, plan.manifest).num_rows
    factory = partial(ViewCutter, store=cache.store, config=recipe.views)
    reports: list[CutReport] = []
    with (
        open_pool(factory, replace(run, gpus=0), tasks=len(tasks)) as pool,
        progress("views", done=total - waiting, total=total, report=run.report) as bar,
    ):
        for index, report in pool.run(ViewCutter.cut, tasks):
            reports.append(report)
            bar.add(report.views + report.rejected, size=report.bytes)
            on_record += report.rejected if tasks[index].canvases else 0
            if exceeds(on_record, plan.manifest, run.max_rejected):
                break
    cut, rejected, size = (sum(getattr(one, name) for one in reports) for name in ("views", "rejected", "bytes"))
    say(f"views: cut {cut}, rejected {rejected}, wrote {size / 1e6:.1f} MB in {bar.rate}")
    if groups := equal_images(cache, plan.manifest):
        say(equal_images_line(groups))
