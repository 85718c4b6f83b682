"""Rotary positions that a program computes for each image size, in place of those that are fixed when it is traced."""

import copy
from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float
from timm.layers import RotaryEmbeddingDinoV3
from torch import Tensor, nn

from trainer.export import ExportedStudent


@final
class ComputedRope(nn.Module):
    """The rotary positions of DINOv3, as operations on the size of the token grid.

    timm's class turns the number of tokens along a side into a Python number. A tracer takes that for a constant, so a
    program would keep the positions of the image that it was traced with.

    With i the row or column of a token, of n, and p a period, the angle is 2π (2 (i + 1/2) / n − 1) / p.
    """

    def __init__(self, rope: RotaryEmbeddingDinoV3) -> None:
        super().__init__()
        self.offset, self.rotate_half = 0.5 + rope.grid_offset, rope.rotate_half
        self.register_buffer("periods", rope.get_buffer("periods").clone(), persistent=False)

    def get_embed(self, shape: Sequence[int | torch.SymInt]) -> Float[Tensor, "tokens twice_channels"]:
        """Return sines and cosines for a grid of tokens.

        Args:
            shape: its rows and columns.
        """
        # mypy takes a tensor over a symbolic number for a symbolic number
        sides = [2 * (torch.arange(side).float() + self.offset) / side - 1 for side in shape]
        grid = torch.stack(torch.meshgrid(*sides, indexing="ij"), dim=-1).flatten(0, 1)  # type: ignore[arg-type]
        periods = self.get_buffer("periods")
        angles = (2 * torch.pi * grid.unsqueeze(-1) / periods).flatten(1)
        return torch.cat([self._for_channels(angles.sin()), self._for_channels(angles.cos())], dim=-1)

    def _for_channels(self, values: Float[Tensor, "tokens frequencies"]) -> Float[Tensor, "tokens channels"]:
        # a frequency turns two channels: they are half a head apart, or next to each other
        return torch.cat([values, values], dim=-1) if self.rotate_half else values.repeat_interleave(2, dim=-1)


def with_computed_positions(student: ExportedStudent) -> ExportedStudent:
    """Return a copy of a student whose rotary positions a tracer can follow; the weights are shared."""
    shared = {id(tensor): tensor for tensor in student.parameters()}
    traceable = copy.deepcopy(student, shared)
    for module in list(traceable.modules()):
        for name, part in list(module.named_children()):
            if isinstance(part, RotaryEmbeddingDinoV3) and _is_plain(part):
                setattr(module, name, ComputedRope(part))
    return traceable


def _is_plain(rope: RotaryEmbeddingDinoV3) -> bool:
    return rope.normalize_coords == "separate" and rope.grid_indexing == "ij"
