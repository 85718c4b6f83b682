"""C-RADIOv4: the report's teachers and resolutions."""

from pipeline.config import Recipe, TeacherChoice, ViewsConfig


def c_radio_v4() -> Recipe:
    """Return the recipe of the report: SigLIP2-g-384, DINOv3-7B and SAM3, at all ten resolutions.

    Source: v4 sections 2.1 and 2.2. Shifts are patch × N(0, 0.5), rounded: the report's author in NVlabs/RADIO#181,
    2026-05-20. Proportions and crops are not published; see `ViewsConfig`. For SigLIP2 at 1152 px the report uses a
    trained upsampler over 3 × 3 tiles; this recipe uses the tiles' own tokens.
    """
    teachers = (
        TeacherChoice(name="siglip2", source="siglip2-g-384", batch=32, tiles=3),
        TeacherChoice(name="dinov3", source="dinov3-7b", batch=8),
        TeacherChoice(name="sam3", source="sam3", batch=4),
    )
    views = ViewsConfig(shifts="rounded-normal", shift_sd=0.5)
    return Recipe(name="c_radio_v4", views=views, teachers=teachers)
