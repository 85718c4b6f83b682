"""Mosaics: how many windows share one forward of a canvas teacher, and where each lies.

Cells are laid out **in tokens**: a cell boundary that falls inside a token would shift every feature after it. For a
canvas of 72 tokens: 128 px windows (8 tokens) 9 × 9, 224 px (14) 5 × 5 with two tokens to spare, 432 px (27) 2 × 2 in
cells of 36.
Source: v2.5 section 4.3, counted in pixels there.
"""

from dataclasses import dataclass
from typing import final

import numpy as np

from storage_schemas.format.errors import ContractError, Problem
from storage_schemas.format.geometry import Offset
from storage_schemas.format.seeds import Key, uniforms


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MosaicLayout:
    """Cells of equal size on a square canvas; a window lies at the top left corner of its cell."""

    canvas_tokens: int
    """Side of the canvas (tokens)."""
    window_tokens: int
    """Side of a window (tokens)."""

    def __post_init__(self) -> None:
        if not 1 <= self.window_tokens <= self.canvas_tokens:
            found = f"{self.window_tokens} tokens do not fit a canvas of {self.canvas_tokens}"
            fix = "leave this resolution out, or give the teacher a larger canvas"
            raise ContractError("mosaic", [Problem(place="window", found=found, fix=fix)])

    @property
    def per_side(self) -> int:
        """k: windows along one side."""
        return self.canvas_tokens // self.window_tokens

    @property
    def capacity(self) -> int:
        """k²: windows in one forward."""
        return self.per_side**2

    @property
    def cell_tokens(self) -> int:
        """Side of a cell (tokens)."""
        return self.canvas_tokens // self.per_side

    def corner(self, cell: int) -> Offset:
        """Return the first token (row, column) of a cell, counted row by row.

        Raises:
            ContractError: the mosaic has no such cell.
        """
        if not 0 <= cell < self.capacity:
            found = f"there is no cell {cell} among {self.capacity}"
            raise ContractError("mosaic", [Problem(place="cell", found=found)])
        row, col = divmod(cell, self.per_side)
        return Offset(row=row * self.cell_tokens, col=col * self.cell_tokens)


def draw_cells(layout: MosaicLayout, key: Key) -> list[int]:
    """Return the cell of each of a mosaic's `capacity` members: a permutation that depends on the key alone."""
    return np.argsort(uniforms(key, layout.capacity), kind="stable").tolist()
