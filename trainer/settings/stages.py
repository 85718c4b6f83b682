"""The stages of a run: where each begins, and which view sets it uses."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from trainer.settings.config import TrainRecipe


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Consecutive steps of a run with their own view sets and their own rise and fall of the learning rate."""

    first: int
    """First step, counted from 0."""
    steps: int
    """Number of steps."""
    proportions: Mapping[str, float]
    """How often each view set is drawn. None named: every set, in proportion to its number of training views."""


def stages(recipe: TrainRecipe) -> list[Stage]:
    """Return the stages of a run in order; a recipe without stages gives one."""
    if not recipe.stages:
        return [Stage(first=0, steps=recipe.steps, proportions=recipe.data.proportions)]
    firsts = [sum(earlier.steps for earlier in recipe.stages[:place]) for place in range(len(recipe.stages))]
    return [
        Stage(first=first, steps=stage.steps, proportions=stage.proportions or recipe.data.proportions)
        for first, stage in zip(firsts, recipe.stages, strict=True)
    ]


def stage_at(recipe: TrainRecipe, step: int) -> Stage:
    """Return the stage that a step belongs to; a step after the last belongs to the last stage."""
    return next(stage for stage in reversed(stages(recipe)) if stage.first <= step)


def sets_of(recipe: TrainRecipe) -> list[str]:
    """Return the names of the view sets that a run uses, sorted; an empty list means all sets of the cache."""
    by_stage = [stage.proportions for stage in stages(recipe)]
    return sorted({name for proportions in by_stage for name in proportions}) if all(by_stage) else []
