"""Noise on weights: on which, how much, and the same again for a resumed run."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.func import functional_call

from storage_schemas.cache import Cache
from trainer.data.source import open_source
from trainer.learning.damp import damped_weights
from trainer.run.fit import build_model
from trainer.run.history import read_history
from trainer.run.train import train
from trainer.settings.config import TrainRecipe
from trainer.settings.learning import DampedLayers

Recipes = Callable[..., TrainRecipe]


PATCHES = "student.backbone.patch_embed.proj.weight"


@pytest.mark.parametrize("student", ["radio_test_vit", "test_vit"])
def test_noise_is_on_the_linear_layers_of_the_backbone_and_its_patch_embedding_and_on_no_head(
    full_cache: Cache, recipe_of: Recipes, student: str
) -> None:
    model, _ = build_model(recipe_of(student=student), open_source(full_cache))
    damped = damped_weights(model, 0.1, 0, "backbone")
    modules = model.student.backbone.named_modules()
    linear = {f"student.backbone.{name}.weight" for name, module in modules if isinstance(module, torch.nn.Linear)}
    assert "student.backbone.blocks.0.attn.qkv.weight" in linear
    assert set(damped) == {*linear, PATCHES}
    noise = damped[PATCHES] / model.get_parameter(PATCHES) - 1
    assert abs(float(noise.detach().std()) - 0.1) < 0.01


def test_the_first_versions_put_noise_on_every_linear_layer_and_not_on_the_patch_embedding(
    full_cache: Cache, recipe_of: Recipes
) -> None:
    model, _ = build_model(recipe_of(student="radio_test_vit"), open_source(full_cache))
    damped = damped_weights(model, 0.1, 0, "all-linear")
    linear = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    assert set(damped) == linear
    assert {"student.backbone.blocks.0.attn.qkv.weight", "heads.any_spatial.adaptor.last.weight"} <= linear
    assert PATCHES not in linear


def test_noise_is_normal_of_the_asked_width_around_the_weights() -> None:
    layer = torch.nn.Linear(300, 300)
    torch.nn.init.constant_(layer.weight, 2.0)
    noise = damped_weights(layer, 0.1, seed=0)["weight"].detach() / 2 - 1
    assert abs(float(noise.mean())) < 0.001
    assert abs(float(noise.std()) - 0.1) < 0.001
    assert abs(float((noise.abs() < 0.1).float().mean()) - 0.6827) < 0.005


def test_the_noise_of_a_seed_is_the_first_normal_numbers_of_pytorch_s_generator() -> None:
    # a run that another version began resumes with the same noise
    layer = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 5))
    generator = torch.Generator().manual_seed(7)
    noise = [torch.randn(3, 4, generator=generator), torch.randn(5, 3, generator=generator)]
    damped = damped_weights(layer, 0.1, seed=7)
    for place in (0, 1):
        assert torch.equal(damped[f"{place}.weight"], layer[place].weight * (1 + 0.1 * noise[place]))


def test_a_seed_gives_the_same_noise_again_and_another_seed_other_noise() -> None:
    layer = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    first, again, other = (damped_weights(layer, 0.1, seed) for seed in (0, 0, 1))
    assert torch.equal(first["0.weight"], again["0.weight"])
    assert not torch.equal(first["0.weight"], other["0.weight"])
    assert not torch.equal(first["0.weight"] / layer[0].weight, first["1.weight"] / layer[1].weight)


def test_the_gradient_of_a_weight_is_that_under_noise_times_the_noise() -> None:
    layer = torch.nn.Linear(3, 2, bias=False).double()
    pixels = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    damped = damped_weights(layer, 0.1, seed=1)
    functional_call(layer, damped, (pixels,)).square().sum().backward()
    moved = damped["weight"].detach().requires_grad_()
    torch.nn.functional.linear(pixels, moved).square().sum().backward()
    assert layer.weight.grad is not None
    assert moved.grad is not None
    assert torch.allclose(layer.weight.grad, moved.grad * moved.detach() / layer.weight.detach())


def test_noise_changes_training_and_leaves_scores_of_the_untrained_student_alone(
    full_cache: Cache, tmp_path: Path, recipe_of: Recipes
) -> None:
    runs = [
        train(recipe_of(steps=2, damp=sigma), full_cache.store.uri, tmp_path / str(sigma), lambda _: None)
        for sigma in (0.0, 0.2)
    ]
    plain, noisy = (read_history(run.history) for run in runs)
    assert plain[0]["fidelity/any"] == noisy[0]["fidelity/any"]
    assert plain[1]["loss"] != noisy[1]["loss"]


def test_every_step_and_view_set_has_noise_of_its_own(
    full_cache: Cache, tmp_path: Path, recipe_of: Recipes, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[int] = []

    def noting(model: torch.nn.Module, sigma: float, seed: int, layers: DampedLayers) -> dict[str, torch.Tensor]:
        seeds.append(seed)
        assert layers == "backbone"
        return damped_weights(model, sigma, seed, layers)

    monkeypatch.setattr("trainer.learning.module.damped_weights", noting)
    train(recipe_of(steps=3, damp=0.1), full_cache.store.uri, tmp_path / "run", lambda _: None)
    assert len(seeds) == len(set(seeds)) == 6  # two partitions
