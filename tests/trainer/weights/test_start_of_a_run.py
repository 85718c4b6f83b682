"""A run with starting weights: it begins where they are, resumes without them, and is refused with others."""

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

import trainer
from storage_schemas.cache import Cache
from storage_schemas.format.errors import IdentityError, MissingError
from trainer.data.source import open_source
from trainer.run.fit import build_model, fit
from trainer.run.train import train
from trainer.run_folder import read_json
from trainer.settings.config import TrainRecipe
from trainer.settings.student import HeadSettings, VitSettings
from trainer.weights.origin import find_weights
from trainer.weights.start import start_from

Recipes = Callable[..., TrainRecipe]
ADDED = VitSettings(position_grid=8, registers=2, spare_class_tokens=1, global_blocks=2)


class PowerCutError(Exception):
    """Stands for whatever ends a process."""


class CutAfter(Callback):
    """Ends the run after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise PowerCutError


def cut_run(recipe: TrainRecipe, cache: Cache, folder: Path, monkeypatch: pytest.MonkeyPatch, step: int = 5) -> None:
    """Run `train` up to a step."""
    with monkeypatch.context() as patched:
        patched.setattr("trainer.run.fit.fit", lambda run, say, request: fit(run, say, [CutAfter(step)], request))
        with pytest.raises(PowerCutError):
            train(recipe, cache.store.uri, folder, lambda _: None)


def checkpoint_of_timm(path: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    safetensors.torch.save_file(timm.create_model("test_vit", pretrained=False).state_dict(), path)
    return path


@pytest.mark.parametrize(
    ("student", "vit"),
    [pytest.param("test_vit", VitSettings(), marks=pytest.mark.slow), ("radio_test_vit", ADDED)],
)
def test_a_student_begins_with_the_scores_of_the_earlier_student_that_it_starts_from(
    student: str, vit: VitSettings, full_cache: Cache, tmp_path: Path, recipe_of: Recipes
) -> None:
    recipe = recipe_of(student=student, vit=vit, steps=4)
    earlier = train(recipe, full_cache.store.uri, tmp_path / "earlier", lambda _: None)
    lines: list[str] = []
    weights = replace(recipe, student_weights=str(earlier.path), steps=1)  # held-out windows depend on the seed
    later = train(weights, full_cache.store.uri, tmp_path / "later", lines.append)
    last, first = read_json(earlier.metrics)["evaluations"][-1], read_json(later.metrics)["evaluations"][0]
    assert (last["step"], first["step"]) == (4, 0)
    flat = [dict(_numbers(values)) for values in (last, first)]
    del flat[0]["step"], flat[1]["step"]
    assert len(flat[0]) > 10
    assert flat[1] == pytest.approx(flat[0], rel=1e-4)
    assert "train: weights: new, as drawn from the seed: nothing" in lines
    start = read_json(later.identity)["start"]
    assert start["new"] == []
    assert start["sha256"] == read_json(later.identity)["starting_weights"]
    assert read_json(later.card)["start"] == start


def _numbers(values: Any, place: str = "") -> Any:
    """Yield every number of nested JSON, by its place."""
    if isinstance(values, dict):
        for name, value in values.items():
            yield from _numbers(value, f"{place}.{name}" if place else name)
    elif isinstance(values, list):
        for number, value in enumerate(values):
            yield from _numbers(value, f"{place}.{number}")
    elif isinstance(values, int | float) and not isinstance(values, bool):
        yield place, values


def test_heads_of_other_sizes_and_class_tokens_of_other_teachers_stay_new_and_are_told(
    full_cache: Cache, tmp_path: Path, recipe_of: Recipes
) -> None:
    recipe = recipe_of(student="radio_test_vit", vit=ADDED, steps=1)
    data = replace(recipe.data, teachers=("any", "canvas"))
    earlier = train(replace(recipe, data=data), full_cache.store.uri, tmp_path / "earlier", lambda _: None)
    lines: list[str] = []
    later = replace(recipe, student_weights=str(earlier.path), vit=replace(ADDED, position_grid=4))
    run = train(later, full_cache.store.uri, tmp_path / "later", lines.append)
    assert [line.removeprefix("train: weights: ") for line in lines if "weights: " in line][1:] == [
        "pixels: normalised as those of the weights' model, by mean 0.5 0.5 0.5, std 0.5 0.5 0.5",
        "loaded: 76 of the backbone's 76 tensors",
        "resampled: positions from 8 × 8 to 4 × 4",
        "new: the class tokens of fixed",
        "new, as drawn from the seed: the head fixed_spatial, the head fixed_summary",
    ]
    new = read_json(run.identity)["start"]["new"]
    assert {name.split(".")[1] for name in new} == {"fixed_spatial", "fixed_summary"}
    narrow = replace(recipe, heads=HeadSettings(width=16))
    model, _ = build_model(narrow, open_source(full_cache))
    origin = find_weights(str(earlier.path), "radio_test_vit", None)
    assert origin is not None
    started = start_from(model, origin, {})
    assert "left out: the head any_spatial (its sizes differ from those of this run's head)" in started.lines


def test_a_run_resumes_exactly_without_its_starting_weights_and_is_refused_with_others(
    full_cache: Cache, tmp_path: Path, recipe_of: Recipes, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, other = (checkpoint_of_timm(tmp_path / f"{seed}.safetensors", seed) for seed in range(2))
    recipe, cut = recipe_of(student_weights=str(weights)), tmp_path / "cut"
    whole = train(recipe, full_cache.store.uri, tmp_path / "whole", lambda _: None)
    cut_run(recipe, full_cache, cut, monkeypatch, step=2)  # before the first checkpoint
    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.exists", lambda path, exists=Path.exists: path != weights and exists(path))
        with pytest.raises(MissingError, match="no such file or folder"):
            train(recipe, full_cache.store.uri, cut, lambda _: None)
    cut_run(recipe, full_cache, cut, monkeypatch)
    for setting in (str(other), ""):
        with pytest.raises(IdentityError, match="starting_weights: the run there has "):
            train(replace(recipe, student_weights=setting), full_cache.store.uri, cut, lambda _: None)
    weights.unlink()
    resumed = train(recipe, full_cache.store.uri, cut, lambda _: None)
    assert resumed.weights.read_bytes() == whole.weights.read_bytes()
    assert read_json(resumed.identity) == read_json(whole.identity)
    other.rename(weights)  # other bytes under the same name
    with pytest.raises(IdentityError, match="starting_weights: the run there has "):
        train(recipe, full_cache.store.uri, cut, lambda _: None)


def test_the_same_weights_under_another_path_are_the_same(tmp_path: Path) -> None:
    first = checkpoint_of_timm(tmp_path / "first.safetensors")
    begun = find_weights(str(first), "test_vit", None)
    assert begun is not None
    moved = first.rename(tmp_path / "moved.safetensors")
    record = {"start": {"weights": str(first), "sha256": begun.sha256}}
    for setting in (moved, first):
        again = find_weights(str(setting), "test_vit", record)
        assert again is not None
        assert again.sha256 == begun.sha256
    with pytest.raises(MissingError):
        find_weights(str(tmp_path / "another.safetensors"), "test_vit", record)


def test_the_moving_average_begins_at_the_starting_weights(
    full_cache: Cache, tmp_path: Path, recipe_of: Recipes
) -> None:
    weights = checkpoint_of_timm(tmp_path / "weights.safetensors")
    base = recipe_of(student_weights=str(weights), steps=1)
    average = replace(base.average, decay=0.9999)
    optimiser = replace(base.optimiser, lr=1e-12)
    run = train(
        replace(base, average=average, optimiser=optimiser), full_cache.store.uri, tmp_path / "run", lambda _: None
    )
    found = trainer.load(run.path).student.backbone.state_dict()
    stored = safetensors.torch.load_file(weights)
    assert all(torch.allclose(value, stored[name], atol=1e-6) for name, value in found.items())
