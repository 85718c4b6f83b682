"""The schedule of a run: the order of views in every stage, one stage after another.

A later stage continues the epochs of each view set where the stage before stopped: over the whole run, every use of a
view has a window drawn for it alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import final

from storage_schemas.format.errors import Problem, SettingError
from storage_schemas.format.views import Partition, ViewSet
from trainer.data.order import steps, views_used_before
from trainer.data.order_types import Order, ShuffledSet, StepPart
from trainer.data.set_source import SetSource
from trainer.data.source import Source
from trainer.settings.config import TrainRecipe
from trainer.settings.stages import Stage, stages


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScheduledStage:
    """One stage, and the order of its views."""

    stage: Stage
    order: Order


Schedule = Sequence[ScheduledStage]
"""The stages of a run, in order."""


def make_schedule(source: Source, recipe: TrainRecipe) -> Schedule:
    """Return the schedule of a run.

    Raises:
        SettingError: a view set has no training view; or it has a margin and the run has no shifts, or the reverse.
    """
    _require_training_views(source)
    _require_margin(source, recipe.data.shifts)
    schedule: list[ScheduledStage] = []
    used, cycles = dict.fromkeys(source.sets, 0), 0
    for stage in stages(recipe):
        order = _order(source, recipe, stage, cycles, dict(used))
        for partition in order.batches:
            used |= views_used_before(order, partition, stage.steps)
        cycles += -(-stage.steps // order.steps_per_cycle)
        schedule.append(ScheduledStage(stage=stage, order=order))
    return schedule


def scheduled_steps(schedule: Schedule, start: int = 0) -> Iterator[tuple[StepPart, ...]]:
    """Yield the rows of each step, from step `start` to the last."""
    for scheduled in schedule:
        stage, within = scheduled.stage, max(start - scheduled.stage.first, 0)
        if within < stage.steps:
            yield from islice(steps(scheduled.order, within), stage.steps - within)


def batch_sizes(recipe: TrainRecipe) -> dict[Partition, int]:
    """Return the views per step of each partition."""
    return {"low": recipe.data.batch_low, "high": recipe.data.batch_high}


def _order(
    source: Source,
    recipe: TrainRecipe,
    stage: Stage,
    first_cycle: int,
    views_used: Mapping[ViewSet, int],
) -> Order:
    proportions = stage.proportions
    sets = {
        view_set: _shuffled_set(set_source, proportions.get(view_set.name))
        for view_set, set_source in source.sets.items()
        if not proportions or view_set.name in proportions
    }
    partitions = {view_set.partition for view_set in sets}
    sizes = {partition: size for partition, size in batch_sizes(recipe).items() if partition in partitions}
    return Order(
        seed=recipe.seed,
        sets=sets,
        batches=sizes,
        window_shards=recipe.data.window_shards,
        rule=recipe.data.order,
        first_step=stage.first,
        first_cycle=first_cycle,
        views_used=views_used,
    )


def _shuffled_set(set_source: SetSource, proportion: float | None) -> ShuffledSet:
    rows = set_source.rows["train"]
    weight = float(len(rows)) if proportion is None else float(proportion)
    return ShuffledSet(rows=rows, rows_per_shard=set_source.rows_per_shard, proportion=weight)


def _require_training_views(source: Source) -> None:
    empty = [view_set.name for view_set, set_source in source.sets.items() if not len(set_source.rows["train"])]
    if empty:
        fix = "leave it out with data.proportions, or cut more views"
        problems = [Problem(place=name, found="has no training view", fix=fix) for name in empty]
        raise SettingError("view sets", problems)


def _require_margin(source: Source, shifts: bool) -> None:
    wrong = [view_set.name for view_set, found in source.sets.items() if bool(found.geometry.margin) != shifts]
    if wrong and shifts:
        found, fix = "has no margin, so windows cannot shift", "cut views with a margin, or set data.shifts to False"
    else:
        found, fix = (
            "has a margin, so its teachers' windows are shifted",
            "cut views with --views.margin 0, or set data.shifts to True",
        )
    if wrong:
        raise SettingError("data.shifts", [Problem(place=name, found=found, fix=fix) for name in wrong])
