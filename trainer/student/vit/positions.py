"""Cropped position embedding (CPE): one grid of positions for every resolution and aspect.

In training each view sees a random crop of the grid, resampled to its tokens, so that no token knows its place in the
picture for certain; otherwise the grid is resized to the longer side and cut to the shorter.

Source: NVlabs/RADIO, after Kim et al. 2023, arXiv:2305.07011.
"""

import math
from typing import final

import torch
from jaxtyping import Float
from torch import SymInt, Tensor, nn

Count = int | SymInt
"""A number of tokens; while a program for pictures of any size is traced, one that is yet to be known."""
LEAST_SCALE = math.sqrt(0.1)
"""Smallest side of a crop before its aspect, as a share of the grid's."""
STRETCH = 4 / 3
"""Largest factor that a crop is wider, and by as much lower, or higher and narrower, than its scale."""


@final
class PositionGrid(nn.Module):
    """A square grid of position codes."""

    def __init__(self, side: int, channels: int, dropout: float) -> None:
        """Draw the grid from a normal distribution of variance 1 / channels.

        Args:
            side: codes along one side.
            channels: of a token.
            dropout: share of views that see no position at all in training.
        """
        super().__init__()
        self.dropout = dropout
        self.grid = nn.Parameter(torch.randn(channels, side, side) * channels**-0.5)

    def forward(
        self, rows: Count, cols: Count, draws: Float[Tensor, "batch 5"] | None
    ) -> Float[Tensor, "_ rows cols channels"]:
        """Return the codes of a window's tokens.

        Args:
            rows: tokens down the window.
            cols: tokens across it.
            draws: each view's own, uniform in [0, 1), of which the last decides whether the view sees positions at
                all; None for the whole grid, the same for all views.
        """
        if draws is None:
            return whole_grid(self.grid, rows, cols).permute(1, 2, 0)[None]
        codes = sample_crops(self.grid, draw_crops(draws[:, :4]), rows, cols)
        seen = draws[:, 4] >= self.dropout
        return codes.permute(0, 2, 3, 1) * seen[:, None, None, None]


def draw_crops(draws: Float[Tensor, "batch 4"]) -> Float[Tensor, "batch 2 2"]:
    """Turn uniform draws into crops of the grid, as shares of its sides.

        scale ~ U(√0.1, 1),   aspect ~ exp U(ln 3/4, ln 4/3)
        width = min(scale · aspect, 1),   height = min(scale / aspect, 1)
        left ~ U(0, 1 − width),   top ~ U(0, 1 − height)

    Returns:
        Top and left, then height and width.
    """
    scale, aspect = LEAST_SCALE + (1 - LEAST_SCALE) * draws[:, 0], STRETCH ** (2 * draws[:, 1] - 1)
    size = torch.stack([scale / aspect, scale * aspect], dim=1).clamp(max=1)
    return torch.stack([(1 - size) * draws[:, 2:], size], dim=1)


def sample_crops(
    grid: Float[Tensor, "channels side side"], crops: Float[Tensor, "batch 2 2"], rows: Count, cols: Count
) -> Float[Tensor, "batch channels {rows} {cols}"]:
    """Resample crops of a grid, bilinearly: a crop's outermost codes go to its outermost tokens.

    Args:
        grid: codes.
        crops: top and left, then height and width, as shares of the grid's sides.
        rows: tokens down.
        cols: tokens across.
    """
    down, across = (torch.linspace(0, 1, count, device=grid.device) for count in (rows, cols))  # type: ignore[arg-type]
    start, size = crops[:, 0], crops[:, 1]
    y = start[:, :1] + size[:, :1] * down
    x = start[:, 1:] + size[:, 1:] * across
    places = torch.stack(
        [x[:, None, :].expand(-1, rows, -1), y[:, :, None].expand(-1, -1, cols)], dim=3
    )  # grid_sample wants x before y, from −1 to 1
    codes = grid[None].expand(len(crops), -1, -1, -1)
    return nn.functional.grid_sample(codes, 2 * places - 1, mode="bilinear", align_corners=True)


def whole_grid(
    grid: Float[Tensor, "channels side side"], rows: Count, cols: Count
) -> Float[Tensor, "channels rows cols"]:
    """Resize a grid to a square of the longer side, bilinearly, and keep its top left part: codes stay square."""
    longer = max(rows, cols)
    square = nn.functional.interpolate(grid[None], size=(longer, longer), mode="bilinear", align_corners=False)  # type: ignore[arg-type]
    # a slice would have the strides of the square, which programs for pictures of any size cannot reason about
    down, across = (torch.arange(count, device=grid.device) for count in (rows, cols))
    return square[0].index_select(1, down).index_select(2, across)
