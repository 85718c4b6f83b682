"""Mosaics: how many windows share one forward of a canvas teacher, and where each of them lies.

Cells are measured **in tokens**: a cell boundary inside a token would shift every feature after it. A canvas of 72
tokens holds 9 × 9 windows of 128 px (8 tokens), 5 × 5 of 224 px (14, with two tokens to spare), and 2 × 2 of 432 px
(27, in cells of 36).

Source: v2.5 section 4.3, which counts in pixels.
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
    """Cells of equal size on a square canvas. A window lies at the top left corner of its cell."""

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
        """Return where a cell starts (tokens).

        Args:
            cell: its number, row by row from the top left.

        Raises:
            ContractError: there is no such cell.
        """
        if not 0 <= cell < self.capacity:
            found = f"there is no cell {cell}: the mosaic has {self.capacity} cells"
            raise ContractError("mosaic", [Problem(place="cell", found=found)])
        row, col = divmod(cell, self.per_side)
        return Offset(row=row * self.cell_tokens, col=col * self.cell_tokens)


def draw_cells(layout: MosaicLayout, key: Key) -> list[int]:
    """Return the cell of each of a mosaic's `capacity` windows: a permutation that depends on the key alone."""
    return np.argsort(uniforms(key, layout.capacity), kind="stable").tolist()
