"""Cropped position embeddings (CPE): one grid of embeddings for every resolution and aspect ratio.

In training each view gets a random crop of the grid, resampled to its tokens, so that a token cannot know its absolute
place in the image. In evaluation the grid is resized to the longer side of the image and cut to the shorter.

Source: NVlabs/RADIO, after Kim et al. 2023, arXiv:2305.07011.
"""

import math
from typing import final

import torch
from jaxtyping import Float
from torch import SymInt, Tensor, nn

Count = int | SymInt
"""A number of tokens. It is symbolic while torch.export traces a program for images of any size."""
LEAST_SCALE = math.sqrt(0.1)
"""Smallest scale of a crop: its side before the aspect ratio is applied, as a share of the grid's side."""
STRETCH = 4 / 3
"""Largest aspect factor: a crop's width is multiplied by it and its height divided by it, or the reverse."""


@final
class PositionGrid(nn.Module):
    """A square grid of position embeddings."""

    def __init__(self, side: int, channels: int, dropout: float) -> None:
        """Draw the grid from a normal distribution of variance 1 / channels.

        Args:
            side: embeddings along one side.
            channels: channels of a token.
            dropout: share of views without positions in training.
        """
        super().__init__()
        self.dropout = dropout
        self.grid = nn.Parameter(torch.randn(channels, side, side) * channels**-0.5)

    def forward(
        self, rows: Count, cols: Count, uniforms: Float[Tensor, "batch 5"] | None
    ) -> Float[Tensor, "_ rows cols channels"]:
        """Return the position embeddings of a window's tokens.

        Args:
            rows: rows of tokens.
            cols: columns of tokens.
            uniforms: numbers from [0, 1) for each view: four for its crop, and the last for whether it gets positions
                at all. None for the whole grid, the same for all views.
        """
        if uniforms is None:
            return whole_grid(self.grid, rows, cols).permute(1, 2, 0)[None]
        embeddings = sample_crops(self.grid, crops_from(uniforms[:, :4]), rows, cols)
        kept = uniforms[:, 4] >= self.dropout
        return embeddings.permute(0, 2, 3, 1) * kept[:, None, None, None]


def crops_from(uniforms: Float[Tensor, "batch 4"]) -> Float[Tensor, "batch 2 2"]:
    """Turn uniforms into crops of the grid, as shares of its sides.

        scale ~ U(√0.1, 1),   aspect ~ exp U(ln 3/4, ln 4/3)
        width = min(scale · aspect, 1),   height = min(scale / aspect, 1)
        left ~ U(0, 1 − width),   top ~ U(0, 1 − height)

    Returns:
        Top and left, then height and width.
    """
    scale, aspect = LEAST_SCALE + (1 - LEAST_SCALE) * uniforms[:, 0], STRETCH ** (2 * uniforms[:, 1] - 1)
    size = torch.stack([scale / aspect, scale * aspect], dim=1).clamp(max=1)
    return torch.stack([(1 - size) * uniforms[:, 2:], size], dim=1)


def sample_crops(
    grid: Float[Tensor, "channels side side"], crops: Float[Tensor, "batch 2 2"], rows: Count, cols: Count
) -> Float[Tensor, "batch channels {rows} {cols}"]:
    """Resample crops of a grid bilinearly: the outermost embeddings of a crop go to its outermost tokens.

    Args:
        grid: position embeddings.
        crops: top and left, then height and width, as shares of the grid's sides.
        rows: rows of tokens.
        cols: columns of tokens.
    """
    down, across = (torch.linspace(0, 1, count, device=grid.device) for count in (rows, cols))  # type: ignore[arg-type]
    start, size = crops[:, 0], crops[:, 1]
    y = start[:, :1] + size[:, :1] * down
    x = start[:, 1:] + size[:, 1:] * across
    places = torch.stack(
        [x[:, None, :].expand(-1, rows, -1), y[:, :, None].expand(-1, -1, cols)], dim=3
    )  # grid_sample takes x before y, from −1 to 1
    grids = grid[None].expand(len(crops), -1, -1, -1)
    return nn.functional.grid_sample(grids, 2 * places - 1, mode="bilinear", align_corners=True)


def whole_grid(
    grid: Float[Tensor, "channels side side"], rows: Count, cols: Count
) -> Float[Tensor, "channels rows cols"]:
    """Resize a grid bilinearly to a square of the longer side and keep its top left part: the aspect ratio stays 1."""
    longer = max(rows, cols)
    square = nn.functional.interpolate(grid[None], size=(longer, longer), mode="bilinear", align_corners=False)  # type: ignore[arg-type]
    # not a slice: torch.export cannot follow the strides of a slice for images of any size
    down, across = (torch.arange(count, device=grid.device) for count in (rows, cols))
    return square[0].index_select(1, down).index_select(2, across)
