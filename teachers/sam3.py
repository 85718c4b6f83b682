"""The SAM3 image trunk (Meta, 2025), as transformers builds it: one square size, windowed attention, no summary."""

from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from storage_schemas.format.errors import MissingError, Problem
from teachers.base import AbstractTeacher
from teachers.entry import CatalogueEntry
from teachers.family import ModelFamily
from teachers.output import TeacherOutput
from teachers.sam3_layouts import LAYOUTS

try:
    from transformers import Sam3ViTConfig
    from transformers.models.sam3.modeling_sam3 import Sam3ViTModel
except ImportError as error:
    fix = "pip install 'stillhouse[sam3]'"
    problem = Problem(place="transformers", found=f"SAM3 needs it, and it cannot be imported: {error}", fix=fix)
    raise MissingError("a package", [problem]) from error


@final
class Sam3Trunk(AbstractTeacher):
    """No summary. Map: the residual stream after the last block and before the neck; the trunk has no final norm.

    Source: RADIO distils the trunk. The output of a neck can be computed from it.
    """

    def features(self, images: Float[Tensor, "batch 3 height width"]) -> TeacherOutput:
        """Run the network block by block, as the library's own forward does, and keep the maps that are asked for."""
        network: Any = self.network
        side = self.spec.native_tokens
        tokens = network.layer_norm(network.embeddings(images).unflatten(1, (side, side)))
        maps = {}
        for index, block in enumerate(network.layers):
            tokens = block(tokens)
            if index in self.layers:
                maps[index] = tokens
        return TeacherOutput(summary=None, spatial=tokens, layers=maps)


def _skeleton(entry: CatalogueEntry) -> nn.Module:
    # the authors use 1e-5 in their norms; the library's default for this model is 1e-6
    config = Sam3ViTConfig(image_size=entry.spec.native, layer_norm_eps=1e-5, **entry.options)
    with torch.device("meta"):
        return Sam3ViTModel(config)


def _fill_tables(network: nn.Module) -> None:
    net: Any = network
    for block in net.layers:
        block.rotary_emb = type(block.rotary_emb)(net.config)
        block.position_ids = block.precompute_positions(net.config, block.window_size)


FAMILY = ModelFamily(teacher=Sam3Trunk, skeleton=_skeleton, fill_tables=_fill_tables, layouts=LAYOUTS)
