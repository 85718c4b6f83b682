"""Scale equivariance: how much a student's features of an image depend on the size of the image."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

DEAD = 1e-6
"""A channel is dead in an image where its σ_c is at most this part of the root mean square of the image's features:
rounding, and not a signal that could be compared."""


def scale_variance(features: Sequence[Float[Tensor, "batch _ _ channels"]]) -> Float[Tensor, " batch"]:
    """Return the variance over scales of features of the same images.

        F̂_i = (F_i − μ_c) / σ_c,   resized bilinearly to the grid of the smallest
        σ²_scale = mean_{h,w,c} Var_i F̂_i(h, w, c)

    μ_c and σ_c are mean and standard deviation over the smallest grid, for each image and channel. 0 is perfect
    equivariance. Source: v2.5 eqs 10 to 14, with the mean over channels and the unbiased variances of its listing A.5.1
    (`torch.var` and `torch.std`): over 2 scales the population's variance would be half of it, over 10 nine tenths.

    A channel that is constant over the smallest grid, such as one behind a ReLU that is off, has σ_c = 0: divided by
    it, whatever the channel is at another size would count as infinite. The mean is over the other channels.

    Args:
        features: features of the same images, for each of two or more scales.

    Returns:
        σ²_scale of each image; NaN where every channel is constant over the smallest grid: nothing can be compared.
    """
    smallest = min(features, key=lambda grid: grid.shape[1] * grid.shape[2])
    mean = smallest.mean(dim=(1, 2), keepdim=True)
    alone = smallest.shape[1] * smallest.shape[2] == 1  # a single token has no unbiased variance: it is constant
    width = smallest.std(dim=(1, 2), keepdim=True, correction=0 if alone else 1)
    alive = width > DEAD * smallest.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    size = tuple(smallest.shape[1:3])
    divisor = torch.where(alive, width, 1)
    normal = [((grid - mean) / divisor).permute(0, 3, 1, 2) for grid in features]
    resized = torch.stack([interpolate(grid, size=size, mode="bilinear", align_corners=False) for grid in normal])
    by_channel = resized.var(dim=0).mean(dim=(2, 3))
    counted = alive[:, 0, 0]
    return torch.where(counted, by_channel, 0).sum(dim=1) / counted.sum(dim=1)


def at_sizes(pixels: Float[Tensor, "batch 3 height width"], sizes: Sequence[int]) -> list[Float[Tensor, "batch 3 _ _"]]:
    """Return images at other sizes (pixels), antialiased."""
    return [interpolate(pixels, size=(side, side), mode="bilinear", antialias=True) for side in sizes]
