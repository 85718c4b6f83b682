"""A student small enough to learn something in a minute on two CPU cores."""

from trainer.settings.config import TrainRecipe
from trainer.settings.learning import OptimiserSettings
from trainer.settings.running import DataSettings, RunningSettings
from trainer.settings.student import HeadSettings


def demo() -> TrainRecipe:
    """Return the recipe for the demo cache: three tiny teachers of random weights, some hundred views."""
    return TrainRecipe(
        name="demo",
        student="vit_tiny_patch16_224",
        steps=50,
        heads=HeadSettings(width=192),
        data=DataSettings(batch_low=8, batch_high=2),
        optimiser=OptimiserSettings(warmup=5),
        running=RunningSettings(log_every=1, evaluate_every=25, checkpoint_every=25),
    )
