"""The layout of vision transformers in transformers (ViT, DeiT, DINOv2 with and without registers), in timm's names."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_MODELS = ("vit.", "deit.", "dinov2.", "dinov2_with_registers.")
"""Prefixes of the backbone in models with a classifier."""
_PATCHES = "embeddings.patch_embeddings.projection.weight"
_NAMES = {
    r"^embeddings\.patch_embeddings\.projection\.": "patch_embed.proj.",
    r"^embeddings\.position_embeddings$": "pos_embed",
    r"^embeddings\.cls_token$": "cls_token",
    r"^embeddings\.distillation_token$": "dist_token",
    r"^embeddings\.register_tokens$": "reg_token",
    r"^encoder\.layer\.": "blocks.",
    r"\.attention\.output\.dense\.": ".attn.proj.",
    r"\.attention\.attention\.(query|key|value)\.": r".attn.\1.",
    r"\.intermediate\.dense\.": ".mlp.fc1.",
    r"^(blocks\.\d+)\.output\.dense\.": r"\1.mlp.fc2.",
    r"\.layernorm_before\.": ".norm1.",
    r"\.layernorm_after\.": ".norm2.",
    r"\.layer_scale([12])\.lambda1$": r".ls\1.gamma",
    r"^layernorm\.": "norm.",
}
"""Pattern of a name → timm's name; applied in this order."""
_OTHER_PARTS = re.compile(
    r"^(pooler\.|classifier\.|cls_classifier\.|distillation_classifier\.|embeddings\.mask_token$)"
)
"""What is no part of the trunk: pooling, classifiers, and the token of masked training."""


def is_of_transformers(tensors: Mapping[str, Tensor]) -> bool:
    """Return whether weights have the names of a vision transformer of transformers."""
    return any(f"{prefix}{_PATCHES}" in tensors for prefix in ("", *_MODELS))


def from_transformers(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Return the weights of a vision transformer of transformers in timm's names.

    With registers, the position of the class token is added to it, as timm does. Names of other parts stay as they are.

    Args:
        tensors: in the names of transformers.

    Returns:
        The weights, and the names that were left out.
    """
    prefix = next(prefix for prefix in ("", *_MODELS) if f"{prefix}{_PATCHES}" in tensors)
    bare = {name.removeprefix(prefix): value for name, value in tensors.items()}
    left_out = sorted(name for name in bare if _OTHER_PARTS.match(name))
    named = _joined({_timm_name(name): value for name, value in bare.items() if name not in left_out})
    if {"reg_token", "cls_token", "pos_embed"} <= named.keys():
        named["cls_token"] = named["cls_token"] + named["pos_embed"][:, :1]
        named["pos_embed"] = named["pos_embed"][:, 1:]
    return named, left_out


def _timm_name(name: str) -> str:
    for pattern, replacement in _NAMES.items():
        name = re.sub(pattern, replacement, name)
    return name


def _joined(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Join queries, keys and values, where all three are there."""
    joined = dict(tensors)
    for name in tensors:
        parts = [name.replace(".attn.query.", f".attn.{kind}.") for kind in ("query", "key", "value")]
        if ".attn.query." in name and all(part in joined for part in parts):
            joined[name.replace(".attn.query.", ".attn.qkv.")] = torch.cat([joined.pop(part) for part in parts])
    return joined
