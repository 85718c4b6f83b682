"""The tasks of `verify`, and carrying them out."""

from collections.abc import Mapping, Sequence
from functools import partial

from pipeline.config import RunConfig
from pipeline.inventory.commit_log import exported_names, unit_command
from pipeline.inventory.units import Unit
from pipeline.verify.declared import Declared
from pipeline.verify.task import CheckTask, rewrite
from pipeline.verify.worker import CheckReport, ShardChecker
from pipeline.views.sampling import DrawnView
from pipeline.workers.open_pool import open_pool
from pipeline.workers.ordered import in_order
from pipeline.workers.progress import progress
from storage_schemas.cache import Cache
from storage_schemas.format.layout import views_unit


def check_tasks(cache: Cache, declared: Declared, committed: Mapping[str, Sequence[int]]) -> list[CheckTask]:
    """Return the task of every committed shard.

    Args:
        cache: the cache.
        declared: what it says of itself.
        committed: shards that each unit has commit records of.
    """
    units = {unit.name: unit for unit in declared.units}
    return [_task(cache, declared, name, units.get(name), shard) for name in committed for shard in committed[name]]


def _task(cache: Cache, declared: Declared, name: str, unit: Unit | None, shard: int) -> CheckTask:
    views = name if unit is None else views_unit(unit.view_set)
    exported = exported_names(declared.views and declared.views.manifest, declared.teachers)
    return CheckTask(
        name=name,
        shard=shard,
        fix=rewrite(name, shard, unit_command(cache, declared.recipe, name, exported)),
        views_fix=rewrite(views, shard, unit_command(cache, declared.recipe, views, exported)),
        unit=unit,
        exported=unit is not None and unit.teacher is not None and unit.teacher.name in exported,
        settings=None if declared.views is None else declared.views.settings,
        drawn=_drawn(declared, unit, shard),
    )


def _drawn(declared: Declared, unit: Unit | None, shard: int) -> tuple[DrawnView, ...] | None:
    if unit is None or declared.views is None or unit.name != views_unit(unit.view_set):
        return None
    drawn = declared.views.drawn.get(unit.view_set)
    # a record of a shard that the grid does not have is named for that
    if drawn is None or shard >= unit.grid.shards:
        return None
    given = unit.grid.drawn(shard)
    return tuple(drawn[given.start : given.stop])


def check_shards(cache: Cache, tasks: Sequence[CheckTask], run: RunConfig, *, quick: bool) -> list[CheckReport]:
    """Run every task, and return what became of them, in their order."""
    reports: list[CheckReport] = []
    waiting = [_slots(task) for task in tasks]
    factory = partial(ShardChecker, store=cache.store, quick=quick)
    with open_pool(factory, run, tasks=len(tasks)) as pool, progress("verify", done=0, total=sum(waiting)) as bar:
        for report, views in zip(in_order(pool.run(ShardChecker.check, tasks)), waiting, strict=True):
            reports.append(report)
            bar.add(views)
    return reports


def _slots(task: CheckTask) -> int:
    if task.unit is None or task.shard >= task.unit.grid.shards:
        return 0
    return len(task.unit.grid.slots(task.shard))
