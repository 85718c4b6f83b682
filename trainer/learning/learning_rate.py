"""The learning rate over a run, the optimiser, and which parameters have weight decay."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from timm.optim import Lamb
from torch import nn

from trainer.settings.config import TrainRecipe
from trainer.settings.learning import OptimiserSettings
from trainer.settings.stages import stage_at


def rate_factor(recipe: TrainRecipe, step: int) -> float:
    """Return the factor on the highest learning rate at a step of a run (from 0). It rises and falls once per stage."""
    stage = stage_at(recipe, step)
    return learning_rate_factor(step - stage.first, steps=stage.steps, warmup=recipe.optimiser.warmup)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterGroup:
    """Parameters of a model that an optimiser treats alike."""

    names: tuple[str, ...]
    """Names of the parameters in the model."""
    lr: float
    """Their highest learning rate."""
    weight_decay: float
    """Their weight decay."""


def make_optimiser(
    groups: list[dict[str, Any]], settings: OptimiserSettings, *, sharded: bool = False
) -> torch.optim.Optimizer:
    """Return the optimiser over groups of parameters.

    Args:
        groups: from `optimiser_groups`.
        settings: kind and rates.
        sharded: whether FSDP shards the parameters.
    """
    betas = (settings.beta1, settings.beta2)
    if settings.kind == "lamb":
        # Lightning clips the gradient, the same for both optimisers
        # in shards one parameter at a time: the norms are then those of whole parameters, as tests on CPUs show
        return Lamb(groups, lr=settings.lr, betas=betas, max_grad_norm=None, foreach=False if sharded else None)
    return torch.optim.AdamW(groups, lr=settings.lr, betas=betas)


def renew_settings(
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LambdaLR,
    groups: Sequence[ParameterGroup],
    recipe: TrainRecipe,
    step: int,
) -> None:
    """Give an optimiser and its schedule the recipe's settings. Those of a checkpoint may be older.

    Args:
        optimiser: over the parameters of these groups.
        schedule: its learning rate schedule.
        groups: from `parameter_groups`.
        recipe: recipe of the run.
        step: the step that comes next, from 0.
    """
    settings, factor = recipe.optimiser, rate_factor(recipe, step)
    for group, renewed in zip(optimiser.param_groups, groups, strict=True):
        rates = {"initial_lr": renewed.lr, "lr": renewed.lr * factor, "foreach": optimiser.defaults["foreach"]}
        group |= {**rates, "betas": (settings.beta1, settings.beta2), "weight_decay": renewed.weight_decay}
    schedule.base_lrs = [group.lr for group in groups]


def learning_rate_factor(step: int, *, steps: int, warmup: int) -> float:
    """Return the factor on the highest learning rate at a step: a linear rise to 1, then half a cosine down to 0.

        (t + 1) / (w + 1)              for t < w
        ½ (1 + cos(π (t − w) / (T − w)))     after it

    Args:
        step: t, from 0.
        steps: T, steps of the stage.
        warmup: w, steps of the rise.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1))) / 2


def decaying(model: nn.Module, backbone: nn.Module) -> frozenset[str]:
    """Return the names of the trainable parameters with weight decay: matrices and kernels.

    Biases, norms and scales have none. Nor have those that the backbone exempts: position tables, class tokens,
    registers.

    Args:
        model: student and heads. It must not be sharded: the shapes of shards do not tell what was a matrix.
        backbone: the backbone inside it.
    """
    exempt = {id(parameter) for parameter in _exempt(backbone)}
    return frozenset(
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.ndim >= 2 and id(parameter) not in exempt
    )


def parameter_groups(
    model: nn.Module, decay: frozenset[str], rates: Mapping[str, float], settings: OptimiserSettings
) -> list[ParameterGroup]:
    """Split a model's trainable parameters by learning rate, and into those with weight decay and those without.

    Args:
        model: student and heads.
        decay: names of the parameters with weight decay, from `decaying`.
        rates: highest learning rate of each parameter, from `highest_rates`.
        settings: the weight decay.
    """
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    groups = [
        ParameterGroup(
            names=tuple(name for name in trained if rates[name] == lr and (name in decay) is decays),
            lr=lr,
            weight_decay=settings.weight_decay if decays else 0.0,
        )
        for lr in sorted({rates[name] for name in trained}, reverse=True)
        for decays in (True, False)
    ]
    return groups if len(groups) == 2 else [group for group in groups if group.names]


def optimiser_groups(
    model: nn.Module, groups: Sequence[ParameterGroup], settings: OptimiserSettings
) -> list[dict[str, Any]]:
    """Return groups of a model's parameters in the form that optimisers take."""
    weights = dict(model.named_parameters())
    return [
        {
            "params": [weights[name] for name in group.names],
            "weight_decay": group.weight_decay,
            **({} if group.lr == settings.lr else {"lr": group.lr}),  # checkpoints of one rate stay as they were
        }
        for group in groups
    ]


def _exempt(backbone: nn.Module) -> Iterator[nn.Parameter]:
    names: set[str] = getattr(backbone, "no_weight_decay", set)()
    yield from (parameter for name, parameter in backbone.named_parameters() if name in names)
