"""The settings of learning: losses, moving average, optimiser, stages."""

from dataclasses import dataclass, field
from typing import Literal, final

SpatialLoss = Literal["mse", "cosine", "smooth"]
SummaryLoss = Literal["angle", "cosine"]
OptimiserName = Literal["adamw", "lamb"]
DampedLayers = Literal["backbone", "all-linear"]
SpatialBalance = Literal["teacher", "view-set"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LossSettings:
    """The terms of the loss and their weights (unitless)."""

    spatial: SpatialLoss = "mse"
    """Loss between spatial tokens in PHI-S units. `mse` is v4 eq 1. `smooth` is the loss of AM-RADIO: 0.9 times the
    cosine distance plus 0.1 times smooth L1. `cosine` is the cosine distance alone."""
    balance: SpatialBalance = "teacher"
    """What balances the spatial terms. `teacher`: PHI-S alone, which gives a teacher's features variance 1 over the
    whole cache. `view-set`: each term is also divided by the variance of the teacher's features in the view set of the
    batch, as if PHI-S were fitted for each resolution, as in NVIDIA TAO. Needs `mse`. Not in the papers."""
    summary: SummaryLoss = "angle"
    """Loss between summaries in raw units. `angle` is v4 eq 7: squared angle over dispersion. `cosine` is the loss of
    v2.5."""
    spatial_weight: float = 1.0
    """Weight of every spatial term. C-RADIOv4: 1 (NVlabs/RADIO#181)."""
    summary_weight: float = 1.0
    """Weight of every summary term. C-RADIOv4: 1, and 0 for SAM3 (NVlabs/RADIO#181), which has no summary here."""
    teacher_weights: dict[str, float] = field(default_factory=dict)
    """Factor on all terms of a teacher, by teacher name; 1 for teachers that are not named, as in C-RADIOv4
    (NVlabs/RADIO#181)."""
    low_weight: float = 1.0
    """Weight of the low partition's loss, which is a mean over its views. Not published."""
    high_weight: float = 1.0
    """Weight of the high partition's loss, which is a mean over its views. Not published."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AverageSettings:
    """The moving average of the student's weights, and MESA: the student compared with its average."""

    decay: float | None = None
    """Decay of the average per step. None: the run keeps no average. If there is an average, it is what evaluation
    scores and what the run exports. C-RADIOv4: 0.9996, during the whole of training (NVlabs/RADIO#181)."""
    ramp: bool = True
    """Whether the decay rises at the start: at step t it is at most (1 + t) / (10 + t), as in timm, so that the average
    of a short run forgets the random weights that the run began with. The author of C-RADIOv4 names no ramp."""
    mesa_weight: float = 0.0
    """Weight of MESA (v4 eq 2), which compares the student with its average in another window. 0: no MESA. Not
    published for C-RADIOv4; the default of MESA's authors is 0.3."""
    mesa_start: int = 0
    """Steps before MESA begins. Not published for C-RADIOv4, which keeps its average from the first step on
    (NVlabs/RADIO#181); the authors of MESA begin after 5 epochs."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class OptimiserSettings:
    """The optimiser. In every stage, its learning rate rises linearly and then falls along a cosine to zero."""

    kind: OptimiserName = "adamw"
    """`adamw`, or `lamb` from timm, which PHI-S (table 10) uses. Not published for RADIOv2.5 and C-RADIOv4."""
    lr: float = 1e-3
    """Highest learning rate. v2.5 table A9: 1e-3."""
    layer_decay: float | None = None
    """Factor on the learning rate from each layer to the layer below it, for a student with starting weights. The heads
    have the full rate, and the last block of the backbone this factor of it. None: one rate for all layers. Not in the
    papers; 0.65 to 0.9 is usual for pretrained vision transformers."""
    new_lr: float | None = None
    """Highest learning rate of new parts: heads, and what else the starting weights do not hold. None: the same as of
    all others. Not in the papers."""
    weight_decay: float = 2e-2
    """Decoupled weight decay of matrices and kernels. Biases, norms, position tables, class tokens and registers have
    none. v2.5 table A9: 2e-2."""
    beta1: float = 0.9
    """Decay of the first moment. Not published."""
    beta2: float = 0.95
    """Decay of the second moment. Not published."""
    warmup: int = 0
    """Steps at the start of every stage over which the learning rate rises from zero. Not published."""
    frozen_trunk: int = 0
    """Steps at the start of the run in which only the heads learn and the backbone stays as it is. PHI-S (table 10):
    5,000."""
    gradient_clip: float | None = None
    """Largest norm of the whole gradient. None: no clipping, as in C-RADIOv4's published configuration."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StageSettings:
    """One stage of a run. The learning rate rises and falls once in every stage."""

    steps: int
    """Optimiser steps of the stage."""
    proportions: dict[str, float] = field(default_factory=dict)
    """How often each view set is drawn, as in `data.proportions`. None named: `data.proportions` itself."""
