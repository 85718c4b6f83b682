"""What a training run is: every setting, its meaning and its unit. A recipe is a function that returns one."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal, final

import tyro

from storage_schemas.errors import Problem, SettingError
from trainer.student_settings import HeadSettings, VitSettings, student_problems

SpatialLoss = Literal["mse", "cosine"]
SummaryLoss = Literal["angle", "cosine"]
Precision = Literal["fp32", "bf16"]
LoggerName = Literal["csv", "tensorboard"]
Accelerator = Literal["auto", "cpu", "gpu"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings:
    """What is read from the cache, how much at a time, and in which order."""

    teachers: tuple[str, ...] = ()
    """Teachers to learn from, by their names in the cache; none named: all that the cache holds."""
    batch_low: int = 1024
    """Views per step from the low partition. v2.5 section 2.2: 1024."""
    batch_high: int = 128
    """Views per step from the high partition. v2.5 section 2.2: 128."""
    proportions: dict[str, float] = field(default_factory=dict)
    """How often each view set is drawn, by name (`low-256 2 high-512 1`; unitless, compared within a partition). Sets
    not named are left out. None named: every cached set, as often as it has training views, which are the proportions
    of the recipe that made the cache. C-RADIOv4 does not publish its own."""
    window_shards: int = 8
    """Shards among which views are shuffled; the shards themselves are shuffled over the whole set. Not published."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LossSettings:
    """The terms of the loss and their weights (unitless)."""

    spatial: SpatialLoss = "mse"
    """Distance of spatial tokens in PHI-S units: `mse` is v4 eq 1, `cosine` the older RADIO kind."""
    summary: SummaryLoss = "angle"
    """Distance of raw summaries: `angle` is v4 eq 7, squared angle over dispersion; `cosine` is that of v2.5."""
    spatial_weight: float = 1.0
    """Weight of every spatial term. Not published for C-RADIOv4; 1 is the default of NVIDIA TAO."""
    summary_weight: float = 1.0
    """Weight of every summary term. Not published for C-RADIOv4; 1 is the default of NVIDIA TAO."""
    teacher_weights: dict[str, float] = field(default_factory=dict)
    """Factor on all terms of a teacher, by name; 1 for a teacher not named. Not published."""
    low_weight: float = 1.0
    """Weight of the low partition's loss, which is a mean over its views. Not published."""
    high_weight: float = 1.0
    """Weight of the high partition's loss, which is a mean over its views. Not published."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class OptimiserSettings:
    """AdamW under a linear warm-up and a cosine to zero."""

    lr: float = 1e-3
    """Highest learning rate. v2.5 table A9: 1e-3."""
    weight_decay: float = 2e-2
    """Decoupled weight decay of matrices and kernels; biases, norms, position tables and class tokens have none.
    v2.5 table A9: 2e-2."""
    beta1: float = 0.9
    """Decay of AdamW's first moment. Not published."""
    beta2: float = 0.95
    """Decay of AdamW's second moment. Not published."""
    warmup: int = 0
    """Steps over which the learning rate rises from zero. Not published."""
    gradient_clip: float | None = None
    """Largest norm of the whole gradient; none: not clipped. C-RADIOv4's published configuration does not clip."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RunningSettings:
    """How a run is carried out. None of it changes what the student learns, and any of it may differ on resuming."""

    workers: int = 0
    """Processes that read ahead; 0 reads in the training process."""
    read_ahead: int = 4
    """Steps that each reading process prepares ahead."""
    accelerator: Accelerator = "auto"
    """What to train on; `auto` takes a GPU where there is one."""
    log_every: int = 10
    """Steps between two rows of the loss history."""
    evaluate_every: int = 0
    """Steps between two evaluations on held-out views; 0 evaluates only before the first step and after the last."""
    checkpoint_every: int = 1000
    """Steps between two checkpoints; the last step always leaves one."""
    loggers: tuple[LoggerName, ...] = ("csv", "tensorboard")
    """Where the loss history goes: `history.csv`, and TensorBoard's event files, both in the run's folder."""


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
    seed: int = 0
    """Seed of the student's weights, of the order of views and of the student's windows."""
    precision: Precision = "fp32"
    """Arithmetic of the forward and backward pass; `bf16` is autocast, with losses and weights in float32."""
    vit: VitSettings = field(default_factory=VitSettings)
    heads: HeadSettings = field(default_factory=HeadSettings)
    data: DataSettings = field(default_factory=DataSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    running: RunningSettings = field(default_factory=RunningSettings)

    def __post_init__(self) -> None:
        if problems := [*student_problems(self.vit, self.heads), *_too_small(self), *_not_weights(self)]:
            raise SettingError("train recipe", problems)

    def identity(self) -> dict[str, Any]:
        """Return every setting that the trained weights depend on, as JSON-ready values."""
        values = asdict(self)
        del values["running"]
        return values


def _too_small(recipe: TrainRecipe) -> Iterator[Problem]:
    least = {
        "steps": (recipe.steps, 1),
        "data.batch_low": (recipe.data.batch_low, 1),
        "data.batch_high": (recipe.data.batch_high, 1),
        "data.window_shards": (recipe.data.window_shards, 1),
        "optimiser.warmup": (recipe.optimiser.warmup, 0),
        "running.workers": (recipe.running.workers, 0),
        "running.read_ahead": (recipe.running.read_ahead, 1),
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
        **{f"loss.teacher_weights.{name}": weight for name, weight in loss.teacher_weights.items()},
    }
    positive = {
        "optimiser.lr": optimiser.lr,
        **{f"data.proportions.{name}": weight for name, weight in recipe.data.proportions.items()},
        **({} if optimiser.gradient_clip is None else {"optimiser.gradient_clip": optimiser.gradient_clip}),
    }
    finite = float("inf")
    for place, value in numbers.items():
        if not 0 <= value < finite:
            yield Problem(place=place, found=f"{value} is not a number from 0 up")
    for place, value in positive.items():
        if not 0 < value < finite:
            yield Problem(place=place, found=f"{value} is not a positive number")
    for place, value in {"optimiser.beta1": optimiser.beta1, "optimiser.beta2": optimiser.beta2}.items():
        if not 0 <= value < 1:
            yield Problem(place=place, found=f"{value} is not in [0, 1)")
