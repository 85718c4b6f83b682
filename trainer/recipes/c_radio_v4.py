"""The settings of C-RADIOv4, as far as its report gives them."""

from trainer.settings.config import TrainRecipe
from trainer.settings.learning import AverageSettings, OptimiserSettings
from trainer.settings.running import DataSettings, RunningSettings
from trainer.settings.student import VitSettings


def c_radio_v4() -> TrainRecipe:
    """Return a ViT-H/16 on all ten resolutions: shift-equivariant loss and MESA, DAMP, summary angle over dispersion.

    Source: v4 sections 2.2 to 2.5. The report does not give optimiser, batch and steps; these are from v2.5. Decay and
    weight of MESA, and σ of DAMP, are the values of their authors. The report does not give the attention windows of
    training; these are all windows from 6 to 32 tokens that divide one of its resolutions. The tokens before the
    patches are those of the published weights: 3 class tokens, of which the first 2 are the summary, and 7 registers.
    """
    return TrainRecipe(
        name="c_radio_v4",
        student="huge",
        steps=600_000,
        precision="bf16",
        vit=VitSettings(registers=7, spare_class_tokens=1, windows=(6, 7, 8, 9, 12, 16, 18, 24, 32)),
        average=AverageSettings(decay=0.9996, ramp=False, mesa_weight=0.3),
        damp=0.1,
        data=DataSettings(batch_low=1024, batch_high=128),
        optimiser=OptimiserSettings(lr=1e-3, weight_decay=2e-2),
        running=RunningSettings(workers=8, log_every=50, evaluate_every=10_000),
    )
