"""Evaluation views of images with labels, and any teacher of the catalogue over them."""

from pipeline.config import CalibrationConfig, Recipe, ViewsConfig


def evaluation() -> Recipe:
    """Return the recipe of `make evaluate`: the centred square of every image at 256 px, whole and unmirrored.

    Give the resolutions with `--views.low 224 512`. It names no teachers: `--teacher` takes any name of the catalogue.
    PHI-S only changes the units here, and evaluation changes them back: a fit on few tokens does no harm.
    """
    views = ViewsConfig(placing="centre", crop="centre", low=(256,), high=(), margin=0, flip=0, heldout=0, min_side=1)
    return Recipe(name="evaluation", views=views, calibration=CalibrationConfig(tokens_per_channel=1))
