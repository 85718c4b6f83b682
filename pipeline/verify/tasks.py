"""One task for each committed shard, and carrying tasks out in a pool of workers."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from pipeline.config import RunConfig
from pipeline.inventory.commit_log import exported_names, unit_command
from pipeline.inventory.present import rewrite_fix
from pipeline.inventory.units import Unit
from pipeline.verify.manifests import CheckedManifests
from pipeline.verify.shard_task import CheckTask
from pipeline.verify.worker import CheckReport, ShardChecker
from pipeline.views.order import DrawnView
from pipeline.workers.open_pool import open_pool
from pipeline.workers.ordered import in_order
from pipeline.workers.pool import Task, Worker, WorkerFactory
from pipeline.workers.progress import progress
from storage_schemas.cache import Cache
from storage_schemas.commits import UnitLog
from storage_schemas.format.layout import views_unit
from storage_schemas.unit_log import empty_log

Report = TypeVar("Report")


def check_tasks(cache: Cache, manifests: CheckedManifests, committed: Mapping[str, UnitLog]) -> list[CheckTask]:
    """Return a task for every committed shard.

    Args:
        cache: the cache.
        manifests: its manifests.
        committed: the commit log of each unit.
    """
    units = {unit.name: unit for unit in manifests.units}
    logs = committed.values()
    return [_task(cache, manifests, committed, units.get(log.unit), log, shard) for log in logs for shard in log]


def check_shards(cache: Cache, tasks: Sequence[CheckTask], run: RunConfig, *, quick: bool) -> list[CheckReport]:
    """Carry out every task, and return the reports in the order of the tasks."""
    factory, slots = partial(ShardChecker, store=cache.store, quick=quick), [_slots(task) for task in tasks]
    return in_pool(factory, ShardChecker.check, tasks, slots, run, "verify")


def in_pool(
    factory: WorkerFactory[Worker],
    step: Callable[[Worker, Task], Report],
    tasks: Sequence[Task],
    views: Sequence[int],
    run: RunConfig,
    title: str,
) -> list[Report]:
    """Carry out tasks in a pool of workers, and return the reports in the order of the tasks.

    Args:
        factory: makes a worker.
        step: the method of the worker that carries out a task.
        tasks: what it is called with.
        views: how many views each task reads.
        run: executor and workers.
        title: what the progress bar is called.
    """
    reports: list[Report] = []
    with open_pool(factory, run, tasks=len(tasks)) as pool, progress(title, done=0, total=sum(views)) as bar:
        for report, count in zip(in_order(pool.run(step, tasks)), views, strict=True):
            reports.append(report)
            bar.add(count)
    return reports


def _task(
    cache: Cache, manifests: CheckedManifests, logs: Mapping[str, UnitLog], unit: Unit | None, log: UnitLog, shard: int
) -> CheckTask:
    name, recipe = log.unit, manifests.recipe
    views = name if unit is None else views_unit(unit.view_set)
    canvases = logs.get(views) or empty_log(cache.store, views)
    exported = exported_names(manifests.views and manifests.views.manifest, manifests.teachers)
    return CheckTask(
        name=name,
        shard=shard,
        record=log.place(shard),
        snapshot=log.snapshot_of(shard),
        fix=rewrite_fix(cache, log, shard, unit_command(cache, recipe, name, exported)),
        views_fix=rewrite_fix(cache, canvases, shard, unit_command(cache, recipe, views, exported)),
        unit=unit,
        exported=unit is not None and unit.teacher is not None and unit.teacher.name in exported,
        settings=None if manifests.views is None else manifests.views.settings,
        drawn=_drawn_views(manifests, unit, shard),
    )


def _drawn_views(manifests: CheckedManifests, unit: Unit | None, shard: int) -> tuple[DrawnView, ...] | None:
    if unit is None or manifests.views is None or unit.name != views_unit(unit.view_set):
        return None
    drawn = manifests.views.drawn.get(unit.view_set)
    if drawn is None or shard >= unit.grid.shards:  # the check of its record names a shard that the grid lacks
        return None
    given = unit.grid.drawn(shard)
    return tuple(drawn[given.start : given.stop])


def _slots(task: CheckTask) -> int:
    if task.unit is None or task.shard >= task.unit.grid.shards:
        return 0
    return len(task.unit.grid.slots(task.shard))
