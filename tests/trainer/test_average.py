"""The moving average and MESA: what a student is compared with, and what comes of it."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

import trainer
from storage_schemas.cache import Cache
from storage_schemas.format.errors import SettingError
from trainer.data.batch import SecondView, ViewBatch, unit_pixels
from trainer.data.dataset import CachedBatches, training_request
from trainer.data.schedule import make_schedule, scheduled_steps
from trainer.data.source import Source, open_source
from trainer.learning.average import decay_at, update_average
from trainer.learning.module import Distillation
from trainer.objective.batch_loss import mesa
from trainer.objective.losses import unit_tokens
from trainer.objective.token_maps import TokenMaps
from trainer.run.fit import build_model, fit
from trainer.run.history import read_history
from trainer.run.training_run import TrainingRun
from trainer.run_folder import RunFolder, read_json
from trainer.settings.config import TrainRecipe
from trainer.settings.learning import AverageSettings
from trainer.settings.student import VitSettings

Recipes = Callable[..., TrainRecipe]
ADDED = VitSettings(position_grid=8, registers=2, global_blocks=2, windows=(2,), window_share=0.5)
MESA = AverageSettings(decay=0.9, mesa_weight=0.5)


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
    """Notes a weight of the student, and the same of its average, after every step."""

    def __init__(self) -> None:
        self.pairs: list[tuple[Tensor, Tensor]] = []

    def on_train_batch_end(self, _: Trainer, module: LightningModule, *__: Any) -> None:
        assert isinstance(module, Distillation)
        assert module.average is not None
        self.pairs.append(
            tuple(
                model.heads["any_spatial"].adaptor.last.weight.detach().clone()
                for model in (module.model, module.average)
            )
        )  # type: ignore[arg-type, union-attr]


def run_with(recipe: TrainRecipe, cache: Cache, folder: Path, *callbacks: Callback) -> RunFolder:
    source, run = open_source(cache), RunFolder(path=folder)
    fit(TrainingRun(recipe=recipe, source=source, folder=run), lambda _: None, callbacks)
    return run


@pytest.fixture(scope="module")
def source(full_cache: Cache) -> Source:
    return open_source(full_cache)


def first_batch(source: Source, recipe: TrainRecipe) -> ViewBatch:
    part = next(scheduled_steps(make_schedule(source, recipe)))[0]
    [batch] = CachedBatches(source=source)[(training_request(part, 0, second=True),)]
    return batch


def test_the_decay_rises_to_that_of_the_recipe() -> None:
    assert [decay_at(step, 0.5, ramp=True) for step in (0, 2, 7, 8, 9)] == [0.1, 0.25, 8 / 17, 0.5, 0.5]
    assert decay_at(10**6, 0.9996, ramp=True) == 0.9996
    assert [decay_at(step, 0.9996, ramp=False) for step in (0, 1, 10**6)] == [0.9996] * 3


def test_an_average_moves_towards_the_weights_and_copies_what_counts() -> None:
    model, average = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    nn.init.constant_(model.weight, 3.0)
    model.num_batches_tracked += 5
    update_average(average, model, 0.75)
    assert average.weight.tolist() == [1.5, 1.5]
    assert average.num_batches_tracked == 5
    assert model.weight.tolist() == [3.0, 3.0]


@given(seed=st.integers(0, 2**16))
def test_unit_tokens_have_no_mean_and_one_variance(seed: int) -> None:
    tokens = torch.randn(2, 3, 4, 7, generator=torch.Generator().manual_seed(seed)) * 5 + 2
    for token, unit in zip(tokens.reshape(-1, 7).tolist(), unit_tokens(tokens).reshape(-1, 7).tolist(), strict=True):
        mean = sum(token) / 7
        width = (sum((value - mean) ** 2 for value in token) / 7 + 1e-5) ** 0.5
        assert unit == pytest.approx([(value - mean) / width for value in token], abs=1e-5)


def test_mesa_is_equation_2_over_the_tokens_that_both_windows_show(source: Source, recipe_of: Recipes) -> None:
    batch = first_batch(source, recipe_of())
    assert batch.second is not None
    maps = TokenMaps(source, build_model(recipe_of(), source)[1].tokens)
    side = batch.view_set.resolution // 16
    student, average = torch.randn(2, len(batch.pixels), side, side, 6, generator=torch.Generator().manual_seed(0))
    views = []
    starts = zip(batch.start.tolist(), batch.second.start.tolist(), strict=True)
    assert any(first != other for first, other in zip(batch.start.tolist(), batch.second.start.tolist(), strict=True))
    for view, ((row, col), (second_row, second_col)) in enumerate(starts):
        apart = []
        for u in range(side):
            for v in range(side):
                r, c = u + second_row - row, v + second_col - col
                if 0 <= r < side and 0 <= c < side:
                    x, y = (
                        unit_tokens(t[None, None, None])[0, 0, 0] for t in (student[view, r, c], average[view, u, v])
                    )
                    apart.append(float((x - y).square().mean()))
        views.append(sum(apart) / len(apart))
    found = float(mesa(student, average, batch, batch.second, maps))
    assert found == pytest.approx(sum(views) / len(views), rel=1e-5)


def test_mesa_is_zero_for_equal_windows_and_weights_and_not_otherwise(source: Source, recipe_of: Recipes) -> None:
    recipe = recipe_of(student="radio_test_vit", vit=replace(ADDED, window_share=0.0), average=MESA)
    model, shape = build_model(recipe, source)
    maps, batch = TokenMaps(source, shape.tokens), first_batch(source, recipe)
    same = replace(batch, second=SecondView(pixels=batch.pixels, start=batch.start, uniforms=batch.uniforms))

    def apart(batch: ViewBatch, average: Any) -> float:
        assert batch.second is not None
        with torch.no_grad():
            x = model.student(unit_pixels(batch.pixels), uniforms=batch.uniforms).spatial
            seen = average.student(unit_pixels(batch.second.pixels), uniforms=batch.second.uniforms).spatial
            return float(mesa(x, seen, batch, batch.second, maps))

    assert apart(same, deepcopy(model)) == 0
    assert apart(batch, deepcopy(model)) > 1e-4  # another window, and other positions
    other = deepcopy(model)
    torch.nn.init.normal_(other.student.backbone.blocks[0].mlp.fc1.weight)  # type: ignore[union-attr]
    assert apart(same, other) > 1e-4


def test_gradients_of_mesa_agree_with_differences_and_reach_the_student_alone(
    source: Source, recipe_of: Recipes, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = first_batch(source, recipe_of())
    assert batch.second is not None
    maps, side = TokenMaps(source, build_model(recipe_of(), source)[1].tokens), batch.view_set.resolution // 16
    student, average = (torch.randn(len(batch.pixels), side, side, 3).double().requires_grad_() for _ in range(2))
    monkeypatch.setattr(Tensor, "float", Tensor.double)
    assert torch.autograd.gradcheck(lambda x: mesa(x, average, batch, batch.second, maps), student)  # type: ignore[arg-type]
    mesa(student, average, batch, batch.second, maps).backward()
    assert average.grad is None


def test_the_average_sees_a_window_of_its_own_from_the_step_where_mesa_begins(
    full_cache: Cache, tmp_path: Path, recipe_of: Recipes
) -> None:
    recipe = recipe_of(steps=6, average=replace(MESA, mesa_start=3))
    run = run_with(recipe, full_cache, tmp_path)
    rows = [row for row in read_history(run.history) if row["loss"]]
    assert [bool(row["low/mesa"]) for row in rows] == [False] * 3 + [True] * 3
    assert all(0 < float(row["low/mesa"]) < 10 for row in rows[3:])


def test_the_weight_of_mesa_is_its_share_of_the_loss(full_cache: Cache, tmp_path: Path, recipe_of: Recipes) -> None:
    runs = [
        run_with(recipe_of(steps=1, average=replace(MESA, mesa_weight=weight)), full_cache, tmp_path / str(weight))
        for weight in (1.0, 1001.0)
    ]
    first, other = (next(row for row in read_history(run.history) if row["loss"]) for run in runs)
    more = 1000 * (float(first["low/mesa"]) + float(first["high/mesa"]))
    assert more > 1
    assert float(other["loss"]) - float(first["loss"]) == pytest.approx(more, rel=1e-4)


def test_what_is_scored_and_exported_is_the_average(full_cache: Cache, tmp_path: Path, recipe_of: Recipes) -> None:
    follow = Follow()
    recipe = recipe_of(steps=5, average=AverageSettings(decay=0.3))
    run = run_with(recipe, full_cache, tmp_path, follow)
    model = build_model(recipe, open_source(full_cache))[0]
    expected = model.heads["any_spatial"].adaptor.last.weight.detach()  # type: ignore[union-attr]
    for step, (latest, average) in enumerate(follow.pairs):
        kept = min(0.3, (1 + step) / (10 + step))
        expected = kept * expected + (1 - kept) * latest
        assert torch.allclose(average, expected, atol=1e-6)
    phi_s = open_source(full_cache).teachers["any"].phi_s
    folded = torch.from_numpy(phi_s.rotation.T * phi_s.scale) @ expected.double()
    exported = trainer.load(run.path).heads["any_spatial"].adaptor.last.weight
    assert torch.allclose(exported.double(), folded, atol=1e-5)
    assert not torch.allclose(expected, follow.pairs[-1][0], atol=1e-4)
    plain = run_with(recipe_of(steps=5), full_cache, tmp_path / "plain")
    scores = [read_json(found.metrics)["evaluations"][-1]["teachers"]["any"]["fidelity"] for found in (run, plain)]
    assert scores[0] != scores[1]


def test_a_run_with_everything_that_was_cut_off_ends_in_the_same_weights(
    full_cache: Cache, tmp_path: Path, recipe_of: Recipes
) -> None:
    recipe = recipe_of(steps=8, student="radio_test_vit", vit=ADDED, average=MESA, damp=0.1)
    undisturbed = run_with(recipe, full_cache, tmp_path / "whole")
    with pytest.raises(PowerCutError):
        run_with(recipe, full_cache, tmp_path / "cut", CutAfter(6))
    resumed = run_with(recipe, full_cache, tmp_path / "cut")
    assert resumed.weights.read_bytes() == undisturbed.weights.read_bytes()
    assert [row["loss"] for row in read_history(resumed.history)] == [
        row["loss"] for row in read_history(undisturbed.history)
    ]


def test_mesa_without_an_average_is_refused(recipe_of: Recipes) -> None:
    with pytest.raises(SettingError) as refusal:
        recipe_of(average=AverageSettings(mesa_weight=0.5))
    assert str(refusal.value) == (
        "train recipe cannot be used:\n  average.mesa_weight: MESA compares the student with its moving average, "
        "but this run keeps no moving average (set average.decay)"
    )
