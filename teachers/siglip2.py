"""SigLIP2 (Google, 2025), as timm builds it: one size per model, or any size in NaFlex; an attention-pooled summary."""

from typing import Any, final

import timm
import torch
from jaxtyping import Float
from torch import Tensor, nn

from teachers.base import AbstractTeacher
from teachers.entry import CatalogueEntry
from teachers.family import ModelFamily
from teachers.output import TeacherOutput
from teachers.siglip2_layouts import LAYOUTS
from teachers.timm_tokens import tokens_of


@final
class SigLip2(AbstractTeacher):
    """Summary: the tokens pooled by attention. Map: the tokens after the final norm.

    Maps of earlier blocks go through the final norm too.

    Source: these are `pooler_output` and `last_hidden_state` of the vision tower, which RADIO distils.
    """

    def features(self, images: Float[Tensor, "batch 3 height width"]) -> TeacherOutput:
        """Run the network."""
        network: Any = self.network
        rows, cols = images.shape[-2] // self.spec.patch, images.shape[-1] // self.spec.patch
        tokens, earlier = tokens_of(self.network, images, self.layers)
        maps = {block: patches.unflatten(1, (rows, cols)) for block, patches in earlier.items()}
        return TeacherOutput(summary=network.attn_pool(tokens), spatial=tokens.unflatten(1, (rows, cols)), layers=maps)


def _skeleton(entry: CatalogueEntry) -> nn.Module:
    # the authors use the tanh approximation of GELU; timm builds some of these models with the exact GELU
    with torch.device("meta"):
        return timm.create_model(
            entry.spec.model, pretrained=False, num_classes=0, act_layer="gelu_tanh", **entry.options
        )


def _fill_tables(network: nn.Module) -> None:
    """Nothing to fill: every number of the network is a loaded parameter."""


FAMILY = ModelFamily(teacher=SigLip2, skeleton=_skeleton, fill_tables=_fill_tables, layouts=LAYOUTS)
