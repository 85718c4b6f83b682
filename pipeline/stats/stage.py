"""The stats stage: over everything stored, how far PHI-S is from perfect, and how wide the summaries' cone is."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import final

from pipeline.config import RunConfig
from pipeline.leases.lease import leased, teacher_lease
from pipeline.stats.dispersion import AngleSum, DirectionSum, mean_direction, merge_angles
from pipeline.stats.observed import Observed, merge_observed
from pipeline.stats.stored import extended, read_measured, write_measured
from pipeline.stats.worker import FeatureMeasurer, MeasureTask, branches
from pipeline.workers.open_pool import open_pool
from pipeline.workers.ordered import TreeReduction, in_order
from pipeline.workers.pool import AbstractPool
from pipeline.workers.progress import Progress, Say, progress
from storage_schemas.cache import Cache
from storage_schemas.format.errors import MissingError, Problem
from storage_schemas.format.layout import features_unit
from storage_schemas.format.manifest import TeacherManifest
from storage_schemas.format.views import ViewSet


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Measurement:
    """One teacher, and what is to be measured of it."""

    manifest: TeacherManifest
    held: Mapping[ViewSet, Mapping[int, int]]
    """Views in every committed shard, by set."""
    new: Mapping[ViewSet, frozenset[int]]
    """Shards that were not measured yet, by set."""

    @property
    def name(self) -> str:
        return self.manifest.spec.name

    @property
    def first_pass(self) -> list[MeasureTask]:
        """Tasks over the new shards."""
        return self._tasks(self.new)

    @property
    def second_pass(self) -> list[MeasureTask]:
        """Tasks over all shards: with every new summary the mean direction turns, and all angles with it."""
        return self._tasks({view_set: frozenset(views) for view_set, views in self.held.items()})

    def _tasks(self, shards: Mapping[ViewSet, frozenset[int]]) -> list[MeasureTask]:
        summarised, tasks = self.manifest.spec.summary_dim is not None, []
        for view_set, numbers in shards.items():
            # a shard holds no view where every one of its images was rejected
            views = [(shard, held) for shard, held in self.held[view_set].items() if shard in numbers and held]
            tasks += branches(self.name, view_set, views, summarised)
        return tasks


def measure_teachers(cache: Cache, teachers: Sequence[str], run: RunConfig, say: Say) -> None:
    """Measure the features of teachers: the shards that were not measured yet, and merge them with those that were.

    Raises:
        MissingError: no teacher is named; or one has no features, or not all of them.
        BusyError: another run is writing what belongs to one of them.
    """
    if not teachers:
        fix = "run `make extract TEACHER=…`"
        raise MissingError("teacher", [Problem(place=cache.store.uri, found="holds the features of none", fix=fix)])
    unmeasured = [teacher for teacher in teachers if _stale(cache, teacher, say)]
    with ExitStack() as stack:
        leases = dict.fromkeys(map(teacher_lease, unmeasured))
        held = {one: stack.enter_context(leased(cache, one, "stats")).cache for one in leases}
        # another run may have measured some meanwhile
        stale = [(ours, one) for name in unmeasured if (one := _stale(ours := held[teacher_lease(name)], name, say))]
        if not stale:
            return
        factory = partial(FeatureMeasurer, store=cache.store, threads=run.threads)
        tasks = sum(len(one.second_pass) for _, one in stale)
        with open_pool(factory, replace(run, gpus=0), tasks=tasks) as pool:
            for ours, one in stale:
                _measure(ours, one, pool, run.report, say)


def _stale(cache: Cache, teacher: str, say: Say) -> _Measurement | None:
    """Return what is to be measured of a teacher; None, after saying so, where that is nothing."""
    one, stats = _plan(cache, complete_teacher(cache, teacher)), cache.stats(teacher)
    if stats is None or any(one.new.values()):
        return one
    say(f"stats {teacher}: complete, nothing to do ({stats.views} views measured)")
    return None


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


def _plan(cache: Cache, manifest: TeacherManifest) -> _Measurement:
    """Find what is new: all, where it was not these features that were measured."""
    name, held = manifest.spec.name, {}
    for view_set in manifest.tokens:
        commits = cache.records(features_unit(view_set, name), manifest.digest)
        held[view_set] = {shard: records[0].rows for shard, records in commits.items()}
    stats = cache.stats(name)
    measured = {} if stats is None or stats.identity != manifest.digest else stats.shards
    new = {view_set: frozenset(views) - measured.get(view_set, frozenset()) for view_set, views in held.items()}
    return _Measurement(manifest=manifest, held=held, new=new)


def _measure(cache: Cache, one: _Measurement, pool: AbstractPool[FeatureMeasurer], report: str, say: Say) -> None:
    tasks, before = one.first_pass, read_measured(cache, one.manifest)
    total = before.views + sum(task.views for task in tasks)
    with progress(f"stats {one.name}", done=before.views, total=total, report=report) as bar:
        observed = observe_branches(tasks, pool, bar)
    measured = extended(before, bar.views, one.new, observed)
    angles = None if measured.directions is None else observe_all_angles(one.second_pass, measured.directions, pool)
    write_measured(cache, one.manifest, measured, angles)
    tokens = sum(moments.count for moments in measured.sets.values())
    merged = f", merged with {before.views} measured before" if before.views else ""
    say(f"stats {one.name}: measured {bar.views} views in {bar.rate}{merged}; {tokens} tokens in all")


def observe_branches(
    tasks: Sequence[MeasureTask], pool: AbstractPool[FeatureMeasurer], bar: Progress
) -> dict[ViewSet, Observed]:
    """First pass: run branches, and merge those of each set as a fixed tree."""
    leaves = Counter(task.view_set for task in tasks)
    trees = {one: TreeReduction(leaves=count, merge=merge_observed) for one, count in leaves.items()}
    firsts = {task.view_set: index for index, task in reversed(list(enumerate(tasks)))}
    for index, observed in pool.run(FeatureMeasurer.measure, tasks):
        task = tasks[index]
        bar.add(task.views, tokens=observed.moments.count)
        trees[task.view_set].add(index - firsts[task.view_set], observed)
    return {view_set: tree.result() for view_set, tree in trees.items()}


def observe_all_angles(
    tasks: Sequence[MeasureTask], directions: DirectionSum, pool: AbstractPool[FeatureMeasurer]
) -> AngleSum:
    """Second pass: the angles of all summaries to their mean direction. Summaries are small beside spatial features."""
    direction = mean_direction(directions)
    return reduce(merge_angles, in_order(pool.run(FeatureMeasurer.angles, [(task, direction) for task in tasks])))
