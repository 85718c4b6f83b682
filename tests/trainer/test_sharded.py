"""FSDP: a student in shards learns what a whole one does, goes on from what either left, and is exported whole."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from own_processes import carry_out, losses

import trainer
from storage_schemas.cache import Cache
from trainer.run.train import train
from trainer.run_folder import read_json
from trainer.settings.config import TrainRecipe
from trainer.settings.learning import AverageSettings, OptimiserName, OptimiserSettings
from trainer.settings.student import VitSettings

Recipes = Callable[..., TrainRecipe]
STEPS = 6
EVERYTHING: dict[str, Any] = {
    "student": "radio_test_vit",
    "vit": VitSettings(position_grid=8, registers=2, global_blocks=2, windows=(2,)),
    "average": AverageSettings(decay=0.9, mesa_weight=0.5),
    "damp": 0.05,
}


def optimiser_of(kind: OptimiserName) -> OptimiserSettings:
    return OptimiserSettings(kind=kind, lr=2e-3, warmup=2, gradient_clip=0.5, frozen_trunk=2)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("first", "then", "kind"), [("fsdp", "fsdp", "adamw"), ("fsdp", "ddp", "lamb"), ("ddp", "fsdp", "lamb")]
)
def test_a_run_in_shards_is_the_run_that_one_process_makes_and_goes_on_under_either_strategy(
    full_cache: Cache, tmp_path: Path, recipe_of: Recipes, first: str, then: str, kind: OptimiserName
) -> None:
    settings = {**EVERYTHING, "optimiser": optimiser_of(kind)}
    # the run in one process, which shards nothing
    whole = train(recipe_of(steps=STEPS, **settings), full_cache.store.uri, tmp_path / "whole", lambda _: None)
    running: dict[str, Any] = {"devices": 2, "checkpoint_every": 3}
    if (first, then) == ("fsdp", "ddp"):
        running |= {"accumulate": 2, "checkpointing": True}
    recipes = [
        recipe_of(steps=STEPS, running={"strategy": strategy, **running}, **settings) for strategy in (first, then)
    ]
    carry_out(recipes[0], full_cache, tmp_path, stop=4)
    run = carry_out(recipes[1], full_cache, tmp_path)
    assert losses(run) == pytest.approx(losses(whole), rel=1e-5)
    scores = [read_json(each.metrics)["evaluations"] for each in (whole, run)]
    assert [[each["step"] for each in found] for found in scores] == [[0, STEPS]] * 2
    for name in ("any", "canvas", "fixed"):
        fidelities = [found[-1]["teachers"][name]["fidelity"] for found in scores]
        assert fidelities[1] == pytest.approx(fidelities[0], rel=1e-3)
    for name, weight in trainer.load(run.path).state_dict().items():
        assert weight.numpy() == pytest.approx(trainer.load(whole.path).state_dict()[name].numpy(), abs=1e-4)
