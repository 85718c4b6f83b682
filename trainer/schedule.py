"""The learning rate over a run, the optimiser, and which parameters decay."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from timm.optim import Lamb
from torch import nn

from trainer.config import TrainRecipe
from trainer.learning_settings import OptimiserSettings
from trainer.stages import stage_at


def rate_factor(recipe: TrainRecipe, step: int) -> float:
    """Return the factor on the highest learning rate at a step (from 0) of a run: every stage has its own course."""
    stage = stage_at(recipe, step)
    return learning_rate_factor(step - stage.first, steps=stage.steps, warmup=recipe.optimiser.warmup)


def make_optimiser(groups: list[dict[str, Any]], settings: OptimiserSettings) -> torch.optim.Optimizer:
    """Return the optimiser over groups of parameters."""
    betas = (settings.beta1, settings.beta2)
    if settings.kind == "lamb":
        # clipping is the run's affair, the same for both optimisers
        return Lamb(groups, lr=settings.lr, betas=betas, max_grad_norm=None)
    return torch.optim.AdamW(groups, lr=settings.lr, betas=betas)


def learning_rate_factor(step: int, *, steps: int, warmup: int) -> float:
    """Return the factor on the highest learning rate at a step: a line up to 1, then half a cosine down towards 0.

        (t + 1) / (w + 1)              for t < w
        ½ (1 + cos(π (t − w) / (T − w)))     after it

    Args:
        step: t, from 0.
        steps: T, of the stage.
        warmup: w (steps).
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1))) / 2


def parameter_groups(model: nn.Module, backbone: nn.Module, settings: OptimiserSettings) -> list[dict[str, Any]]:
    """Split a model's trainable parameters into those that decay and those that do not.

    Biases, norms and scales do not, nor what the backbone itself exempts: position tables, class tokens, registers.

    Args:
        model: student and heads.
        backbone: the timm model inside it.
        settings: weight decay.
    """
    exempt = {id(parameter) for parameter in _exempt(backbone)}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    kept = [parameter for parameter in trained if parameter.ndim < 2 or id(parameter) in exempt]
    apart = {id(parameter) for parameter in kept}
    decayed = [parameter for parameter in trained if id(parameter) not in apart]
    return [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": kept, "weight_decay": 0.0}]


def _exempt(backbone: nn.Module) -> Iterator[nn.Parameter]:
    names: set[str] = getattr(backbone, "no_weight_decay", set)()
    yield from (parameter for name, parameter in backbone.named_parameters() if name in names)
