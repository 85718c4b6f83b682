"""`train --dry-run` says what a step needs: compared with what torch's allocator counts while the step runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from step_memory import allocated, module_of, step, training_batches
from torch.utils.flop_counter import FlopCounterMode

from storage_schemas.cache import Cache
from trainer.__main__ import main
from trainer.data.loader import Batches
from trainer.data.source import Source, open_source
from trainer.learning.micro_batches import MicroBatch
from trainer.learning.module import Distillation
from trainer.run.step_plan import plan_step
from trainer.settings.config import TrainRecipe
from trainer.settings.learning import AverageSettings
from trainer.settings.running import DataSettings
from trainer.settings.student import HeadSettings, VitSettings

Recipes = Callable[..., TrainRecipe]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, larger_cache: Callable[[Path], Cache]) -> Source:
    return open_source(larger_cache(tmp_path_factory.mktemp("larger") / "cache"))


@pytest.mark.parametrize(
    "running",
    [
        {"checkpointing": True, "accumulate": 2},
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param({"checkpointing": True}, marks=pytest.mark.slow),
        pytest.param({"accumulate": 3}, marks=pytest.mark.slow),
    ],
)
def test_memory_and_arithmetic_of_a_step_are_what_the_dry_run_says(
    source: Source, recipe_of: Recipes, running: dict[str, Any]
) -> None:
    recipe = recipe_of(
        student="radio_test_vit",
        vit=VitSettings(position_grid=8, registers=2, global_blocks=2),
        heads=HeadSettings(width=64, transformer_blocks=1),
        average=AverageSettings(decay=0.9, mesa_weight=0.5),
        damp=0.05,
        data=DataSettings(batch_low=12, batch_high=3, window_shards=2),
        running=running,
    )
    plan = plan_step(recipe, source)
    module, batch = module_of(recipe, source), training_batches(recipe, source)
    assert [part.view_set for part in batch] == sorted(plan.sets, key=lambda view_set: view_set.partition == "high")
    measured = allocated(module, batch) - plan.weights["gradients"]
    assert measured == pytest.approx(plan.activation_bytes, rel=0.15)
    with FlopCounterMode(display=False) as counter:  # it keeps tensors that a step without it releases
        step(module, batch)
    assert counter.get_total_flops() == pytest.approx(plan.mean_flop[0], rel=0.001)
    parameters = [weight.nbytes for weight in module.model.parameters()]
    assert plan.weights["parameters"] == plan.weights["gradients"] == plan.weights["moving average"] == sum(parameters)
    assert plan.weights["optimiser"] == 2 * sum(parameters)
    batch_bytes = [sum(tensor.nbytes for tensor in tensors_of(part)) for part in batch]
    assert plan.batch_bytes == sum(batch_bytes)


@pytest.mark.slow
def test_a_step_that_fits_has_a_quarter_of_the_activations_and_a_third_more_arithmetic(
    source: Source, recipe_of: Recipes
) -> None:
    settings: dict[str, Any] = {
        "student": "radio_test_vit",
        "vit": VitSettings(position_grid=8, registers=2, global_blocks=2),
        "heads": HeadSettings(width=64, transformer_blocks=1),
        "average": AverageSettings(decay=0.9, mesa_weight=0.5),
        "damp": 0.05,
        "data": DataSettings(batch_low=12, batch_high=3, window_shards=2),
    }
    plain = module_of(recipe_of(**settings), source)
    fitting = module_of(recipe_of(**settings, running={"accumulate": 3, "checkpointing": True}), source)
    batch = training_batches(plain.recipe, source)
    gradients = sum(weight.nbytes for weight in plain.model.parameters())
    before, after = allocated(plain, batch, in_one_graph) - gradients, allocated(fitting, batch) - gradients
    assert after <= before / 4
    losses, flop = [], []
    for module, run in ((plain, in_one_graph), (fitting, step)):
        with FlopCounterMode(display=False) as counter:
            losses.append(float(run(module, batch)))
        flop.append(counter.get_total_flops())
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    assert flop[1] <= 1.35 * flop[0]


def in_one_graph(module: Distillation, batch: Batches) -> torch.Tensor:
    """A step as it was before: one backward pass for both partitions."""
    torch.manual_seed(0)
    loss = torch.stack([module._loss(MicroBatch(views=part, share=1.0), {}) for part in batch]).sum()
    loss.backward()
    return loss.detach()


@pytest.mark.slow
def test_a_dry_run_trains_nothing_and_says_what_each_process_holds(
    full_cache: Cache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = f"train --cache {full_cache.store.uri} --runs {tmp_path} --student test_vit --dry-run True"
    assert main([*command.split(), "--running.devices", "2"]) == 0
    ddp = capsys.readouterr().out
    assert main([*command.split(), "--running.devices", "2", "--running.strategy", "fsdp"]) == 0
    fsdp = capsys.readouterr().out
    assert not list(tmp_path.iterdir())

    def gigabytes(said: str, name: str) -> float:
        [line] = [line for line in said.splitlines() if line.split(":")[1].strip().startswith(name)]
        return float(line.split()[-2])

    for name in ("parameters", "gradients", "optimiser"):
        assert gigabytes(fsdp, name) == pytest.approx(gigabytes(ddp, name) / 2, abs=0.001)
    assert gigabytes(ddp, "buckets of DDP") == gigabytes(ddp, "gradients")
    assert "low-48" in ddp
    assert "4 views in 1 micro-batches" in ddp


def tensors_of(part: Any) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    part.changed(lambda tensor: found.append(tensor) or tensor)
    return found
