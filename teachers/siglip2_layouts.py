"""The layouts in which SigLIP2 is published: for each, where in the file the tensors of timm's network come from."""

import re
from collections.abc import Mapping

from torch import nn

from teachers.layout import Layout, Origin, Shape, joined, reshaped, rows_of, same, shapes_of

_NAMES = {
    r"^blocks\.": "encoder.layers.",
    r"^(patch_embed|embeds)\.proj\.": "embeddings.patch_embedding.",
    r"^norm\.": "post_layernorm.",
    r"\.norm([12])\.": r".layer_norm\1.",
    r"\.attn\.proj\.": ".self_attn.out_proj.",
    r"^attn_pool\.proj\.": "head.attention.out_proj.",
    r"^attn_pool\.norm\.": "head.layernorm.",
    r"^attn_pool\.latent$": "head.probe",
    r"^attn_pool\.mlp\.": "head.mlp.",
}


def _timm(network: nn.Module) -> Mapping[str, Origin]:
    return {name: same(shape, name) for name, shape in shapes_of(network).items()}


def _hugging_face(network: nn.Module) -> Mapping[str, Origin]:
    return {name: _hugging_face_origin(name, shape) for name, shape in shapes_of(network).items()}


def _hugging_face_origin(name: str, shape: Shape) -> Origin:
    stem, _, leaf = name.rpartition(".")
    if name.endswith("pos_embed"):
        channels = shape[-1]
        rows = shape[1] * shape[2] if len(shape) == 4 else shape[1]
        return reshaped(shape, "embeddings.position_embedding.weight", (rows, channels))
    if stem.endswith(".attn.qkv"):
        attention = stem.replace("blocks", "encoder.layers").removesuffix("attn.qkv") + "self_attn."
        return joined(shape, *(f"{attention}{part}_proj.{leaf}" for part in "qkv"))
    if stem == "attn_pool.q":
        return rows_of(shape, f"head.attention.in_proj_{leaf}", 0, 3 * shape[0])
    if stem == "attn_pool.kv":
        return rows_of(shape, f"head.attention.in_proj_{leaf}", shape[0] // 2, 3 * shape[0] // 2)
    for pattern, published in _NAMES.items():
        name = re.sub(pattern, published, name)
    return same(shape, name)


LAYOUTS = (
    Layout(name="timm", origins=_timm),
    Layout(
        name="Hugging Face",
        origins=_hugging_face,
        prefixes=("vision_model.", ""),
        beside=r"text_model\.|logit_(scale|bias)$",
    ),
)
"""Every layout that `WEIGHTS=` accepts for SigLIP2. The text tower of a whole model is skipped."""
