"""Noise on weights: on which, how much, and the same again for a resumed run."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from storage_schemas.cache import Cache
from storage_schemas.format.errors import SettingError
from trainer.data.source import open_source
from trainer.learning.damp import WeightNoise, damped, damped_layers, noise_draws
from trainer.run.fit import build_model
from trainer.run.history import read_history
from trainer.run.train import train
from trainer.settings.config import TrainRecipe
from trainer.settings.learning import DampedLayers

Recipes = Callable[..., TrainRecipe]


PATCHES = "student.backbone.patch_embed.proj.weight"


def damped_weights(model: nn.Module, sigma: float, seed: int, layers: DampedLayers = "all-linear") -> dict[str, Tensor]:
    """Return the weights of a model that get noise, with it."""
    draws = noise_draws(dict(damped_layers(model, layers)), sigma, seed)
    return {name: damped(model.get_parameter(name), draw) for name, draw in draws.items()}


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


@pytest.mark.parametrize("layer_by_layer", [False, True])
def test_the_gradient_of_a_weight_is_that_under_noise_times_the_noise(layer_by_layer: bool) -> None:
    layer = nn.Sequential(nn.Linear(3, 2, bias=False).double())
    pixels = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    noise = WeightNoise(layer, 0.1, "all-linear", layer_by_layer=layer_by_layer)
    noise.draw(1)
    layer(pixels).square().sum().backward()
    weight = layer[0].weight
    moved = damped_weights(layer, 0.1, seed=1)["0.weight"].detach().requires_grad_()
    nn.functional.linear(pixels, moved).square().sum().backward()
    assert weight.grad is not None
    assert moved.grad is not None
    assert torch.allclose(weight.grad, moved.grad * moved.detach() / weight.detach())


@pytest.mark.parametrize("layer_by_layer", [False, True])
def test_a_model_runs_with_noise_in_training_only_and_keeps_its_weights(layer_by_layer: bool) -> None:
    model, pixels = nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2)), torch.ones(1, 3)
    before, plain = {name: value.clone() for name, value in model.state_dict().items()}, model(pixels)
    noise = WeightNoise(model, 0.1, "all-linear", layer_by_layer=layer_by_layer)
    assert torch.equal(model(pixels), plain)  # nothing is drawn yet
    expected = torch.func.functional_call(model, damped_weights(model, 0.1, seed=3), (pixels,))
    noise.draw(3)
    assert torch.equal(model(pixels), expected)
    assert not torch.equal(expected, plain)
    assert torch.equal(model.eval()(pixels), plain)
    with pytest.raises(RuntimeError):
        model.train()(pixels[:, :2])
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(isinstance(parameter, nn.Parameter) for parameter in model.parameters())


def test_a_backbone_that_uses_a_weight_without_calling_its_layer_is_refused() -> None:
    class Bypass(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.student = nn.ModuleDict({"backbone": nn.Linear(3, 3)})

        def forward(self, pixels: Tensor) -> Tensor:
            return pixels @ self.student["backbone"].weight

    model = Bypass()
    noise = WeightNoise(model, 0.1, "backbone", layer_by_layer=True)
    noise.draw(0)
    model(torch.ones(1, 3))
    with pytest.raises(SettingError, match="without calling the layers") as refused:
        noise.require_everywhere("bypass")
    assert [problem.place for problem in refused.value.problems] == ["bypass", "student.backbone.weight"]


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

    class Noting(WeightNoise):  # type: ignore[misc]
        def draw(self, seed: int) -> None:
            seeds.append(seed)
            assert PATCHES in self.layers
            assert not any(name.startswith("heads.") for name in self.layers)
            super().draw(seed)

    monkeypatch.setattr("trainer.learning.module.WeightNoise", Noting)
    train(recipe_of(steps=3, damp=0.1), full_cache.store.uri, tmp_path / "run", lambda _: None)
    assert len(seeds) == len(set(seeds)) == 6  # two partitions
