"""The pictures that a program of another library is for."""

from dataclasses import dataclass
from typing import Any, final

import torch


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PictureSize:
    """Pictures that a program is made for; it takes any number of them at once."""

    height: int | None = None
    """Pixels; None, and then of the width too, for every size of at least two tokens, or two attention windows, a
    side."""
    width: int | None = None
    """Pixels."""
    window: int | None = None
    """Side of the attention windows (tokens); None for attention everywhere."""

    def examples(self, stride: int) -> list[tuple[int, int]]:
        """Return heights and widths (pixels): what a program is made with, and compared with the student at.

        Args:
            stride: side of a token (pixels).
        """
        if self.height is not None and self.width is not None:
            return [(self.height, self.width)]
        step = self.step(stride)
        return [(rows * step, columns * step) for rows, columns in ((2, 3), (4, 4), (5, 3))]

    def free(self, stride: int) -> dict[str, dict[int, Any]]:
        """Return which dimensions of the pictures a program leaves open, as torch.export wants to know it."""
        batch: dict[int, Any] = {0: torch.export.Dim("batch")}
        if self.height is not None:
            return {"pixels": batch}
        rows, columns = (self.step(stride) * torch.export.Dim(name, min=2) for name in ("rows", "columns"))
        return {"pixels": batch | {2: rows, 3: columns}}

    def step(self, stride: int) -> int:
        """Return what sides are multiples of (pixels)."""
        return stride * (self.window or 1)
