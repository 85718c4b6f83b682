"""RADIOv2.5: the paper's own teachers and views."""

from typing import Any

from pipeline.config import Recipe, TeacherChoice, ViewsConfig


def radio_v2_5() -> Recipe:
    """Return DFN CLIP, SigLIP, DINOv2-g with registers and SAM ViT-H, and the views of the paper's three stages.

    The stages are 256; 432; 432 and 1024 pixels. CLIP and SigLIP see each window at their own size; SAM sees mosaics.
    The paper gives DINOv2 the window at the nearest multiple of its patch, 14 px. Here DINOv2 sees it at its own size,
    518 px, and in the high partition as 2 × 2 tiles of that size: 74 × 74 tokens beside the student's 64 × 64. The map
    of SAM is that of its trunk, without the neck, as in C-RADIOv4's distillation of SAM3.

    Source: v2.5 sections 3, 4.2, 4.3 and 4.7. There every stage sees all images. Here a view has one resolution, and
    stages 2 and 3 share the views at 432 px, so `draws` is 2.
    """
    teachers = (
        _timm("clip", "vit_huge_patch14_clip_378.dfn5b", batch=32),
        _timm("siglip", "vit_so400m_patch14_siglip_378.webli", batch=32),
        _timm("dinov2", "vit_giant_patch14_reg4_dinov2.lvd142m", batch=16, tiles=2),
        _timm("sam", "samvit_huge_patch16.sa1b", batch=4, summary="none", size_rule="canvas"),
    )
    views = ViewsConfig(low=(256, 432), high=(1024,), draws=2)
    return Recipe(name="radio_v2_5", views=views, teachers=teachers)


def _timm(name: str, model: str, **settings: Any) -> TeacherChoice:
    return TeacherChoice(name=name, source=f"timm:{model}", precision="bf16-autocast", **settings)
