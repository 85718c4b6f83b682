"""RADIOv2.5's views, for today's models of the same kinds as the paper's teachers."""

from pipeline.config import Recipe, TeacherChoice, ViewsConfig


def radio_v2_5() -> Recipe:
    """Return the views of the paper's three stages: 256; 432; 432 and 1024 pixels.

    The teachers are a text-aligned, a self-supervised and a segmentation model; the paper's own (DFN CLIP, SigLIP,
    DINOv2, SAM) are not in the catalogue.

    Source: v2.5 section 4.2. There every stage sees all images. Here a view has one resolution, and stages 2 and 3
    share the views at 432 px, so `draws` is 2.
    """
    teachers = (
        TeacherChoice(name="siglip2", source="siglip2-so400m-384", batch=32),
        TeacherChoice(name="dinov3", source="dinov3-l", batch=32),
        TeacherChoice(name="sam3", source="sam3", batch=4),
    )
    views = ViewsConfig(low=(256, 432), high=(1024,), draws=2)
    return Recipe(name="radio_v2_5", views=views, teachers=teachers)
