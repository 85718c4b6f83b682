"""The memory of a training step as torch's allocator counts it."""

from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

from trainer.data.dataset import CachedBatches, training_request
from trainer.data.loader import Batches
from trainer.data.schedule import make_schedule, scheduled_steps
from trainer.data.source import Source
from trainer.learning.module import Distillation
from trainer.objective.token_maps import TokenMaps
from trainer.run.fit import build_model
from trainer.run.metrics import teacher_facts
from trainer.settings.config import TrainRecipe


def module_of(recipe: TrainRecipe, source: Source) -> Distillation:
    """Build what a run trains."""
    model, shape = build_model(recipe, source)
    dispersions = {name: fact["dispersion"] for name, fact in teacher_facts(source).items() if fact["dispersion"]}
    return Distillation(recipe, model, TokenMaps(source, shape.tokens), dispersions)


def training_batches(recipe: TrainRecipe, source: Source) -> Batches:
    """Read the batches of a run's first step, with second windows."""
    parts = next(scheduled_steps(make_schedule(source, recipe)))
    return CachedBatches(source=source)[tuple(training_request(part, 0, second=True) for part in parts)]


def step(module: Distillation, batch: Batches) -> torch.Tensor:
    """Make the forward and backward passes of a step, and return its loss."""
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16, enabled=module.recipe.precision == "bf16"):
        loss = module.training_step(batch, 0)["loss"]
    loss.backward()
    return loss.detach()


def allocated(module: Distillation, batch: Batches, run: Callable[[Distillation, Batches], object] = step) -> int:
    """Return the largest number of bytes that a step had allocated at one moment, gradients included.

    torch's profiler notes every allocation and every release of the CPU's allocator.
    """
    module.model.zero_grad()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        run(module, batch)
    assert profiled.profiler is not None
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    now, most = 0, 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most
