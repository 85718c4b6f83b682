"""The settings of C-RADIOv4, as far as its report gives them."""

from trainer.settings.config import TrainRecipe
from trainer.settings.learning import AverageSettings, OptimiserSettings
from trainer.settings.running import DataSettings, RunningSettings
from trainer.settings.student import HeadSettings, VitSettings


def c_radio_v4() -> TrainRecipe:
    """Return a ViT-H/16 on all ten resolutions: shift-equivariant loss and MESA, DAMP, summary angle over dispersion.

    Source: v4 sections 2.2 to 2.5. Its author gives more in NVlabs/RADIO#181 (2026-05-20): summary and feature losses
    weigh 1, SAM3's summary 0 (here it has none); the moving average runs for the whole of training with decay 0.9996.
    Heads for tokens are those that NVIDIA TAO names v4's. Optimiser, batch and steps of v4 are not published: learning
    rate, weight decay, batch and steps are v2.5's (table A9, section 2.2); LAMB, and the 5,000 steps at the start in
    which only the heads learn, are those of PHI-S (arXiv:2410.01680, table 10), by the same authors. The weight of MESA
    and σ of DAMP are those of their authors. The attention windows of training are not published; these are all windows
    from 6 to 32 tokens that divide one of the resolutions. The tokens before the patches are those of the published
    weights: 3 class tokens, of which the first 2 are the summary, and 7 registers. Micro-batches and activation
    checkpointing are ours: they bound the memory of a step on any number of GPUs, and change nothing that is learnt.
    """
    return TrainRecipe(
        name="c_radio_v4",
        student="huge",
        steps=600_000,
        precision="bf16",
        heads=HeadSettings(width=1024, transformer_blocks=2),
        vit=VitSettings(registers=7, spare_class_tokens=1, windows=(6, 7, 8, 9, 12, 16, 18, 24, 32)),
        average=AverageSettings(decay=0.9996, ramp=False, mesa_weight=0.3),
        damp=0.1,
        data=DataSettings(batch_low=1024, batch_high=128),
        optimiser=OptimiserSettings(kind="lamb", lr=1e-3, weight_decay=2e-2, frozen_trunk=5_000),
        running=RunningSettings(
            workers=8, log_every=50, evaluate_every=10_000, checkpointing=True, micro_batch_tokens=16_384
        ),
    )
