"""F_{S→T} and Ω of v4 eq 1 on tensors: student tokens and teacher tokens brought to their common positions.

The truth is `storage_schemas.format.geometry`. Only the relative shift of the two windows matters, and each axis has
2 · margin + 1 of them, so every map is a small table made once. Where a table moves whole tokens it is kept as
indices: no product is formed and nothing is rounded.
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
    """Tokens that lie at the common positions already."""

    def forward(self, tokens: Float[Tensor, "batch rows cols channels"], _: Int64[Tensor, "batch 2"]) -> Tensor:
        """Return the tokens as they are."""
        return tokens


@final
class Shift(nn.Module):
    """Tokens that move by whole steps. Positions outside Ω hold a token of no meaning."""

    def __init__(self, source: Int64[np.ndarray, "shifts positions"]) -> None:
        super().__init__()
        self.source: Tensor
        self.register_buffer("source", torch.from_numpy(source), persistent=False)

    def forward(self, tokens: Float[Tensor, "batch rows cols channels"], shift: Int64[Tensor, "batch 2"]) -> Tensor:
        """Return the tokens at the positions `[batch, positions, positions, channels]`."""
        batch, rows, cols, channels = tokens.shape
        first = torch.arange(batch, device=tokens.device)[:, None, None] * (rows * cols)
        taken = first + self.source[shift[:, 0]][:, :, None] * cols + self.source[shift[:, 1]][:, None, :]
        flat = tokens.reshape(-1, channels).index_select(0, taken.reshape(-1))
        return flat.reshape(*taken.shape, channels)


@final
class Resample(nn.Module):
    """Tokens averaged by how much of a position they cover. Positions outside Ω are zero."""

    def __init__(self, weights: Float[np.ndarray, "shifts positions tokens"]) -> None:
        super().__init__()
        self.weights: Tensor
        self.register_buffer("weights", torch.from_numpy(weights.astype(np.float32)), persistent=False)

    def forward(self, tokens: Float[Tensor, "batch rows cols channels"], shift: Int64[Tensor, "batch 2"]) -> Tensor:
        """Return the means at the positions `[batch, positions, positions, channels]`, in float32."""
        with torch.autocast(tokens.device.type, enabled=False):
            rows, cols = self.weights[shift[:, 0]], self.weights[shift[:, 1]]
            down = torch.einsum("bps,bstc->bptc", rows, tokens.float())
            return torch.einsum("bqt,bptc->bpqc", cols, down)


@final
class TokenMap(nn.Module):
    """Where the tokens of a student and of one teacher meet, for the views of one set."""

    def __init__(self, geometry: CanvasGeometry, student_tokens: int, teacher_tokens: int) -> None:
        """Tabulate every relative shift.

        Args:
            geometry: canvas, window and margin of the view set (patches).
            student_tokens: tokens along one side of the student's window.
            teacher_tokens: tokens along one side of the teacher's window.

        Raises:
            ContractError: some pair of windows has no common position.
        """
        super().__init__()
        self.margin = geometry.margin
        matches = [_match(geometry.span, student_tokens, teacher_tokens, shift) for shift in _shifts(geometry.margin)]
        common = np.stack([match.common for match in matches])
        if not common.any(axis=1).all():
            grids = f"{student_tokens} student and {teacher_tokens} teacher tokens"
            found = f"{grids} along {geometry.span} patches may not meet when windows move by {geometry.margin}"
            fix = "leave this resolution out with data.proportions, or choose a student with smaller tokens"
            raise ContractError("token map", [Problem(place=f"{geometry.resolution} px", found=found, fix=fix)])
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
        """Bring both sides to their common positions.

        Args:
            student: the student's tokens, in the teacher's space already.
            teacher: the teacher's tokens.
            shift: start of the teacher's window less that of the student's, along rows and columns (patches).

        Returns:
            F_{S→T}[student], the teacher beside it, and Ω. Outside Ω the values mean nothing.
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
    """Choose the cheapest exact way to apply weights whose rows sum to 1, or to 0 outside Ω."""
    if not np.isin(weights, (0.0, 1.0)).all():
        return Resample(weights)
    source, inside = weights.argmax(axis=2), weights.any(axis=2)
    if np.array_equal(source[inside], np.broadcast_to(np.arange(source.shape[1]), source.shape)[inside]):
        return Keep()
    return Shift(source.astype(np.int64))
