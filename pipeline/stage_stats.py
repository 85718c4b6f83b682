"""The stats stage: over everything stored, how far PHI-S is from perfect, and how wide the summaries' cone is."""

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any

import numpy as np

from pipeline.config import RunConfig
from pipeline.dispersion import dispersion, mean_direction, merge_angles, merge_directions
from pipeline.measure_shard import FeatureMeasurer, Measured, MeasureTask
from pipeline.moments import Moments, merge_all, variance
from pipeline.pools import AbstractPool, open_pool
from pipeline.progress import progress
from pipeline.publish import publish_group
from storage_schemas.cache import Cache
from storage_schemas.errors import MissingError, Problem
from storage_schemas.layout import features_unit
from storage_schemas.manifest import TeacherManifest
from storage_schemas.small_arrays import write_small_arrays
from storage_schemas.views import ViewSet

Say = Callable[[str], None]


def measure_teachers(cache: Cache, teachers: Sequence[str], run: RunConfig, say: Say) -> None:
    """Measure the features of teachers, those that were not measured since they last grew.

    Raises:
        MissingError: a teacher has no features, or not all of them.
    """
    stale = []
    for teacher in teachers:
        manifest = complete_teacher(cache, teacher)
        stats = cache.stats(teacher)
        if stats is not None and stats.identity == manifest.digest:
            say(f"stats {teacher}: complete, nothing to do ({stats.views} views measured)")
        else:
            stale.append((teacher, manifest))
    if not stale:
        return
    factory = partial(FeatureMeasurer, store=cache.store, threads=run.threads)
    shards = sum(len(_tasks(cache, teacher, manifest)) for teacher, manifest in stale)
    with open_pool(factory, run, tasks=shards) as pool:
        for teacher, manifest in stale:
            _measure(cache, teacher, manifest, pool, say)


def complete_teacher(cache: Cache, teacher: str) -> TeacherManifest:
    """Return a teacher's manifest after checking that every shard of its features is committed.

    Raises:
        MissingError: there are none, or some are missing; the sets are named.
    """
    fix = f"run `make extract TEACHER={teacher}`; it resumes"
    manifest, views = cache.teacher_manifest(teacher), cache.views_manifest()
    if manifest is None or views is None:
        raise MissingError(f"teacher {teacher}", [Problem(place=cache.store.uri, found="has no features", fix=fix)])
    problems = []
    for view_set, one in views.sets.items():
        lacking = one.grid.shards - len(cache.records(features_unit(view_set, teacher), manifest.digest))
        if lacking:
            found = f"{lacking} of {one.grid.shards} shards are not committed"
            problems.append(Problem(place=view_set.name, found=found, fix=fix))
    if problems:
        raise MissingError(f"teacher {teacher}", problems)
    return manifest


def _tasks(cache: Cache, teacher: str, manifest: TeacherManifest) -> list[MeasureTask]:
    return [
        MeasureTask(teacher=teacher, view_set=view_set, shard=shard, summarised=manifest.spec.summary_dim is not None)
        for view_set in manifest.tokens
        for shard, records in cache.records(features_unit(view_set, teacher), manifest.digest).items()
        if records[0].rows
    ]


def _measure(cache: Cache, teacher: str, manifest: TeacherManifest, pool: AbstractPool, say: Say) -> None:
    tasks = _tasks(cache, teacher, manifest)
    first: dict[int, Measured] = {}
    total = sum(one.grid.rows for one in _sets(cache))
    with progress(f"stats {teacher}", done=0, total=total) as bar:
        for index, measured in pool.run("measure", tasks):
            first[index] = measured
            bar.add(measured.views)
    # merged in the order of the tasks, so that the sums do not depend on who was first
    in_order = [first[index] for index in range(len(tasks))]
    arrays, attributes = _spatial(tasks, in_order)
    if manifest.spec.summary_dim is not None:
        arrays |= _summary(tasks, in_order, pool)
    views = sum(one.views for one in in_order)
    group = f"teachers/{teacher}/stats"
    write_small_arrays(cache.store, group, arrays)
    for view_set in attributes["sets"]:
        publish_group(cache.store, f"{group}/{view_set}")
    about = {"identity": manifest.digest, "views": views, "summarised": manifest.spec.summary_dim is not None}
    publish_group(cache.store, group, about | attributes)
    say(f"stats {teacher}: measured {views} views, {attributes['tokens']} tokens in {bar.rate}")


def _spatial(
    tasks: Sequence[MeasureTask], measured: Sequence[Measured]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    by_set: dict[ViewSet, list[Moments]] = {}
    for task, one in zip(tasks, measured, strict=True):
        by_set.setdefault(task.view_set, []).append(one.moments)
    sets = {view_set.name: merge_all(parts) for view_set, parts in by_set.items()}
    pooled = merge_all(sets.values())
    arrays = {"mean": pooled.mean, "variance": variance(pooled)}
    for name, moments in sets.items():
        arrays |= {f"{name}/mean": moments.mean, f"{name}/variance": variance(moments)}
    return arrays, {"tokens": pooled.count, "sets": {name: moments.count for name, moments in sets.items()}}


def _summary(tasks: Sequence[MeasureTask], measured: Sequence[Measured], pool: AbstractPool) -> dict[str, np.ndarray]:
    directions = [one.directions for one in measured if one.directions is not None]
    direction = mean_direction(reduce(merge_directions, directions))
    angles = dict(pool.run("angles", [(task, direction) for task in tasks]))
    total = reduce(merge_angles, (angles[index] for index in range(len(tasks))))
    return {"dispersion": np.array(dispersion(total)), "mean_direction": direction}


def _sets(cache: Cache) -> list[Any]:
    views = cache.views_manifest()
    return [] if views is None else list(views.sets.values())
