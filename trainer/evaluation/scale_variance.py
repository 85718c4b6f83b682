"""Scale equivariance: how much a student's features of one picture depend on the size it is shown at."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

TINY = 1e-8
"""Added to σ_c, so that a channel that is the same everywhere counts as nothing."""


def scale_variance(maps: Sequence[Float[Tensor, "batch _ _ channels"]]) -> Float[Tensor, " batch"]:
    """Return the variance over scales of features of the same pictures.

        F̂_i = (F_i − μ_c) / σ_c,   brought bilinearly to the grid of the smallest
        σ²_scale = mean_{h,w,c} Var_i F̂_i(h, w, c)

    μ_c and σ_c are mean and standard deviation over the smallest map, for each picture and channel. 0 is perfect
    equivariance. Source: v2.5 eqs 10 to 14, with the mean over channels of its listing.

    Args:
        maps: for each scale, features of the same pictures, two or more.
    """
    smallest = min(maps, key=lambda one: one.shape[1] * one.shape[2])
    mean = smallest.mean(dim=(1, 2), keepdim=True)
    width = smallest.std(dim=(1, 2), keepdim=True, correction=0) + TINY
    size = tuple(smallest.shape[1:3])
    normal = [((one - mean) / width).permute(0, 3, 1, 2) for one in maps]
    resized = torch.stack([interpolate(one, size=size, mode="bilinear", align_corners=False) for one in normal])
    return resized.var(dim=0, correction=0).mean(dim=(1, 2, 3))


def at_sizes(pixels: Float[Tensor, "batch 3 height width"], sizes: Sequence[int]) -> list[Float[Tensor, "batch 3 _ _"]]:
    """Return pictures at other sizes (pixels), antialiased."""
    return [interpolate(pixels, size=(side, side), mode="bilinear", antialias=True) for side in sizes]
