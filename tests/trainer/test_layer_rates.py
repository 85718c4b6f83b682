"""Learning rates by layer, and of new parts: as the settings say, for every optimiser, and kept by a resumed run."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from storage_schemas.cache import Cache
from storage_schemas.format.errors import IdentityError, SettingError
from trainer.learning.layer_rates import highest_rates
from trainer.run.checkpoint import read_checkpoint
from trainer.run.fit import fit
from trainer.run.train import train
from trainer.settings.config import TrainRecipe
from trainer.settings.learning import OptimiserSettings
from trainer.settings.student import HeadSettings, VitSettings
from trainer.student.model import DistilledModel, TeacherShape
from trainer.student.shape import StudentShape
from trainer.student.student import Student

Recipes = Callable[..., TrainRecipe]
ADDED = VitSettings(position_grid=8, registers=2, global_blocks=2)


def rates(name: str, vit: VitSettings = VitSettings(), new: tuple[str, ...] = (), **settings: Any) -> dict[str, float]:  # noqa: B008
    shape = StudentShape(channels=64, summary_channels=64, tokens={})
    student = Student(name, vit=vit, summarised=["a"])
    model = DistilledModel(student, shape, {"a": TeacherShape(dim=3, summary_dim=2)}, HeadSettings(width=8))
    return highest_rates(model, new, OptimiserSettings(lr=1.0, **settings))


@pytest.mark.parametrize(
    ("name", "vit", "lowest"),
    [("radio_test_vit", replace(ADDED, final_norm=True), "positions.grid"), ("test_vit", VitSettings(), "pos_embed")],
)
def test_each_block_learns_slower_than_the_next_and_the_heads_at_the_full_rate(
    name: str, vit: VitSettings, lowest: str
) -> None:
    found = rates(name, vit, layer_decay=0.5)
    blocks = [found[f"student.backbone.blocks.{number}.attn.qkv.weight"] for number in range(6)]
    assert blocks == [0.5 ** (6 - number) for number in range(6)]
    assert found[f"student.backbone.{lowest}"] == found["student.backbone.patch_embed.proj.weight"] == 0.5**7
    assert found["student.backbone.norm.weight"] == 0.5
    assert {rate for name, rate in found.items() if name.startswith("heads.")} == {1.0}


@pytest.mark.parametrize("name", ["test_convnext", "test_resnet", "test_efficientnet", "test_nfnet", "test_vit3"])
def test_layers_of_other_families_are_those_that_timm_names(name: str) -> None:
    found = rates(name, layer_decay=0.5)
    backbone = {part: rate for part, rate in found.items() if part.startswith("student.backbone.")}
    assert backbone.keys() == {f"student.backbone.{part}" for part, _ in Student(name).backbone.named_parameters()}
    first, *_, last = backbone.values()
    assert first < last == 0.5


def test_new_parts_have_their_own_rate_whatever_their_layer() -> None:
    new = ("student.backbone.registers", "heads.a_spatial.adaptor.first.weight")
    found = rates("radio_test_vit", ADDED, new, layer_decay=0.5, new_lr=3.0)
    assert {name for name, rate in found.items() if rate == 3.0} == set(new)
    assert found["student.backbone.class_tokens"] == 0.5**7


def test_a_family_without_named_layers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(timm.models.convnext.ConvNeXt, "group_matcher")
    with pytest.raises(SettingError, match="test_convnext: timm does not name the layers of test_convnext"):
        rates("test_convnext", layer_decay=0.5)


def test_settings_that_cannot_be_are_refused(recipe_of: Recipes) -> None:
    for value in (0.0, 1.5, -1.0):
        with pytest.raises(SettingError, match=r"optimiser\.layer_decay: .* is not in \(0, 1\]"):
            recipe_of(optimiser=OptimiserSettings(layer_decay=value))
    with pytest.raises(SettingError, match=r"optimiser\.new_lr: without starting weights every part is new"):
        recipe_of(optimiser=OptimiserSettings(new_lr=0.1))
    with pytest.raises(SettingError, match=r"optimiser\.new_lr: 0\.0 is not a positive number"):
        recipe_of(optimiser=OptimiserSettings(new_lr=0.0), student_weights="timm")


class PowerCutError(Exception):
    """Stands for whatever ends a process."""


class CutAfter(Callback):
    """Ends the run after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise PowerCutError


@pytest.mark.parametrize("kind", ["adamw", pytest.param("lamb", marks=pytest.mark.slow)])
def test_a_run_with_rates_of_its_own_resumes_exactly_and_with_no_others(
    kind: Any, full_cache: Cache, tmp_path: Path, recipe_of: Recipes, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "weights.safetensors"
    torch.manual_seed(0)
    safetensors.torch.save_file(timm.create_model("test_vit", pretrained=False).state_dict(), weights)
    optimiser = OptimiserSettings(kind=kind, lr=2e-3, layer_decay=0.7, new_lr=4e-3, warmup=2)
    recipe = recipe_of(student="radio_test_vit", vit=ADDED, optimiser=optimiser, student_weights=str(weights))
    whole = train(recipe, full_cache.store.uri, tmp_path / "whole", lambda _: None)
    with monkeypatch.context() as patched:
        patched.setattr("trainer.run.fit.fit", lambda run, say, request: fit(run, say, [CutAfter(5)], request))
        with pytest.raises(PowerCutError):
            train(recipe, full_cache.store.uri, tmp_path / "cut", lambda _: None)
    groups = read_checkpoint(tmp_path / "cut" / "last.ckpt")["optimizer_states"][0]["param_groups"]
    found = [(group["initial_lr"], group["weight_decay"]) for group in groups]
    layers = [2e-3 * 0.7**layer for layer in range(1, 8)]
    assert sorted({rate for rate, _ in found}) == pytest.approx(sorted([*layers, 4e-3]))
    assert len(set(found)) == len(found) == 16  # each rate with weight decay and without
    resumed = train(recipe, full_cache.store.uri, tmp_path / "cut", lambda _: None)
    assert resumed.weights.read_bytes() == whole.weights.read_bytes()
    for change in ({"layer_decay": 0.8}, {"new_lr": None}):
        changed = replace(recipe, optimiser=replace(optimiser, **change))
        with pytest.raises(IdentityError, match=f"recipe.optimiser.{next(iter(change))}: the run there has "):
            train(changed, full_cache.store.uri, tmp_path / "cut", lambda _: None)
