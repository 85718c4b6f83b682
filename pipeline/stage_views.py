"""The views stage: list the images, draw their views, cut what is missing. It resumes by itself."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, final

import pyarrow as pa

from pipeline.config import Recipe, RunConfig, views_settings
from pipeline.cut_shard import CutReport, CutTask, Detail, ViewCutter, detail_spec, pixels_spec
from pipeline.draw import DrawnView, draw_views, set_manifest
from pipeline.images import SourceImage, list_images
from pipeline.pools import open_pool
from pipeline.progress import Say, progress
from pipeline.publish import TEMPORARY, publish_bytes, publish_group
from pipeline.rejected import require_few_rejected
from pipeline.shard_writer import create_array
from storage_schemas.cache import Cache
from storage_schemas.errors import IdentityError, Problem
from storage_schemas.identity import digest, require_same
from storage_schemas.layout import FEATURES, FORMAT_VERSION, IMAGES_TABLE, detail_unit, views_unit
from storage_schemas.manifest import ViewsManifest
from storage_schemas.tables import IMAGES, to_parquet
from storage_schemas.teacher import TeacherSpec
from storage_schemas.views import ViewSet

ANOTHER_RECIPE = "use the recipe and settings that made this cache, or point CACHE at a new place"
OTHER_IMAGES = "set DATA to the images that this cache was made from, or point CACHE at a new place"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ViewsPlan:
    """Everything that is to be cut."""

    manifest: ViewsManifest
    views: Mapping[ViewSet, Sequence[DrawnView]]
    images: Sequence[SourceImage]


def plan_views(recipe: Recipe, images: Sequence[SourceImage]) -> ViewsPlan:
    """Draw every view of a list of images."""
    views = draw_views(images, recipe.views)
    sets = {view_set: set_manifest(view_set, len(drawn), recipe.views) for view_set, drawn in views.items()}
    keys = digest({"keys": [image.key for image in images]})
    identity = views_identity(recipe) | {"images": {"count": len(images), "keys_sha256": keys}}
    return ViewsPlan(manifest=ViewsManifest(identity=identity, sets=sets), views=views, images=images)


def views_identity(recipe: Recipe) -> dict[str, Any]:
    """Return the part of the views' identity that a recipe decides."""
    return {"recipe": recipe.name, "views": views_settings(recipe.views)}


def require_recipe(cache: Cache, recipe: Recipe) -> ViewsManifest | None:
    """Return the manifest of a cache's views after checking that this recipe made it; None when there are none yet.

    Raises:
        IdentityError: it was another recipe, or other settings, or not Stillhouse.
    """
    if cache.attributes("") is None:
        _refuse_foreign(cache)
        return None
    cache.require()
    manifest = cache.views_manifest()
    if manifest is not None:
        stored = {name: value for name, value in manifest.identity.items() if name != "images"}
        require_same(f"recipe {recipe.name}", stored, views_identity(recipe), ANOTHER_RECIPE)
    return manifest


def _refuse_foreign(cache: Cache) -> None:
    # a run of ours that was killed at its very first object leaves that one's temporary file, and the folder
    if any(not name.endswith(TEMPORARY) for name in cache.store.listing(FEATURES)):
        found, fix = f"holds a {FEATURES} that Stillhouse did not make", "point CACHE at a new place"
        raise IdentityError("cache", [Problem(place=cache.store.uri, found=found, fix=fix)])


def details_of(manifest: ViewsManifest, specs: Iterable[TeacherSpec]) -> tuple[Detail, ...]:
    """Return what is to be cut at their own scale for the fixed ones among some teachers."""
    return tuple(
        Detail(
            teacher=spec.name,
            native=spec.native,
            identity=digest({"views": manifest.digest, "teacher": spec.name, "native": spec.native}),
        )
        for spec in specs
        if spec.size_rule == "fixed"
    )


def views_missing(cache: Cache, manifest: ViewsManifest, specs: Iterable[TeacherSpec]) -> bool:
    """Say whether any shard of the views, or of a detail that some teachers need, is not committed."""
    return bool(_tasks(cache, manifest, details_of(manifest, specs), views={}))


