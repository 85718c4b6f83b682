"""The course of a run: the order of views in every stage, one after another.

A later stage goes on dealing where an earlier one stopped, so that a view's windows stay fresh over the whole run.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import final

from storage_schemas.format.errors import Problem, SettingError
from storage_schemas.format.views import Partition, ViewSet
from trainer.data.order import Deck, Order, StepPart, dealt_before, steps
from trainer.data.set_source import SetSource
from trainer.data.source import Source
from trainer.settings.config import TrainRecipe
from trainer.settings.stages import Stage, stages


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Leg:
    """One stage, and the order of its views."""

    stage: Stage
    order: Order


def make_course(source: Source, recipe: TrainRecipe) -> list[Leg]:
    """Return the legs of a run.

    Raises:
        SettingError: a view set without training views, which could fill no batch; or with room for shifts where the
            run has none, or without where it has.
    """
    _require_training_views(source)
    _require_room(source, recipe.data.shifts)
    legs: list[Leg] = []
    dealt, epochs = dict.fromkeys(source.sets, 0), 0
    for stage in stages(recipe):
        leg = Leg(stage=stage, order=_order(source, recipe, stage.proportions, epochs, dict(dealt)))
        for partition in leg.order.batches:
            dealt |= dealt_before(leg.order, partition, stage.steps)
        epochs += -(-stage.steps // leg.order.steps_per_epoch)
        legs.append(leg)
    return legs


def course_steps(legs: list[Leg], start: int = 0) -> Iterator[tuple[StepPart, ...]]:
    """Yield what each step takes, from step `start` to the last."""
    for leg in legs:
        within = max(start - leg.stage.first, 0)
        if within < leg.stage.steps:
            yield from islice(steps(leg.order, within), leg.stage.steps - within)


def batch_sizes(recipe: TrainRecipe) -> dict[Partition, int]:
    """Return the views per step of each partition."""
    return {"low": recipe.data.batch_low, "high": recipe.data.batch_high}


def _order(
    source: Source,
    recipe: TrainRecipe,
    proportions: Mapping[str, float],
    first_epoch: int,
    dealt: Mapping[ViewSet, int],
) -> Order:
    chosen = {one: held for one, held in source.sets.items() if not proportions or one.name in proportions}
    decks = {view_set: _deck(one, proportions.get(view_set.name)) for view_set, one in chosen.items()}
    partitions = {view_set.partition for view_set in decks}
    sizes = {partition: size for partition, size in batch_sizes(recipe).items() if partition in partitions}
    return Order(
        seed=recipe.seed,
        decks=decks,
        batches=sizes,
        window_shards=recipe.data.window_shards,
        first_epoch=first_epoch,
        dealt=dealt,
    )


def _deck(one: SetSource, proportion: float | None) -> Deck:
    rows = one.rows["train"]
    often = float(len(rows)) if proportion is None else float(proportion)
    return Deck(rows=rows, rows_per_shard=one.rows_per_shard, proportion=often)


def _require_training_views(source: Source) -> None:
    if empty := [view_set.name for view_set, one in source.sets.items() if not len(one.rows["train"])]:
        fix = "leave it out with data.proportions, or cut more views"
        problems = [Problem(place=name, found="has no training view", fix=fix) for name in empty]
        raise SettingError("view sets", problems)


def _require_room(source: Source, shifts: bool) -> None:
    wrong = [view_set.name for view_set, one in source.sets.items() if bool(one.geometry.margin) != shifts]
    if wrong and shifts:
        found, fix = (
            "has no margin: windows have no room for shifts",
            "cut views with a margin, or set data.shifts False",
        )
    else:
        found, fix = (
            "has a margin: its teachers' windows have moved",
            "cut views with --views.margin 0, or leave shifts on",
        )
    if wrong:
        raise SettingError("data.shifts", [Problem(place=name, found=found, fix=fix) for name in wrong])
