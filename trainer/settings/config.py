"""What a training run is: every setting, its meaning and its unit. A recipe is a function that returns one."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal, final

import tyro

from storage_schemas.format.errors import Problem, SettingError
from trainer.settings.learning import AverageSettings, LossSettings, OptimiserSettings, StageSettings
from trainer.settings.running import DataSettings, RunningSettings
from trainer.settings.student import HeadSettings, VitSettings, student_problems

Precision = Literal["fp32", "bf16"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRecipe:
    """One training run."""

    name: Annotated[str, tyro.conf.Suppress]
    """Name of the recipe."""
    student: str
    """Backbone of the student, from random weights: `tiny`, `small`, `base`, `large`, `so400m` or `huge`, vision
    transformers with RADIO's additions; any timm model by its name, as timm builds it; or `radio_` and the name of a
    timm vision transformer, which gets the additions."""
    image_size: int | None = None
    """Side (pixels) that the backbone's position table is laid out for; none: the backbone's own. Windows of another
    size resample the table. Students with RADIO's additions have a grid of positions instead."""
    steps: int
    """Optimiser steps of the whole run."""
    patience: int = 0
    """Evaluations (at `running.evaluate_every`) that may pass without a better mean logarithm of fidelity before the
    run stops and exports what it has; 0 never stops early."""
    seed: int = 0
    """Seed of the student's weights, of the order of views and of the student's windows."""
    precision: Precision = "fp32"
    """Arithmetic of the forward and backward pass; `bf16` is autocast, with losses and weights in float32."""
    vit: VitSettings = field(default_factory=VitSettings)
    heads: HeadSettings = field(default_factory=HeadSettings)
    stages: tuple[StageSettings, ...] = ()
    """Stages of the run, whose steps add up to `steps`; none: one stage."""
    damp: float = 0.0
    """σ of DAMP's multiplicative noise on the weights of every linear layer in training, v4 section 2.4; 0 for none.
    Not published for C-RADIOv4; DAMP's authors take 0.1 for ViT-S and ResNet-50."""
    data: DataSettings = field(default_factory=DataSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    average: AverageSettings = field(default_factory=AverageSettings)
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    running: RunningSettings = field(default_factory=RunningSettings)

    def __post_init__(self) -> None:
        if problems := [
            *student_problems(self.vit, self.heads),
            *_too_small(self),
            *_not_weights(self),
            *_at_odds(self),
        ]:
            raise SettingError("train recipe", problems)

    def identity(self) -> dict[str, Any]:
        """Return every setting that the trained weights depend on, as JSON-ready values."""
        values = asdict(self)
        del values["running"]
        return values


def _too_small(recipe: TrainRecipe) -> Iterator[Problem]:
    least = {
        "steps": (recipe.steps, 1),
        "patience": (recipe.patience, 0),
        "data.batch_low": (recipe.data.batch_low, 1),
        "data.batch_high": (recipe.data.batch_high, 1),
        "data.window_shards": (recipe.data.window_shards, 1),
        "optimiser.warmup": (recipe.optimiser.warmup, 0),
        "optimiser.frozen_trunk": (recipe.optimiser.frozen_trunk, 0),
        "average.mesa_start": (recipe.average.mesa_start, 0),
        **{f"stages.{place}.steps": (stage.steps, 1) for place, stage in enumerate(recipe.stages)},
        "running.devices": (recipe.running.devices, 1),
        "running.nodes": (recipe.running.nodes, 1),
        "running.workers": (recipe.running.workers, 0),
        "running.read_ahead": (recipe.running.read_ahead, 1),
        "running.read_cache_bytes": (recipe.running.read_cache_bytes, 1 if recipe.running.read_cache else 0),
        "running.log_every": (recipe.running.log_every, 1),
        "running.evaluate_every": (recipe.running.evaluate_every, 0),
        "running.checkpoint_every": (recipe.running.checkpoint_every, 1),
    }
    for place, (value, bound) in least.items():
        if value < bound:
            yield Problem(place=place, found=f"{value} is less than {bound}")


def _not_weights(recipe: TrainRecipe) -> Iterator[Problem]:
    loss, optimiser = recipe.loss, recipe.optimiser
    numbers = {
        "loss.spatial_weight": loss.spatial_weight,
        "loss.summary_weight": loss.summary_weight,
        "loss.low_weight": loss.low_weight,
        "loss.high_weight": loss.high_weight,
        "optimiser.weight_decay": optimiser.weight_decay,
        "average.mesa_weight": recipe.average.mesa_weight,
        "damp": recipe.damp,
        **{f"loss.teacher_weights.{name}": weight for name, weight in loss.teacher_weights.items()},
    }
    positive = {
        "optimiser.lr": optimiser.lr,
        **{f"data.proportions.{name}": weight for name, weight in recipe.data.proportions.items()},
        **{
            f"stages.{place}.proportions.{name}": weight
            for place, stage in enumerate(recipe.stages)
            for name, weight in stage.proportions.items()
        },
        **({} if optimiser.gradient_clip is None else {"optimiser.gradient_clip": optimiser.gradient_clip}),
    }
    finite = float("inf")
    for place, value in numbers.items():
        if not 0 <= value < finite:
            yield Problem(place=place, found=f"{value} is not a number from 0 up")
    for place, value in positive.items():
        if not 0 < value < finite:
            yield Problem(place=place, found=f"{value} is not a positive number")
    shares = {"optimiser.beta1": optimiser.beta1, "optimiser.beta2": optimiser.beta2}
    if recipe.average.decay is not None:
        shares["average.decay"] = recipe.average.decay
    for place, value in shares.items():
        if not 0 <= value < 1:
            yield Problem(place=place, found=f"{value} is not in [0, 1)")


def _at_odds(recipe: TrainRecipe) -> Iterator[Problem]:
    if recipe.average.mesa_weight and recipe.average.decay is None:
        found = "MESA compares the student with its moving average, and there is none"
        yield Problem(place="average.mesa_weight", found=found, fix="set average.decay")
    if recipe.patience and not recipe.running.evaluate_every:
        found = "the run is scored only before its first step and after its last"
        yield Problem(place="patience", found=found, fix="set running.evaluate_every")
    processes = recipe.running.devices * recipe.running.nodes
    for place, views in {"data.batch_low": recipe.data.batch_low, "data.batch_high": recipe.data.batch_high}.items():
        if processes > 1 and views % processes:
            yield Problem(place=place, found=f"{views} views do not divide among {processes} training processes")
    if recipe.running.strategy == "fsdp":
        yield from _needs_whole_weights(recipe)
    staged = sum(stage.steps for stage in recipe.stages)
    if recipe.stages and staged != recipe.steps:
        found = f"the stages add up to {staged} steps, the run to {recipe.steps}"
        yield Problem(
            place="stages", found=found, fix=f"set steps to {staged}, or change the stages' with --stages.0.steps"
        )


def _needs_whole_weights(recipe: TrainRecipe) -> Iterator[Problem]:
    """Name what a process cannot do that holds a shard of every weight."""
    asked = {
        "damp": bool(recipe.damp),
        "optimiser.kind": recipe.optimiser.kind == "lamb",
    }
    for place in (name for name, set_here in asked.items() if set_here):
        yield Problem(place=place, found="needs whole weights, and FSDP shards them", fix="take running.strategy ddp")
