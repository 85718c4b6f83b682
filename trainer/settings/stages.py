"""The stages of a run: where each begins, and what it draws from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from trainer.settings.config import TrainRecipe


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A stretch of a run."""

    first: int
    """Its first step."""
    steps: int
    """Its steps."""
    proportions: Mapping[str, float]
    """How often each view set is drawn; none named: every set, as often as it has training views."""


def stages(recipe: TrainRecipe) -> list[Stage]:
    """Return a run's stages in their order; a run without any has one."""
    if not recipe.stages:
        return [Stage(first=0, steps=recipe.steps, proportions=recipe.data.proportions)]
    firsts = [sum(earlier.steps for earlier in recipe.stages[:place]) for place in range(len(recipe.stages))]
    return [
        Stage(first=first, steps=one.steps, proportions=one.proportions or recipe.data.proportions)
        for first, one in zip(firsts, recipe.stages, strict=True)
    ]


def stage_at(recipe: TrainRecipe, step: int) -> Stage:
    """Return the stage of a step; the step after the last is the last stage's."""
    return next(stage for stage in reversed(stages(recipe)) if stage.first <= step)


def sets_of(recipe: TrainRecipe) -> list[str]:
    """Name the view sets that a run draws from, sorted; none: all there are."""
    named = [stage.proportions for stage in stages(recipe)]
    return sorted({name for one in named for name in one}) if all(named) else []
