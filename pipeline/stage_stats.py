"""The stats stage: over everything stored, how far PHI-S is from perfect, and how wide the summaries' cone is."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial, reduce
from itertools import groupby
from typing import Any

import numpy as np

from pipeline.config import RunConfig
from pipeline.dispersion import DirectionSum, dispersion, mean_direction, merge_angles, merge_directions
from pipeline.measure_shard import FeatureMeasurer, MeasureTask
from pipeline.moments import Moments, merge_all, variance
from pipeline.pools import AbstractPool, in_order, open_pool
from pipeline.progress import Progress, Say, progress
from pipeline.publish import publish_group
from storage_schemas.cache import Cache
from storage_schemas.errors import MissingError, Problem
from storage_schemas.layout import features_unit
from storage_schemas.manifest import TeacherManifest
from storage_schemas.small_arrays import write_small_arrays


def measure_teachers(cache: Cache, teachers: Sequence[str], run: RunConfig, say: Say) -> None:
    """Measure the features of teachers, those that were not measured since they last grew.

    Raises:
        MissingError: no teacher is named; or one has no features, or not all of them.
    """
    if not teachers:
        fix = "run `make extract TEACHER=…`"
        raise MissingError("teacher", [Problem(place=cache.store.uri, found="holds the features of none", fix=fix)])
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
    with open_pool(factory, replace(run, gpus=0), tasks=shards) as pool:
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
    summarised = manifest.spec.summary_dim is not None
    return [
        MeasureTask(teacher=teacher, view_set=view_set, shard=shard, views=records[0].rows, summarised=summarised)
        for view_set in manifest.tokens
        for shard, records in cache.records(features_unit(view_set, teacher), manifest.digest).items()
        if records[0].rows  # none where every image of the shard was rejected
    ]


def _measure(cache: Cache, teacher: str, manifest: TeacherManifest, pool: AbstractPool, say: Say) -> None:
    tasks = _tasks(cache, teacher, manifest)
    directions: list[DirectionSum] = []
    with progress(f"stats {teacher}", done=0, total=sum(task.views for task in tasks)) as bar:
        moments = _moments(tasks, pool, bar, directions)
    arrays, attributes = _spatial(moments)
    if directions:
        arrays |= _summary(tasks, directions, pool)
    group = f"teachers/{teacher}/stats"
    write_small_arrays(cache.store, group, arrays)
    for view_set in moments:
        publish_group(cache.store, f"{group}/{view_set}")
    about = {"identity": manifest.digest, "views": bar.views, "summarised": bool(directions)}
    publish_group(cache.store, group, about | attributes)
    say(f"stats {teacher}: measured {bar.views} views, {attributes['tokens']} tokens in {bar.rate}")


def _moments(
    tasks: Sequence[MeasureTask], pool: AbstractPool, bar: Progress, directions: list[DirectionSum]
) -> dict[str, Moments]:
    """Return the moments of each view set, merged as they come: those of all shards may not fit in memory at once."""

    def measured() -> Iterator[tuple[MeasureTask, Moments]]:
        for task, one in zip(tasks, in_order(pool.run("measure", tasks)), strict=True):
            bar.add(task.views)
            if one.directions is not None:
                directions.append(one.directions)
            yield task, one.moments

    by_set = groupby(measured(), key=lambda pair: pair[0].view_set.name)
    return {name: merge_all(moments for _, moments in pairs) for name, pairs in by_set}


def _spatial(sets: Mapping[str, Moments]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    pooled = merge_all(sets.values())
    arrays = {"mean": pooled.mean, "variance": variance(pooled)}
    for name, moments in sets.items():
        arrays |= {f"{name}/mean": moments.mean, f"{name}/variance": variance(moments)}
    return arrays, {"tokens": pooled.count, "sets": {name: moments.count for name, moments in sets.items()}}


def _summary(
    tasks: Sequence[MeasureTask], directions: Sequence[DirectionSum], pool: AbstractPool
) -> dict[str, np.ndarray]:
    direction = mean_direction(reduce(merge_directions, directions))
    angles = in_order(pool.run("angles", [(task, direction) for task in tasks]))
    return {"dispersion": np.array(dispersion(reduce(merge_angles, angles))), "mean_direction": direction}
