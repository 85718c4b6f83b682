"""The settings of what a student learns: its losses, its moving average, the optimiser, the stages."""

from dataclasses import dataclass, field
from typing import Literal, final

SpatialLoss = Literal["mse", "cosine", "smooth"]
SummaryLoss = Literal["angle", "cosine"]
OptimiserName = Literal["adamw", "lamb"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LossSettings:
    """The terms of the loss and their weights (unitless)."""

    spatial: SpatialLoss = "mse"
    """Distance of spatial tokens in PHI-S units: `mse` is v4 eq 1; of the older recipes, `smooth` is AM-RADIO's, 0.9 of
    the cosine distance and 0.1 of smooth L1, and `cosine` the former alone."""
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
class AverageSettings:
    """The moving average of the student's weights, and MESA: the student compared with its average."""

    decay: float | None = None
    """Share of the average that a step leaves; none: no average is kept. Where there is one, it is what is scored and
    exported. Not published for C-RADIOv4, whose exported weights are an average; 0.9998 is the MESA authors'."""
    mesa_weight: float = 0.0
    """Weight of MESA, v4 eq 2: the student against its average in another window; 0 leaves it out. Not published for
    C-RADIOv4; 0.3 is the MESA authors' default."""
    mesa_start: int = 0
    """Steps before MESA begins. Not published for C-RADIOv4; its authors begin after 5 epochs."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class OptimiserSettings:
    """The optimiser under a linear warm-up and a cosine to zero, once in every stage."""

    kind: OptimiserName = "adamw"
    """`adamw`, or timm's `lamb`, which PHI-S (table 10) trains with. Not published for C-RADIOv4."""
    lr: float = 1e-3
    """Highest learning rate. v2.5 table A9: 1e-3."""
    weight_decay: float = 2e-2
    """Decoupled weight decay of matrices and kernels; biases, norms, position tables and class tokens have none.
    v2.5 table A9: 2e-2."""
    beta1: float = 0.9
    """Decay of the first moment. Not published."""
    beta2: float = 0.95
    """Decay of the second moment. Not published."""
    warmup: int = 0
    """Steps over which the learning rate rises from zero, in every stage. Not published."""
    frozen_trunk: int = 0
    """Steps of the whole run before the backbone begins to learn; the heads learn from the first. PHI-S (table 10):
    5,000."""
    gradient_clip: float | None = None
    """Largest norm of the whole gradient; none: not clipped. C-RADIOv4's published configuration does not clip."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StageSettings:
    """One stage of a run: the learning rate rises and falls once in it."""

    steps: int
    """Optimiser steps of the stage."""
    proportions: dict[str, float] = field(default_factory=dict)
    """How often each view set is drawn, as in `data.proportions`; none named: as there."""
