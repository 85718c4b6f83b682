"""For one GPU: small teachers and the low partition."""

from pipeline.config import Recipe, TeacherChoice, ViewsConfig


def small() -> Recipe:
    """Return a recipe for one GPU: DINOv3 ViT-B, SigLIP2 base and SAM3 over the low partition."""
    teachers = (
        TeacherChoice(name="dinov3", source="dinov3-b", batch=64),
        TeacherChoice(name="siglip2", source="siglip2-b-384", batch=64),
        TeacherChoice(name="sam3", source="sam3", batch=4),
    )
    return Recipe(name="small", views=ViewsConfig(high=()), teachers=teachers)
