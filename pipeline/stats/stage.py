"""The stats stage: measure all stored features: how far they are from PHI-S units, how far summaries spread."""

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial, reduce

from pipeline.config import RunConfig
from pipeline.leases.lease import leased, teacher_lease
from pipeline.stats.committed import CommittedFeatures, read_features
from pipeline.stats.dispersion import DirectionSum, SplitAngles, merge_splits
from pipeline.stats.set_sums import SetSums, merge_set_sums
from pipeline.stats.stored import add_shards, read_sums, write_stats
from pipeline.stats.task import MeasureTask
from pipeline.stats.worker import FeatureMeasurer
from pipeline.workers.open_pool import open_pool
from pipeline.workers.ordered import TreeReduction, in_order
from pipeline.workers.pool import AbstractPool
from pipeline.workers.progress import Progress, Say, progress
from storage_schemas.cache import Cache
from storage_schemas.format.views import ViewSet
from storage_schemas.rejected import rejected_line

MeasurerPool = AbstractPool[FeatureMeasurer]


def measure_teachers(cache: Cache, teachers: Sequence[str], run: RunConfig, say: Say) -> dict[str, CommittedFeatures]:
    """Measure the shards of teachers' features that are not measured yet, and merge them with those that are.

    Returns:
        By teacher, its features with the statistics of all of them.

    Raises:
        MissingError: no teacher is named; or one has no features, or not all of them.
        BusyError: another run is writing features or statistics of one of them.
    """
    features = read_features(cache, teachers)
    if rejected := max(teacher.rejected for teacher in features.values()):
        say(f"stats: {rejected_line(cache.store.uri, rejected)}")
    unmeasured = _unmeasured(features, say)
    with ExitStack() as stack:
        leases = dict.fromkeys(map(teacher_lease, unmeasured))
        held = {lease: stack.enter_context(leased(cache, lease, "stats")).cache for lease in leases}
        if unmeasured:
            again = read_features(cache, unmeasured)  # another run may have measured some in the meantime
            features |= again
            unmeasured = _unmeasured(again, say)
        if unmeasured:
            factory = partial(FeatureMeasurer, store=cache.store, threads=run.threads)
            tasks = sum(len(features[name].second_pass) for name in unmeasured)
            pool = stack.enter_context(open_pool(factory, replace(run, gpus=0), tasks=tasks))
            for name in unmeasured:
                features[name] = _measure(held[teacher_lease(name)], features[name], pool, run.report, say)
    return features


def _unmeasured(features: dict[str, CommittedFeatures], say: Say) -> list[str]:
    """Return the teachers that have shards to measure, after telling the user about the others."""
    for name, teacher in features.items():
        if teacher.is_measured and teacher.stats is not None:
            say(f"stats {name}: complete, nothing to do ({teacher.stats.views} views measured)")
    return [name for name, teacher in features.items() if not teacher.is_measured]


def _measure(cache: Cache, features: CommittedFeatures, pool: MeasurerPool, report: str, say: Say) -> CommittedFeatures:
    """Measure a teacher's new shards and write its statistics. Return its features with these."""
    name, tasks = features.name, features.first_pass
    before = read_sums(cache, features.manifest, features.stats)
    total = before.views + sum(task.views for task in tasks)
    with progress(f"stats {name}", done=before.views, total=total, report=report) as bar:
        observed = observe_branches(tasks, pool, bar)
    sums, angles = add_shards(before, bar.views, features.new_shards, observed), None
    if sums.directions is not None:
        angles = observe_all_angles(features.second_pass, sums.directions, pool)
    write_stats(cache, features.manifest, sums, angles)
    tokens = sum(moments.count for moments in sums.sets.values())
    merged = f", merged with {before.views} measured before" if before.views else ""
    say(f"stats {name}: measured {bar.views} views in {bar.rate}{merged}; {tokens} tokens in all")
    return replace(features, stats=cache.stats(name))


def observe_branches(tasks: Sequence[MeasureTask], pool: MeasurerPool, bar: Progress) -> dict[ViewSet, SetSums]:
    """First pass: run the branches of every set, and merge those of each set as a fixed tree."""
    leaves = Counter(task.view_set for task in tasks)
    trees = {view_set: TreeReduction(leaves=count, merge=merge_set_sums) for view_set, count in leaves.items()}
    firsts = {task.view_set: index for index, task in reversed(list(enumerate(tasks)))}
    for index, sums in pool.run(FeatureMeasurer.measure, tasks):
        task = tasks[index]
        bar.add(task.views, tokens=sums.moments.count)
        trees[task.view_set].add(index - firsts[task.view_set], sums)
    return {view_set: tree.result() for view_set, tree in trees.items()}


def observe_all_angles(tasks: Sequence[MeasureTask], directions: DirectionSum, pool: MeasurerPool) -> SplitAngles:
    """Second pass: each summary's angle to the mean direction of the others. Summaries are small beside features."""
    return reduce(merge_splits, in_order(pool.run(FeatureMeasurer.angles, [(task, directions) for task in tasks])))
