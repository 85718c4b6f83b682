"""F_{S→T} and Ω of v4 eq 1 on tensors: student tokens and teacher tokens are brought to their common positions.

`storage_schemas.format.geometry` defines the map. It depends only on the relative shift of the two windows. An axis has
2 · margin + 1 shifts, so every map is a small table that is made once. A table that moves whole tokens is stored as
indices: then nothing is multiplied and nothing is rounded.
"""

from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from storage_schemas.format.errors import ContractError, Problem
from storage_schemas.format.geometry import AxisMatch, CanvasGeometry, TokenAxis, match_axis


@final
class Keep(nn.Module):
    """The map of tokens that are already at the common positions."""

    def forward(self, tokens: Float[Tensor, "batch rows cols channels"], _: Int64[Tensor, "batch 2"]) -> Tensor:
        """Return the tokens unchanged."""
        return tokens


@final
class Shift(nn.Module):
    """The map of tokens that move by whole positions. Outside Ω the result holds arbitrary tokens."""

    def __init__(self, source: Int64[np.ndarray, "shifts positions"]) -> None:
        super().__init__()
        self.source: Tensor
        self.register_buffer("source", torch.from_numpy(source), persistent=False)

    def forward(self, tokens: Float[Tensor, "batch rows cols channels"], shift: Int64[Tensor, "batch 2"]) -> Tensor:
        """Return the tokens at the common positions, `[batch, positions, positions, channels]`."""
        batch, rows, cols, channels = tokens.shape
        first = torch.arange(batch, device=tokens.device)[:, None, None] * (rows * cols)
        taken = first + self.source[shift[:, 0]][:, :, None] * cols + self.source[shift[:, 1]][:, None, :]
        flat = tokens.reshape(-1, channels).index_select(0, taken.reshape(-1))
        return flat.reshape(*taken.shape, channels)


@final
class Resample(nn.Module):
    """The map of tokens that are averaged, weighted by the area of a position that each covers; 0 outside Ω."""

    def __init__(self, weights: Float[np.ndarray, "shifts positions tokens"]) -> None:
        super().__init__()
        self.weights: Tensor
        self.register_buffer("weights", torch.from_numpy(weights.astype(np.float32)), persistent=False)

    def forward(self, tokens: Float[Tensor, "batch rows cols channels"], shift: Int64[Tensor, "batch 2"]) -> Tensor:
        """Return the averages at the common positions, `[batch, positions, positions, channels]`, in float32."""
        with torch.autocast(tokens.device.type, enabled=False):
            rows, cols = self.weights[shift[:, 0]], self.weights[shift[:, 1]]
            down = torch.einsum("bps,bstc->bptc", rows, tokens.float())
            return torch.einsum("bqt,bptc->bpqc", cols, down)


@final
class TokenMap(nn.Module):
    """F_{S→T} and Ω between a student and one teacher, for the views of one view set."""

    def __init__(self, geometry: CanvasGeometry, student_tokens: int, teacher_tokens: int) -> None:
        """Make the tables for every relative shift.

        Args:
            geometry: canvas, window and margin of the view set (patches).
            student_tokens: tokens along one side of the student's window.
            teacher_tokens: tokens along one side of the teacher's window.

        Raises:
            ContractError: two windows may have no common position.
        """
        super().__init__()
        self.margin = geometry.margin
        matches = [_match(geometry.span, student_tokens, teacher_tokens, shift) for shift in _shifts(geometry.margin)]
        common = np.stack([match.common for match in matches])
        if not common.any(axis=1).all():
            grids = f"{student_tokens} student and {teacher_tokens} teacher tokens"
            place = f"{geometry.resolution} px, shifts of up to {geometry.margin} patches"
            found = f"{grids} on {geometry.span} patches have no common position under some shift"
            fix = "leave this resolution out with data.proportions, or choose a student with smaller tokens"
            raise ContractError("token map", [Problem(place=place, found=found, fix=fix)])
        self.student = _mover(np.stack([match.student for match in matches]))
        self.teacher = _mover(np.stack([match.teacher for match in matches]))
        self.common: Tensor
        self.register_buffer("common", torch.from_numpy(common), persistent=False)

    def forward(
        self,
        student: Float[Tensor, "batch student_rows student_cols channels"],
        teacher: Float[Tensor, "batch teacher_rows teacher_cols channels"],
        shift: Int64[Tensor, "batch 2"],
    ) -> tuple[
        Float[Tensor, "batch rows cols channels"],
        Float[Tensor, "batch rows cols channels"],
        Bool[Tensor, "batch rows cols"],
    ]:
        """Bring the tokens of both to their common positions.

        Args:
            student: the student's tokens in the teacher's space (PHI-S units): the output of a head.
            teacher: the teacher's tokens (PHI-S units).
            shift: start of the teacher's window minus start of the student's window (rows, columns; patches).

        Returns:
            F_{S→T}[student], the teacher's tokens at the same positions, and Ω. Outside Ω the values mean nothing.
        """
        place = shift + self.margin
        common = self.common[place[:, 0]][:, :, None] & self.common[place[:, 1]][:, None, :]
        return self.student(student, place), self.teacher(teacher, place), common


def _shifts(margin: int) -> range:
    return range(-margin, margin + 1)


def _match(span: int, student_tokens: int, teacher_tokens: int, shift: int) -> AxisMatch:
    student = TokenAxis(start=0, span=span, tokens=student_tokens)
    return match_axis(student, TokenAxis(start=shift, span=span, tokens=teacher_tokens))


def _mover(weights: Float[np.ndarray, "shifts positions tokens"]) -> nn.Module:
    """Choose the cheapest exact way to apply weights. A row of weights sums to 1, or to 0 outside Ω."""
    if not np.isin(weights, (0.0, 1.0)).all():
        return Resample(weights)
    source, inside = weights.argmax(axis=2), weights.any(axis=2)
    if np.array_equal(source[inside], np.broadcast_to(np.arange(source.shape[1]), source.shape)[inside]):
        return Keep()
    return Shift(source.astype(np.int64))
