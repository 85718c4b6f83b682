"""Training with RADIO's additions: what is drawn belongs to the view and the step, so a run resumes exactly."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

import trainer
from storage_schemas.cache import Cache
from storage_schemas.format.errors import SettingError
from storage_schemas.format.seeds import uniforms
from trainer.__main__ import main
from trainer.data.dataset import CachedBatches, training_request, view_uniforms
from trainer.data.order import StepPart
from trainer.data.schedule import make_schedule, scheduled_steps
from trainer.data.source import open_source
from trainer.run.fit import build_model, fit
from trainer.run.train import train
from trainer.run.training_run import TrainingRun
from trainer.run_folder import RunFolder, read_json
from trainer.settings.config import TrainRecipe
from trainer.settings.student import VitSettings

Recipes = Callable[..., TrainRecipe]
ADDED = VitSettings(position_grid=8, registers=2, global_blocks=2, windows=(2,), window_share=0.5)
STEPS = 8


class PowerCutError(Exception):
    """Stands for whatever ends a process."""


class CutAfter(Callback):
    """Ends the run after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise PowerCutError


class Watch(Callback):
    """Notes the attention windows that every forward pass of training has, and its uniforms."""

    def __init__(self) -> None:
        self.looks: list[tuple[int, int | None, list[float]]] = []

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        def note(_: torch.nn.Module, __: Any, said: dict[str, Any]) -> None:
            if said["uniforms"] is not None:
                self.looks.append((trainer.global_step, said["window"], said["uniforms"].sum(dim=1).tolist()))

        module.model.student.backbone.register_forward_pre_hook(note, with_kwargs=True)  # type: ignore[operator, union-attr]


def run_with(recipe: TrainRecipe, cache: Cache, folder: Path, *callbacks: Callback) -> RunFolder:
    source, run = open_source(cache), RunFolder(path=folder)
    fit(TrainingRun(recipe=recipe, source=source, folder=run), lambda _: None, callbacks)
    return run


def test_a_run_that_was_cut_off_draws_the_same_positions_and_windows_and_ends_in_the_same_weights(
    full_cache: Cache, tmp_path: Path, recipe_of: Recipes
) -> None:
    recipe = recipe_of(steps=STEPS, student="radio_test_vit", vit=ADDED)
    whole, after = Watch(), Watch()
    undisturbed = run_with(recipe, full_cache, tmp_path / "whole", whole)
    with pytest.raises(PowerCutError):
        run_with(recipe, full_cache, tmp_path / "cut", CutAfter(6))
    resumed = run_with(recipe, full_cache, tmp_path / "cut", after)
    assert len(whole.looks) == 2 * STEPS  # two partitions
    assert {window for _, window, _ in whole.looks} == {None, 2}
    assert after.looks == [look for look in whole.looks if look[0] >= 4]
    assert resumed.weights.read_bytes() == undisturbed.weights.read_bytes()


def test_training_draws_positions_from_the_views_and_from_nothing_else(
    full_cache: Cache, tmp_path: Path, recipe_of: Recipes
) -> None:
    recipe, watch = recipe_of(steps=3, student="radio_test_vit", vit=ADDED), Watch()
    run_with(recipe, full_cache, tmp_path, watch)
    schedule = make_schedule(open_source(full_cache), recipe)
    requests = [training_request(part, recipe.seed) for step in scheduled_steps(schedule) for part in step]
    drawn = [torch.from_numpy(view_uniforms(request.window_keys)).sum(dim=1).tolist() for request in requests]
    assert [look[2] for look in watch.looks] == drawn


def test_a_views_draws_are_its_own_whichever_process_meets_it(full_cache: Cache, recipe_of: Recipes) -> None:
    source = open_source(full_cache)
    part = next(scheduled_steps(make_schedule(source, recipe_of())))[0]

    def batch(taken: StepPart) -> torch.Tensor:
        [batch] = CachedBatches(source=source)[(training_request(taken, 0),)]
        return batch.uniforms

    alone = batch(part)
    assert alone.shape == (4, 5)
    shared = [batch(part.share(rank, 2)) for rank in range(2)]
    assert torch.equal(torch.stack(shared, dim=1).flatten(0, 1), alone)
    assert len(set(alone.flatten().tolist())) == 20


