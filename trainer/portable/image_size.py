"""The size of the images that an exported program is for."""

from dataclasses import dataclass
from typing import Any, final

import torch

FREE_SIZES = ((2, 3), (4, 4), (3, 2), (5, 3), (2, 7), (9, 4))
"""Rows and columns (tokens, or attention windows) at which a program for any size is compared with the student. The
first are those of the trace; the others are square, upright and wide."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSize:
    """Size of the images that a program is for. The batch size is always free."""

    height: int | None = None
    """Height (pixels). None, together with the width, for any size with at least two tokens (or two attention windows)
    per side."""
    width: int | None = None
    """Width (pixels)."""
    window: int | None = None
    """Side of the attention windows (tokens); None for global attention."""

    def examples(self, stride: int) -> list[tuple[int, int]]:
        """Return the sizes (height, width; pixels) for comparing a program with the student; the first is traced.

        Args:
            stride: side of a token (pixels).
        """
        if self.height is not None and self.width is not None:
            return [(self.height, self.width)] * 2
        step = self.step(stride)
        return [(rows * step, columns * step) for rows, columns in FREE_SIZES]

    def free(self, stride: int) -> dict[str, dict[int, Any]]:
        """Return the dynamic dimensions of the program's input, in the form of torch.export."""
        batch: dict[int, Any] = {0: torch.export.Dim("batch")}
        if self.height is not None:
            return {"pixels": batch}
        rows, columns = (self.step(stride) * torch.export.Dim(name, min=2) for name in ("rows", "columns"))
        return {"pixels": batch | {2: rows, 3: columns}}

    def step(self, stride: int) -> int:
        """Return the number that sides must be multiples of (pixels)."""
        return stride * (self.window or 1)
