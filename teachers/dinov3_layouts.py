"""The layouts in which DINOv3 is published: for each, where in the file the tensors of timm's network come from.

All q and v biases of Meta's models are zero, so some of timm's copies leave them out. Here they are always tensors, so
that a model has the same digest in every layout.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from teachers.layout import Check, Layout, Origin, Shape, UnfitTensorError, anything, joined, same, shapes_of, zeros

_META_NAMES = {
    "reg_token": "storage_tokens",
    "gamma_1": "ls1.gamma",
    "gamma_2": "ls2.gamma",
    "mlp.fc1_g": "mlp.w1",
    "mlp.fc1_x": "mlp.w2",
}
_HUGGING_FACE_NAMES = {
    "cls_token": "embeddings.cls_token",
    "reg_token": "embeddings.register_tokens",
    "patch_embed.proj": "embeddings.patch_embeddings",
    "blocks": "layer",
    "attn.proj": "attention.o_proj",
    "attn.q_bias": "attention.q_proj.bias",
    "attn.v_bias": "attention.v_proj.bias",
    "gamma_1": "layer_scale1.lambda1",
    "gamma_2": "layer_scale2.lambda1",
    "mlp.fc1_g": "mlp.gate_proj",
    "mlp.fc1_x": "mlp.up_proj",
    "mlp.fc1": "mlp.up_proj",
    "mlp.fc2": "mlp.down_proj",
}


def _renamed(name: str, names: Mapping[str, str]) -> str:
    pattern = "|".join(rf"(?<![^.]){re.escape(part)}(?![^.])" for part in names)
    return re.sub(pattern, lambda match: names[match.group()], name)


def _origins(choose: Callable[[str, Shape], Origin]) -> Callable[[nn.Module], Mapping[str, Origin]]:
    return lambda network: {name: choose(name, shape) for name, shape in shapes_of(network).items()}


def _without_bias(name: str, shape: Shape) -> Origin:
    return zeros(shape) if name.endswith(("attn.q_bias", "attn.v_bias")) else same(shape, name)


def _hugging_face(name: str, shape: Shape) -> Origin:
    if name.endswith("attn.qkv.weight"):
        stem = _renamed(name.removesuffix("attn.qkv.weight"), _HUGGING_FACE_NAMES) + "attention."
        return joined(shape, *(f"{stem}{part}_proj.weight" for part in "qkv"))
    return same(shape, _renamed(name, _HUGGING_FACE_NAMES))


def _meta_for(network: nn.Module) -> Mapping[str, Origin]:
    # Meta numbers the matrices of SwiGLU: its w3 is timm's fc2. In a plain MLP both use the name fc2
    gated = any("fc1_g" in name for name in shapes_of(network))
    names = _META_NAMES | ({"mlp.fc2": "mlp.w3"} if gated else {})

    def choose(name: str, shape: Shape) -> Origin:
        if name.endswith(("attn.q_bias", "attn.v_bias")):
            stem, index = name.removesuffix(name[-6:]), "qkv".index(name[-6])
            return _masked_part(shape, f"{stem}qkv.bias", f"{stem}qkv.bias_mask", index)
        return same(shape, _renamed(name, names))

    return _origins(choose)(network)


def _masked_part(shape: Shape, bias: str, mask: str, index: int) -> Origin:
    def make(tensors: list[Tensor]) -> Tensor:
        kept = tensors[1].reshape(3, -1)
        if not torch.equal(kept, torch.tensor([1.0, 0.0, 1.0])[:, None].expand_as(kept)):
            raise UnfitTensorError("the mask must keep the biases of q and v, and no others")
        return tensors[0].chunk(3)[index].clone()

    whole = (shape[0] * 3,)
    return Origin(sources=(bias, mask), shapes=(whole, whole), make=make)


def _meta_unused(network: nn.Module) -> Mapping[str, Check]:
    rope: Any = network.rope
    count = len(rope.periods)
    expected = rope.temperature ** (torch.arange(count) / count)

    def periods(tensor: Tensor) -> None:
        # the published periods were rounded to bfloat16, which keeps 8 bits: relative error 2⁻⁸
        if tensor.shape != expected.shape or not torch.allclose(tensor.float(), expected, rtol=2**-8, atol=0):
            raise UnfitTensorError("the rotary periods are those of another head size or another base")

    return {"rope_embed.periods": periods, "mask_token": anything, r"local_cls_norm\.(weight|bias)": anything}


LAYOUTS = (
    Layout(name="timm", origins=_origins(lambda name, shape: same(shape, name))),
    Layout(name="timm without q and v biases", origins=_origins(_without_bias)),
    Layout(
        name="Hugging Face",
        origins=_origins(_hugging_face),
        unused=lambda _network: {r"embeddings\.mask_token": anything},
    ),
    Layout(name="Meta's .pth", origins=_meta_for, unused=_meta_unused),
)
"""Every layout that `WEIGHTS=` accepts for DINOv3."""