def make_views(cache: Cache, recipe: Recipe, specs: Sequence[TeacherSpec], data: str, run: RunConfig, say: Say) -> None:
    """Cut every view that is missing.

    Args:
        cache: where they go.
        recipe: what is cut.
        specs: teachers that will look; the fixed ones need details.
        data: the folder of images. It need not be given when nothing is missing.
        run: how the work is carried.
        say: takes lines for the user.

    Raises:
        MissingError: there are no images, or one's file cannot be read.
        IdentityError: the cache holds another recipe's views, or those of another image list.
        SettingError: more views were rejected than `run.max_rejected` allows. The others are committed.
    """
    manifest = require_recipe(cache, recipe)
    if manifest is None or views_missing(cache, manifest, specs):
        plan = _plan_over(manifest, recipe, data)
        manifest, details = plan.manifest, details_of(plan.manifest, specs)
        _prepare(cache, recipe, plan, details)
        _cut(cache, recipe, plan, details, run, say)
    else:
        if data:
            _plan_over(manifest, recipe, data)
        say(f"views: complete, nothing to do ({describe_sets(manifest)})")
    require_few_rejected(cache, manifest, run.max_rejected)


def _plan_over(manifest: ViewsManifest | None, recipe: Recipe, data: str) -> ViewsPlan:
    """Plan the views of a folder, which must be those that the cache was made from where there is one."""
    plan = plan_views(recipe, list_images(data))
    if manifest is not None:
        require_same(f"image list of {data}", manifest.identity, plan.manifest.identity, OTHER_IMAGES)
    return plan


def describe_sets(manifest: ViewsManifest) -> str:
    """Return a line such as `176 views: low-128 70, low-192 66, high-256 40`."""
    counts = {view_set.name: one.grid.rows for view_set, one in manifest.sets.items()}
    return f"{sum(counts.values())} views: {', '.join(f'{name} {rows}' for name, rows in counts.items())}"


def _prepare(cache: Cache, recipe: Recipe, plan: ViewsPlan, details: Sequence[Detail]) -> None:
    publish_group(cache.store, "", {"format": FORMAT_VERSION, "recipe": recipe.name})
    publish_group(cache.store, "views", plan.manifest.attributes())
    images = pa.Table.from_pylist([{"image": one.key, "uri": one.uri} for one in plan.images], IMAGES)
    publish_bytes(cache.store, IMAGES_TABLE, to_parquet(images))
    for view_set, one in plan.manifest.sets.items():
        create_array(cache.store, pixels_spec(view_set, one))
        for detail in details:
            create_array(cache.store, detail_spec(view_set, one, detail.teacher, detail.native))


def _cut(cache: Cache, recipe: Recipe, plan: ViewsPlan, details: Sequence[Detail], run: RunConfig, say: Say) -> None:
    tasks = _tasks(cache, plan.manifest, details, plan.views)
    total = sum(one.grid.rows for one in plan.manifest.sets.values())
    waiting = sum(len(task.views) for task in tasks)
    say(f"views: {describe_sets(plan.manifest)}; {waiting} to cut in {len(tasks)} shards")
    factory = partial(ViewCutter, store=cache.store, config=recipe.views)
    reports: list[CutReport] = []
    with (
        open_pool(factory, replace(run, gpus=0), tasks=len(tasks)) as pool,
        progress("views", done=total - waiting, total=total) as bar,
    ):
        for _, report in pool.run("cut", tasks):
            reports.append(report)
            bar.add(report.views + report.rejected)
    cut, rejected, size = (sum(getattr(one, name) for one in reports) for name in ("views", "rejected", "bytes"))
    say(f"views: cut {cut}, rejected {rejected}, wrote {size / 1e6:.1f} MB in {bar.rate}")


def _tasks(
    cache: Cache, manifest: ViewsManifest, details: Sequence[Detail], views: Mapping[ViewSet, Sequence[DrawnView]]
) -> list[CutTask]:
    return [
        task
        for view_set, one in manifest.sets.items()
        for task in _tasks_of_set(cache, manifest, view_set, details, views.get(view_set, ()))
    ]


def _tasks_of_set(
    cache: Cache, manifest: ViewsManifest, view_set: ViewSet, details: Sequence[Detail], views: Sequence[DrawnView]
) -> Iterable[CutTask]:
    one = manifest.sets[view_set]
    cut = cache.records(views_unit(view_set), manifest.digest)
    detailed = {detail: cache.records(detail_unit(view_set, detail.teacher), detail.identity) for detail in details}
    for shard in range(one.grid.shards):
        canvases = shard not in cut
        lacking = tuple(detail for detail in details if shard not in detailed[detail])
        if canvases or lacking:
            slots = one.grid.slots(shard)
            yield CutTask(
                view_set=view_set,
                manifest=one,
                shard=shard,
                views=tuple(views[slots.start : slots.stop]),
                identity=manifest.digest,
                canvases=canvases,
                details=lacking,
            )
