"""The demo: the three real model classes, tiny and with seeded random weights, on scikit-image's photographs."""

from pipeline.config import CalibrationConfig, Recipe, TeacherChoice, ViewsConfig


def demo() -> Recipe:
    """Return a recipe for a fresh machine: no network, two CPU cores, minutes.

    It covers every mode: windows seen directly (dinov3); from detail at another scale (siglip2: 12 × 12 tokens, where
    the student has 8 or 12 along a side); in 2 × 2 tiles (siglip2: 24 × 24, where the student has 16); in mosaics of
    3 × 3 and 2 × 2, and alone on a padded canvas (sam3: 24 × 24 tokens).
    """
    views = ViewsConfig(
        low=(128, 192),
        high=(256,),
        high_share=0.25,
        draws=12,
        heldout=0.15,
        tokens_per_shard=2304,
        canvas_tokens=24,
    )
    teachers = (
        TeacherChoice(name="dinov3", source="dinov3-tiny", weights="random:1", precision="fp32"),
        TeacherChoice(name="siglip2", source="siglip2-tiny", weights="random:2", precision="fp32", tiles=2),
        TeacherChoice(name="sam3", source="sam3-tiny", weights="random:3", precision="fp32", batch=4),
    )
    return Recipe(name="demo", views=views, teachers=teachers, calibration=CalibrationConfig(views=1000))