def test_draws_are_uniform_and_fresh_at_every_meeting() -> None:
    keys = tuple((0, "student", deal, "low-32", row) for deal in range(20) for row in range(20))
    drawn = view_uniforms(keys)
    assert drawn[3].tolist() == np.float32(uniforms((*keys[3], "positions"), 5)).tolist()
    assert drawn.mean(axis=0) == pytest.approx(np.full(5, 0.5), abs=0.06)
    assert len(np.unique(drawn)) == drawn.size


def test_the_same_seed_builds_the_same_student_and_another_another(full_cache: Cache, recipe_of: Recipes) -> None:
    source = open_source(full_cache)
    built = [build_model(recipe_of(student="radio_test_vit", vit=ADDED, seed=seed), source)[0] for seed in (0, 0, 1)]
    first, again, other = (model.state_dict() for model in built)
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    for name in ("class_tokens", "registers", "positions.grid", "blocks.0.attn.qkv.weight"):
        assert not torch.equal(first[f"student.backbone.{name}"], other[f"student.backbone.{name}"])


def test_a_preset_learns_from_the_command_line_and_comes_back_in_three_lines(
    full_cache: Cache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (
        f"train --recipe demo --cache {full_cache.store.uri} --runs {tmp_path} --name tiny --student tiny --steps 3 "
        "--optimiser.warmup 0 --vit.windows 2 --vit.position-grid 16 --heads.width 32 --heads.transformer-blocks 0 "
        "--data.batch-low 2 --data.batch-high 1 --running.loggers csv --running.accelerator cpu"
    )
    assert main(arguments.split()) == 0, capsys.readouterr().err
    assert read_json(tmp_path / "tiny" / "student.json")["vit"]["windows"] == [2]
    student = trainer.load(tmp_path / "tiny")
    with torch.no_grad():
        output = student(torch.rand(1, 3, 64, 96), window=2)
    assert output.student.summaries.shape == (1, 2, 192)  # of the teachers "any" and "fixed"
    assert output.spatial["canvas"].shape == (1, 4, 6, 4)


def test_heads_with_transformer_blocks_learn_and_come_back(
    full_cache: Cache, tmp_path: Path, recipe_of: Recipes
) -> None:
    base = recipe_of(steps=2)
    heads = replace(base.heads, transformer_blocks=2)
    run = train(replace(base, heads=heads), full_cache.store.uri, tmp_path / "run", lambda _: None)
    weights = trainer.load(run.path).heads["any_spatial"].blocks[1].attn.qkv.weight
    assert weights.shape == (192, 64)


def test_settings_that_cannot_be_are_refused_before_the_first_step(
    full_cache: Cache, tmp_path: Path, recipe_of: Recipes
) -> None:
    recipe = recipe_of(student="radio_test_vit", vit=VitSettings(global_blocks=2, windows=(2, 5)))
    with pytest.raises(SettingError) as refusal:
        train(recipe, full_cache.store.uri, tmp_path / "run", lambda _: None)
    assert str(refusal.value) == (
        "vit.windows cannot be used:\n"
        "  window of 5 tokens: does not divide the tokens of any resolution of this run into several windows "
        "(leave it out of vit.windows; the tokens along a side are 2 (32 px), 3 (48 px), 4 (64 px))"
    )
    assert not (tmp_path / "run").exists()


def test_additions_learn_in_bf16_as_well(full_cache: Cache, tmp_path: Path, recipe_of: Recipes) -> None:
    vit = replace(ADDED, window_share=1.0, window_tokens="copied")
    recipe = recipe_of(steps=2, student="radio_test_vit", vit=vit, precision="bf16")
    watch = Watch()
    run = run_with(recipe, full_cache, tmp_path, watch)
    assert {window for _, window, _ in watch.looks if window} == {2}
    assert trainer.load(run.path).student.backbone.class_tokens.dtype == torch.float32
