"""The memory and the arithmetic of a step, by what makes it fit, and what `train --dry-run` says of them.

    python -m tests.benchmarks.step_memory [fp32 | bf16]

A student of the shape of `huge` (32 blocks, 16 attention heads, heads with two transformer blocks), a tenth as wide,
learns as in `c_radio_v4` (DAMP, MESA) from both partitions on this machine's CPU. Memory is the largest number of bytes
that torch's allocator had given out at one moment of the forward and backward passes, less the gradients.
"""

import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final
from unittest.mock import patch

import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "trainer"))
from conftest import ANY, CANVAS, FIXED, CacheMaker
from step_memory import allocated, module_of, step, training_batches

from trainer.data.loader import Batches
from trainer.data.source import Source, open_source
from trainer.learning.micro_batches import MicroBatch
from trainer.learning.module import Distillation
from trainer.run.step_plan import plan_step
from trainer.settings.config import TrainRecipe
from trainer.settings.learning import AverageSettings
from trainer.settings.running import DataSettings, RunningSettings
from trainer.settings.student import HeadSettings, VitSettings
from trainer.student.vit.presets import PRESETS, VitSize

WIDTH = 128
SETS = {"low-128": 24, "high-256": 8}
VARIANTS: dict[str, dict[str, Any]] = {
    "one backward pass for both partitions": {},
    "one for each partition": {},
    "accumulate 4": {"accumulate": 4},
    "checkpointing": {"checkpointing": True},
    "checkpointing, accumulate 4": {"checkpointing": True, "accumulate": 4},
}


def recipe_of(precision: Any) -> TrainRecipe:
    """The run that is measured."""
    return TrainRecipe(
        name="benchmark",
        student="huge",
        steps=1,
        precision=precision,
        vit=VitSettings(registers=7, spare_class_tokens=1, position_grid=16),
        heads=HeadSettings(width=WIDTH, transformer_blocks=2),
        average=AverageSettings(decay=0.9996, ramp=False, mesa_weight=0.3),
        damp=0.1,
        data=DataSettings(batch_low=16, batch_high=4),
        running=RunningSettings(accelerator="cpu"),
    )


def in_one_graph(module: Distillation, batch: Batches) -> torch.Tensor:
    """Make one backward pass for both partitions, as steps did before."""
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16, enabled=module.recipe.precision == "bf16"):
        loss = torch.stack([module._loss(MicroBatch(views=part, share=1.0), {}) for part in batch]).sum()
    loss.backward()
    return loss.detach()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a step took."""

    bytes: int
    """Of activations."""
    flop: int
    loss: float


def measured(recipe: TrainRecipe, source: Source, run: Callable[[Distillation, Batches], torch.Tensor]) -> Measured:
    """Make the same step twice: its memory is measured first, because the counter of arithmetic keeps tensors."""
    module, batch = module_of(recipe, source), training_batches(recipe, source)
    gradients = sum(weight.nbytes for weight in module.model.parameters())
    most = allocated(module, batch, run)
    module.model.zero_grad()
    with FlopCounterMode(display=False) as counter:
        loss = float(run(module, batch))
    return Measured(bytes=most - gradients, flop=counter.get_total_flops(), loss=loss)


def source_in(folder: Path) -> Source:
    """Write a small cache."""
    maker = CacheMaker(folder, SETS).views()
    for teacher in (ANY, FIXED, CANVAS):
        maker.teacher(teacher).stats(teacher)
    return open_source(maker.cache)


def main(precision: str) -> None:
    """Print a row for each variant."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    narrow = {**PRESETS, "huge": VitSize(channels=WIDTH, depth=32, heads=16, hidden=4 * WIDTH)}
    with tempfile.TemporaryDirectory() as folder, patch("trainer.student.vit.build.PRESETS", narrow):
        source, first = source_in(Path(folder)), None
        for name, running in VARIANTS.items():
            recipe = recipe_of(precision)
            recipe = replace(recipe, running=replace(recipe.running, **running))
            run = in_one_graph if first is None else step
            found = measured(recipe, source, run)
            first = first or found
            print(
                f"{name}: {found.bytes / 1e6:.1f} MB, {found.bytes / first.bytes:.3f}; {found.flop / 1e9:.1f} GFLOP, "
                f"{found.flop / first.flop:.3f}; loss {found.loss:.7f}, {abs(found.loss / first.loss - 1):.1e} apart",
                flush=True,
            )
            if run is step:
                plan = plan_step(recipe, source)
                shares = plan.activation_bytes / found.bytes, plan.mean_flop[0] / found.flop
                print("  dry run: {:.3f} of this memory, {:.4f} of this arithmetic".format(*shares), flush=True)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "fp32")
