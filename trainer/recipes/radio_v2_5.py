"""RADIOv2.5's settings, for a cluster."""

from trainer.config import DataSettings, LossSettings, OptimiserSettings, RunningSettings, TrainRecipe


def radio_v2_5() -> TrainRecipe:
    """Return the settings of the paper's last stage: ViT-L/16, 1024 + 128 views a step, 300,000 steps.

    Source: v2.5 sections 2.2 and 4.2, table A9. The stages before it (256, then 432 pixels) are runs of their own with
    `data.proportions`; the paper's own students start from weights trained on ImageNet.
    """
    return TrainRecipe(
        name="radio_v2_5",
        student="large",
        steps=300_000,
        precision="bf16",
        data=DataSettings(batch_low=1024, batch_high=128, proportions={"low-432": 1.0, "high-1024": 1.0}),
        loss=LossSettings(summary="cosine"),
        optimiser=OptimiserSettings(lr=1e-3, weight_decay=2e-2),
        running=RunningSettings(workers=8, log_every=50, evaluate_every=10_000),
    )
