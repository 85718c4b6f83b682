"""The settings of RADIOv2.5, for a cluster."""

from trainer.settings.config import TrainRecipe
from trainer.settings.learning import LossSettings, OptimiserSettings, StageSettings
from trainer.settings.running import DataSettings, RunningSettings

STAGE_STEPS = 300_000
"""Steps of each stage; v2.5 section 4.2."""
STAGES = (
    {"low-256": 1.0},
    {"low-432": 1.0},
    {"low-432": 1.0, "high-1024": 1.0},
)
"""View sets of each stage; v2.5 section 4.2."""


def radio_v2_5() -> TrainRecipe:
    """Return the paper's three stages: ViT-L/16, 1024 views a step, and 128 of high resolution in the last.

    Source: v2.5 sections 2.2 and 4.2, table A9. The paper does not name the optimiser. PHI-S (arXiv:2410.01680, table
    10), by the same authors, uses LAMB, and lets only the heads learn in the first 5,000 steps. The students of the
    paper start from weights that were trained on ImageNet; ours start from random weights, unless `--student.weights`
    names others.
    """
    return TrainRecipe(
        name="radio_v2_5",
        student="large",
        steps=STAGE_STEPS * len(STAGES),
        stages=tuple(StageSettings(steps=STAGE_STEPS, proportions=dict(drawn)) for drawn in STAGES),
        precision="bf16",
        data=DataSettings(batch_low=1024, batch_high=128),
        loss=LossSettings(summary="cosine"),
        optimiser=OptimiserSettings(kind="lamb", lr=1e-3, weight_decay=2e-2, frozen_trunk=5_000),
        running=RunningSettings(workers=8, log_every=50, evaluate_every=10_000),
    )
