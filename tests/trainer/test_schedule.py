"""Stages: each uses its own sets, with its own warm-up and cosine, and continues the epochs of the stage before."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from storage_schemas.cache import Cache
from storage_schemas.format.errors import SettingError
from trainer.data.schedule import make_schedule, scheduled_steps
from trainer.data.source import Source, open_source
from trainer.recipes import RECIPES
from trainer.run.fit import fit
from trainer.run.history import read_history
from trainer.run.training_run import TrainingRun
from trainer.run_folder import RunFolder
from trainer.settings.config import TrainRecipe
from trainer.settings.learning import OptimiserSettings, StageSettings
from trainer.settings.stages import sets_of, stage_at, stages

Recipes = Callable[..., TrainRecipe]
STAGES = (
    StageSettings(steps=3, proportions={"low-32": 1.0}),
    StageSettings(steps=4, proportions={"low-32": 1.0, "high-64": 1.0}),
)


class PowerCutError(Exception):
    """Stands for whatever ends a process."""


class CutAfter(Callback):
    """Ends the run after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise PowerCutError


class Follow(Callback):
    """Notes a weight of the trunk and one of a head after every step."""

    def __init__(self) -> None:
        self.trunk: list[torch.Tensor] = []
        self.head: list[torch.Tensor] = []

    def on_train_batch_end(self, _: Trainer, module: LightningModule, *__: Any) -> None:
        weights = dict(module.named_parameters())
        self.trunk.append(weights["model.student.backbone.blocks.0.mlp.fc1.weight"].detach().clone())
        self.head.append(weights["model.heads.any_spatial.adaptor.last.weight"].detach().clone())


def run_with(recipe: TrainRecipe, cache: Cache, folder: Path, *callbacks: Callback) -> RunFolder:
    source, run = open_source(cache, sets=sets_of(recipe)), RunFolder(path=folder)
    fit(TrainingRun(recipe=recipe, source=source, folder=run), lambda _: None, callbacks)
    return run


@pytest.fixture(scope="module")
def source(full_cache: Cache) -> Source:
    return open_source(full_cache, sets=["low-32", "high-64"])


def test_stages_follow_one_another_and_a_run_without_any_has_one(recipe_of: Recipes) -> None:
    recipe = recipe_of(steps=7, stages=STAGES)
    assert [(stage.first, stage.steps) for stage in stages(recipe)] == [(0, 3), (3, 4)]
    assert [stage_at(recipe, step).first for step in range(8)] == [0, 0, 0, 3, 3, 3, 3, 3]
    assert sets_of(recipe) == ["high-64", "low-32"]
    [whole] = stages(recipe_of(steps=5))
    assert (whole.first, whole.steps, sets_of(recipe_of())) == (0, 5, [])
    assert sets_of(recipe_of(steps=7, stages=(STAGES[0], StageSettings(steps=4)))) == []


def test_each_stage_uses_its_own_sets(source: Source, recipe_of: Recipes) -> None:
    drawn = [
        [part.view_set.name for part in step]
        for step in scheduled_steps(make_schedule(source, recipe_of(steps=7, stages=STAGES)))
    ]
    assert drawn == [["low-32"]] * 3 + [["low-32", "high-64"]] * 4


def test_a_later_stage_continues_the_epochs_of_the_earlier(source: Source, recipe_of: Recipes) -> None:
    schedule = make_schedule(source, recipe_of(steps=7, stages=STAGES))
    low = [part for step in scheduled_steps(schedule) for part in step if part.view_set.name == "low-32"]
    used = np.concatenate([np.stack([part.epochs, part.rows], axis=1) for part in low])
    assert used[:, 0].tolist() == (np.arange(28) // 8).tolist()  # eight training views, four a step
    assert len({tuple(pair) for pair in used.tolist()}) == 28


@pytest.mark.parametrize("start", range(8))
def test_a_schedule_can_be_entered_at_any_step(source: Source, recipe_of: Recipes, start: int) -> None:
    schedule = make_schedule(source, recipe_of(steps=7, stages=STAGES))
    whole, later = (
        [[part.rows.tolist() for part in step] for step in scheduled_steps(schedule, first)] for first in (0, start)
    )
    assert later == whole[start:]


def test_the_learning_rate_rises_and_falls_once_in_every_stage_and_a_cut_run_ends_the_same(
    full_cache: Cache, tmp_path: Path, recipe_of: Recipes
) -> None:
    recipe = recipe_of(steps=7, stages=STAGES, optimiser=OptimiserSettings(kind="lamb", lr=1.0, warmup=1))
    run = run_with(recipe, full_cache, tmp_path / "whole")
    rates = [float(row["lr"]) for row in read_history(run.history) if row["lr"]]
    assert rates == pytest.approx([1 / 2, 1, 1 / 2, 1 / 2, 1, 3 / 4, 1 / 4])
    with pytest.raises(PowerCutError):
        run_with(recipe, full_cache, tmp_path / "cut", CutAfter(5))
    assert run_with(recipe, full_cache, tmp_path / "cut").weights.read_bytes() == run.weights.read_bytes()


def test_the_trunk_stays_as_it_is_for_as_long_as_the_recipe_says(
    full_cache: Cache, tmp_path: Path, recipe_of: Recipes
) -> None:
    follow = Follow()
    optimiser = OptimiserSettings(lr=1e-2, weight_decay=0.1, frozen_trunk=3)
    run_with(recipe_of(steps=5, optimiser=optimiser), full_cache, tmp_path, follow)
    trunk = [torch.equal(weight, other) for weight, other in zip(follow.trunk, follow.trunk[1:], strict=False)]
    assert trunk == [True, True, False, False]
    assert not any(torch.equal(weight, other) for weight, other in zip(follow.head, follow.head[1:], strict=False))


def test_stages_that_do_not_add_up_to_the_run_are_refused(recipe_of: Recipes) -> None:
    with pytest.raises(SettingError) as refusal:
        recipe_of(steps=9, stages=STAGES)
    assert str(refusal.value) == (
        "train recipe cannot be used:\n  stages: the stages have 7 steps together, the run has 9 "
        "(set steps to 7, or change the steps of a stage with --stages.0.steps)"
    )


def test_the_recipe_of_radio_2_5_has_its_three_stages() -> None:
    recipe = RECIPES["radio_v2_5"]()
    assert [sorted(stage.proportions) for stage in stages(recipe)] == [
        ["low-256"],
        ["low-432"],
        ["high-1024", "low-432"],
    ]
    assert [stage.steps for stage in stages(recipe)] == [300_000] * 3
