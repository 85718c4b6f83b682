"""DINOv3 (Meta, 2025), as timm builds it: any size, a class token, four registers, rotary positions."""

from typing import Any, final

import timm
import torch
from jaxtyping import Float
from torch import Tensor, nn

from teachers.base import AbstractTeacher
from teachers.dinov3_layouts import LAYOUTS
from teachers.entry import CatalogueEntry
from teachers.family import ModelFamily
from teachers.output import TeacherOutput
from teachers.timm_tokens import tokens_of


@final
class DinoV3(AbstractTeacher):
    """Summary: the class token after the final norm. Map: the patch tokens after the final norm.

    Maps of earlier blocks go through the final norm too.

    Source: these are `x_norm_clstoken` and `x_norm_patchtokens` of the authors' code, which RADIO distils.
    """

    def features(self, images: Float[Tensor, "batch 3 height width"]) -> TeacherOutput:
        """Run the network."""
        prefix: int = self.network.num_prefix_tokens  # type: ignore[assignment]
        rows, cols = images.shape[-2] // self.spec.patch, images.shape[-1] // self.spec.patch
        tokens, earlier = tokens_of(self.network, images, self.layers)
        maps = {block: patches.unflatten(1, (rows, cols)) for block, patches in earlier.items()}
        return TeacherOutput(summary=tokens[:, 0], spatial=tokens[:, prefix:].unflatten(1, (rows, cols)), layers=maps)


def _skeleton(entry: CatalogueEntry) -> nn.Module:
    with torch.device("meta"):
        return timm.create_model(entry.spec.model, pretrained=False, num_classes=0, **entry.options)


def _fill_tables(network: nn.Module) -> None:
    net: Any = network
    net.rope.to_empty(device="cpu")
    net.rope.reset_parameters()
    for block in net.blocks:
        if getattr(block.attn, "k_bias", None) is not None:
            block.attn.k_bias = torch.zeros_like(block.attn.q_bias)


FAMILY = ModelFamily(teacher=DinoV3, skeleton=_skeleton, fill_tables=_fill_tables, layouts=LAYOUTS)
