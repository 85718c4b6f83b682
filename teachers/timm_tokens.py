"""Tokens of a timm vision transformer, after the final norm: of the last block, and of other blocks on request."""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn


def tokens_of(
    network: nn.Module, images: Float[Tensor, "batch 3 height width"], layers: tuple[int, ...]
) -> tuple[Float[Tensor, "batch tokens channels"], dict[int, Float[Tensor, "batch patches channels"]]]:
    """Return all tokens of the last block, and block → patch tokens (no prefix) for each of `layers`."""
    net: Any = network
    if not layers:
        return net.forward_features(images), {}
    # NCHW: the only output layout that all of timm's models support here
    last, maps = net.forward_intermediates(images, indices=list(layers), norm=True, output_fmt="NCHW")
    return last, {block: map_.flatten(2).transpose(1, 2) for block, map_ in zip(layers, maps, strict=True)}
