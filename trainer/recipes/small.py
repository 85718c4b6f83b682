"""A student for one GPU: the low partition, a ViT-S."""

from trainer.settings.config import TrainRecipe
from trainer.settings.learning import OptimiserSettings
from trainer.settings.running import DataSettings, RunningSettings


def small() -> TrainRecipe:
    """Return the recipe for a ViT-S/16 on one GPU; batch and steps are ours, sized to a day."""
    return TrainRecipe(
        name="small",
        student="small",
        steps=100_000,
        precision="bf16",
        data=DataSettings(batch_low=128, batch_high=16),
        optimiser=OptimiserSettings(warmup=2_000, gradient_clip=1.0),
        running=RunningSettings(workers=4, log_every=50, evaluate_every=5_000),
    )
