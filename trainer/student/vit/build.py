"""Building vision transformers with RADIO's additions: the papers' sizes, or one of timm's."""

from typing import Any

import timm
from timm.data import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from timm.layers import PatchEmbed
from timm.models.vision_transformer import VisionTransformer

from storage_schemas.format.errors import Problem, SettingError
from trainer.settings.student import VitSettings
from trainer.student.timm_backbone import require_timm
from trainer.student.vit.backbone import VitBackbone
from trainer.student.vit.presets import EXTENDED, PATCH, PRESETS

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each colour in [0, 1] that a backbone is given pixels with."""

_BARE: dict[str, Any] = {
    "num_classes": 0,
    "class_token": False,
    "reg_tokens": 0,
    "pos_embed": "none",
    "global_pool": "",
    "fc_norm": False,
    "dynamic_img_size": True,
}
"""What leaves of a timm vision transformer only its patches, blocks and norms."""


def is_extended(name: str) -> bool:
    """Say whether a student's name asks for the additions."""
    return name in PRESETS or name.startswith(EXTENDED)


def build_vit(name: str, settings: VitSettings, class_tokens: int) -> tuple[VitBackbone, Statistics]:
    """Build a vision transformer with the additions, from random weights.

    Args:
        name: a preset, or `radio_` and the name of a timm vision transformer.
        settings: of the additions.
        class_tokens: how many.

    Raises:
        SettingError: timm has no such model, it is no vision transformer of the plain kind, or it has fewer blocks
            than are to attend everywhere.
    """
    trunk, statistics = _preset(name, settings) if name in PRESETS else _timm(name, settings)
    if len(trunk.blocks) < settings.global_blocks:
        found = f"{settings.global_blocks} blocks are to attend everywhere, {name} has {len(trunk.blocks)}"
        raise SettingError("vit", [Problem(place="vit.global_blocks", found=found)])
    return VitBackbone(trunk, settings, class_tokens), statistics


def _preset(name: str, settings: VitSettings) -> tuple[VisionTransformer, Statistics]:
    size = PRESETS[name]
    trunk = VisionTransformer(
        patch_size=PATCH,
        embed_dim=size.channels,
        depth=size.depth,
        num_heads=size.heads,
        mlp_ratio=size.hidden / size.channels,
        final_norm=settings.final_norm,
        **_BARE,
    )
    return trunk, (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)


def _timm(name: str, settings: VitSettings) -> tuple[VisionTransformer, Statistics]:
    model = name.removeprefix(EXTENDED)
    require_timm(model)
    try:
        trunk = timm.create_model(model, pretrained=False, final_norm=settings.final_norm, **_BARE)
    except Exception as error:  # what a family raises at settings that it does not know is its own affair
        raise _not_plain(name, f"{model} is of another family: {type(error).__name__}: {error}") from error
    if type(trunk) is not VisionTransformer or type(trunk.patch_embed) is not PatchEmbed:
        raise _not_plain(name, f"{model} is a {type(trunk).__name__} on a {type(trunk.patch_embed).__name__}")
    published: Any = trunk.pretrained_cfg
    return trunk, (published["mean"], published["std"])


def _not_plain(name: str, found: str) -> SettingError:
    fix = f"only timm's plain vision transformers take the additions; {name.removeprefix(EXTENDED)} works without them"
    return SettingError("student", [Problem(place=name, found=found, fix=fix)])
