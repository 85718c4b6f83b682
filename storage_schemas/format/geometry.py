"""Where tokens lie: windows in a canvas, tokens in a window, and which student tokens meet which teacher tokens.

Everything is counted in **patches** of the student, the unit in which windows move. A window of 16 patches that a
teacher sees as 24 tokens has tokens of 2/3 patch. All positions are rational numbers, so the code works in integers and
is exact.

Both sides use this module alone: the pipeline to draw and record offsets, the trainer to compute its weights.
"""

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64, UInt8

from storage_schemas.format.errors import ContractError, Problem


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CanvasGeometry:
    """The canvas of one view set: a square of patches, larger than the window by the margin."""

    resolution: int
    """Side of the window (pixels)."""
    patch: int
    """Side of a student patch (pixels): windows move by whole patches."""
    margin: int
    """How far a window can move along each axis (patches); 0 leaves no room for shifts."""

    def __post_init__(self) -> None:
        if self.patch < 1 or self.resolution < 1 or self.resolution % self.patch:
            found = f"{self.resolution} px is not a positive multiple of the patch, {self.patch} px"
            raise ContractError("canvas", [Problem(place="resolution", found=found)])
        if self.margin < 0:
            raise ContractError("canvas", [Problem(place="margin", found=f"{self.margin} patches is negative")])

    @property
    def span(self) -> int:
        """Side of the window (patches)."""
        return self.resolution // self.patch

    @property
    def side(self) -> int:
        """Side of the canvas (pixels)."""
        return self.resolution + self.margin * self.patch


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Offset:
    """Where a window starts in its canvas (patches)."""

    row: int
    col: int


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TokenAxis:
    """One axis of a token grid laid over a window."""

    start: int
    """First patch of the window in the canvas (patches)."""
    span: int
    """Length of the window (patches)."""
    tokens: int
    """Tokens along the window; each covers `span / tokens` patches."""

    def __post_init__(self) -> None:
        if self.span < 1 or self.tokens < 1:
            found = f"{self.tokens} tokens over {self.span} patches"
            raise ContractError("token axis", [Problem(place="tokens", found=found, fix="both must be positive")])


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AxisMatch:
    """How the tokens of two windows meet along one axis: common positions, and what each side contributes to them."""

    student: Float64[np.ndarray, "positions student_tokens"]
    """Weights that map student tokens to positions. A row sums to 1 where `common`, and is zero elsewhere."""
    teacher: Float64[np.ndarray, "positions teacher_tokens"]
    """Weights that map teacher tokens to positions. A row sums to 1 where `common`, and is zero elsewhere."""
    common: Bool[np.ndarray, " positions"]
    """Ω along this axis: positions whose whole cell lies in both windows."""


def cut_windows(
    canvases: UInt8[np.ndarray, "views side side 3"],
    geometry: CanvasGeometry,
    starts: Int64[np.ndarray, "views 2"],
    *,
    channels_first: bool = False,
) -> UInt8[np.ndarray, "views _ _ _"]:
    """Cut one window from each canvas.

    Args:
        canvases: RGB, rows from the top.
        geometry: of the canvases.
        starts: where each window starts (row, column; patches).
        channels_first: lay the channels out before the rows, as PyTorch wants them.

    Returns:
        Windows `[views, resolution, resolution, 3]`, or `[views, 3, resolution, resolution]` with `channels_first`.
    """
    side = geometry.resolution
    windows = np.empty((len(canvases), *((3, side, side) if channels_first else (side, side, 3))), dtype=np.uint8)
    channels_last = windows.transpose(0, 2, 3, 1) if channels_first else windows
    for window, canvas, (row, col) in zip(channels_last, canvases, starts * geometry.patch, strict=True):
        window[...] = canvas[row : row + side, col : col + side]
    return windows


def overlap_weights(cells: TokenAxis, tokens: TokenAxis) -> Float64[np.ndarray, "cells tokens"]:
    """Return how much of each cell each token covers: exact resampling by area, along one axis.

        w_ij = |cell_i ∩ token_j| / |cell_i|

    The mean over cell i of a field that is constant over each token is Σ_j w_ij x_j. Equal spacing gives zeros and
    ones, so a shift by whole tokens is exact.

    Args:
        cells: the axis that is resampled to.
        tokens: the axis that is resampled, in the same canvas.

    Returns:
        Fractions of a cell. A row sums to less than 1 where its cell reaches beyond the tokens' window.
    """
    cell_edges = _edges(cells, other=tokens)
    token_edges = _edges(tokens, other=cells)
    starts = np.maximum(cell_edges[:-1, None], token_edges[None, :-1])
    stops = np.minimum(cell_edges[1:, None], token_edges[None, 1:])
    return np.maximum(stops - starts, 0) / np.diff(cell_edges)[:, None]


def match_axis(student: TokenAxis, teacher: TokenAxis) -> AxisMatch:
    """Match the tokens of a student with those of a teacher, along one axis: F_{S→T} and Ω.

    The finer side is resampled to the coarser, and a position counts only where its whole cell lies in both windows.
    With equal spacing the positions are the teacher's tokens, and the map is a shift by whole tokens.

    Source: v4 eq 1.

    Args:
        student: the student's window and tokens (patches).
        teacher: the teacher's window and tokens in the same canvas (patches).
    """
    on_teacher = teacher.tokens * student.span <= student.tokens * teacher.span
    cells = teacher if on_teacher else student
    weights = overlap_weights(cells, student if on_teacher else teacher)
    common = _cells_inside(cells, student if on_teacher else teacher)
    resampled, kept = weights * common[:, None], np.diag(common).astype(np.float64)
    if on_teacher:
        return AxisMatch(student=resampled, teacher=kept, common=common)
    return AxisMatch(student=kept, teacher=resampled, common=common)


def match_tokens(
    student: Float[np.ndarray, "student_rows student_cols channels"],
    teacher: Float[np.ndarray, "teacher_rows teacher_cols channels"],
    rows: AxisMatch,
    cols: AxisMatch,
) -> tuple[
    Float64[np.ndarray, "rows cols channels"],
    Float64[np.ndarray, "rows cols channels"],
    Bool[np.ndarray, "rows cols"],
]:
    """Bring a student's and a teacher's tokens of one view to their common positions, in float64.

    `trainer.TokenMap` does the same for batches of tensors.

    Args:
        student: tokens of the student's window, in the teacher's feature space.
        teacher: tokens of the teacher's window.
        rows: how their rows meet.
        cols: how their columns meet.

    Returns:
        F_{S→T}[student], the teacher's tokens at the same positions, and Ω. Outside Ω both are zero.
    """
    mapped = np.einsum("ps,qt,stc->pqc", rows.student, cols.student, student.astype(np.float64), optimize=True)
    beside = np.einsum("ps,qt,stc->pqc", rows.teacher, cols.teacher, teacher.astype(np.float64), optimize=True)
    return mapped, beside, rows.common[:, None] & cols.common[None, :]


def _edges(axis: TokenAxis, other: TokenAxis) -> np.ndarray:
    """Return token boundaries in units of 1 / (axis.tokens × other.tokens) patch: both axes then have integer edges."""
    steps = np.arange(axis.tokens + 1, dtype=np.int64)
    return axis.start * axis.tokens * other.tokens + steps * axis.span * other.tokens


def _cells_inside(cells: TokenAxis, window: TokenAxis) -> np.ndarray:
    edges = _edges(cells, other=window)
    unit = cells.tokens * window.tokens
    start, stop = window.start * unit, (window.start + window.span) * unit
    return (edges[:-1] >= start) & (edges[1:] <= stop)
