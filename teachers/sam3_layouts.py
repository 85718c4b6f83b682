"""The layouts in which SAM3 is published: for each, where in the file the tensors of transformers' trunk come from."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from teachers.layout import Check, Layout, Origin, Shape, UnfitTensorError, rows_of, same, shapes_of

_META_NAMES = {
    r"^embeddings\.patch_embeddings\.projection\.": "patch_embed.proj.",
    r"^layer_norm\.": "ln_pre.",
    r"^layers\.": "blocks.",
    r"\.layer_norm([12])\.": r".norm\1.",
    r"\.attention\.o_proj\.": ".attn.proj.",
}


def _hugging_face(network: nn.Module) -> Mapping[str, Origin]:
    return {name: same(shape, name) for name, shape in shapes_of(network).items()}


def _meta(network: nn.Module) -> Mapping[str, Origin]:
    return {name: _meta_origin(name, shape) for name, shape in shapes_of(network).items()}


def _meta_origin(name: str, shape: Shape) -> Origin:
    if name == "embeddings.position_embeddings":
        return _without_class_position(shape, "pos_embed")
    projection = re.fullmatch(r"layers\.(\d+)\.attention\.([qkv])_proj\.(weight|bias)", name)
    if projection:
        block, part, leaf = projection.groups()
        return rows_of(shape, f"blocks.{block}.attn.qkv.{leaf}", "qkv".index(part) * shape[0], 3 * shape[0])
    for pattern, published in _META_NAMES.items():
        name = re.sub(pattern, published, name)
    return same(shape, name)


def _tables(network: nn.Module) -> Mapping[str, Check]:
    net: Any = network
    checks: dict[str, Check] = {}
    for index, block in enumerate(net.layers):
        table = rf"blocks\.{index}\.attn\.freqs_cis"
        checks[table] = _rotation_check(block, net.config, lambda rotation: rotation)
        # SAM 3.1 keeps both parts of the complex table apart
        checks[rf"{table}_real"] = _rotation_check(block, net.config, lambda rotation: rotation.real)
        checks[rf"{table}_imag"] = _rotation_check(block, net.config, lambda rotation: rotation.imag)
    return checks


def _rotation_check(block: Any, config: Any, part: Callable[[Tensor], Tensor]) -> Check:
    positions = block.precompute_positions(config, block.window_size)
    frequencies, _ = block.rotary_emb.compute_axial_rope_parameters(config)
    angles = (positions[..., None] * frequencies).flatten(1)
    expected = part(torch.polar(torch.ones_like(angles), angles))

    def rotations(tensor: Tensor) -> None:
        if tensor.shape != expected.shape or not torch.allclose(tensor, expected, rtol=0, atol=1e-4):
            raise UnfitTensorError("the rotary table is that of another head size, input size or base")

    return rotations


def _without_class_position(shape: Shape, source: str) -> Origin:
    def make(tensors: list[Tensor]) -> Tensor:
        return tensors[0][:, 1:].clone()

    # the trunk was pretrained with a class token and runs without it; the first position is that token's
    return Origin(sources=(source,), shapes=((1, shape[1] + 1, shape[2]),), make=make)


LAYOUTS = (
    Layout(
        name="Hugging Face",
        origins=_hugging_face,
        prefixes=("detector_model.vision_encoder.backbone.", "vision_encoder.backbone.", ""),
        beside=r"(?!(detector_model\.)?vision_encoder\.backbone\.)(detector_model|tracker_model|tracker_neck"
        r"|vision_encoder\.neck|text_encoder|text_projection|geometry_encoder|detr_encoder|detr_decoder|mask_decoder"
        r"|dot_product_scoring)\.",
    ),
    Layout(
        name="Meta's sam3.pt",
        origins=_meta,
        prefixes=("detector.backbone.vision_backbone.trunk.", "module.detector.backbone.vision_backbone.trunk."),
        beside=r"(module\.)?(?!detector\.backbone\.vision_backbone\.trunk\.)(detector|tracker)\.",
        unused=_tables,
    ),
    # what Meta's training code saves of its image model, also from a wrapper for several processes
    Layout(
        name="Meta's fine-tuned image model",
        origins=_meta,
        prefixes=("backbone.vision_backbone.trunk.", "module.backbone.vision_backbone.trunk."),
        beside=r"(module\.)?(backbone\.(?!vision_backbone\.trunk\.)|(transformer|geometry_encoder|segmentation_head"
        r"|dot_prod_scoring|class_embed|instance_dot_prod_scoring|instance_class_embed|inst_interactive_predictor)\.)",
        unused=_tables,
    ),
)
"""Every layout that `WEIGHTS=` accepts for SAM3. All other parts of the model are skipped."""
