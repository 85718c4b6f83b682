"""Building vision transformers with RADIO's additions, from a preset or from a timm model."""

from typing import Any

import timm
from timm.data import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from timm.layers import PatchEmbed
from timm.models.vision_transformer import VisionTransformer

from storage_schemas.format.errors import Problem, SettingError
from trainer.settings.student import VitSettings
from trainer.student.vit.backbone import VitBackbone
from trainer.student.vit.names import EXTENDED, require_timm
from trainer.student.vit.presets import PATCH, PRESETS

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each colour (in [0, 1]) for normalising a backbone's pixels."""

_BARE: dict[str, Any] = {
    "num_classes": 0,
    "class_token": False,
    "reg_tokens": 0,
    "pos_embed": "none",
    "global_pool": "",
    "fc_norm": False,
    "dynamic_img_size": True,
}
"""Settings that leave only patches, blocks and norms of a timm vision transformer."""


def build_vit(name: str, settings: VitSettings, summaries: int) -> tuple[VitBackbone, Statistics]:
    """Build a vision transformer with the additions, from random weights.

    Args:
        name: a preset, or `radio_` and the name of a timm vision transformer.
        settings: settings of the additions.
        summaries: number of class tokens that are summaries.

    Raises:
        SettingError: timm has no such model, it is not a plain vision transformer, or it has fewer blocks than
            `vit.global_blocks`.
    """
    trunk, statistics = _preset(name, settings) if name in PRESETS else _timm(name, settings)
    if len(trunk.blocks) < settings.global_blocks:
        found = f"{settings.global_blocks} blocks should have global attention; {name} has {len(trunk.blocks)} blocks"
        raise SettingError("vit", [Problem(place="vit.global_blocks", found=found)])
    return VitBackbone(trunk, settings, summaries), statistics


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
    except Exception as error:  # each family has its own way to reject settings that it does not have
        raise _not_plain(name, f"{model} does not take them: {type(error).__name__}: {error}") from error
    if type(trunk) is not VisionTransformer or type(trunk.patch_embed) is not PatchEmbed:
        raise _not_plain(name, f"{model} is a {type(trunk).__name__} with {type(trunk.patch_embed).__name__}")
    published: Any = trunk.pretrained_cfg
    return trunk, (published["mean"], published["std"])


def _not_plain(name: str, found: str) -> SettingError:
    plain = name.removeprefix(EXTENDED)
    fix = f"only plain vision transformers of timm take RADIO's additions; use {plain} without them"
    return SettingError("student", [Problem(place=name, found=found, fix=fix)])
