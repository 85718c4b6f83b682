"""Tokens of a timm vision transformer: the last block's, and those of blocks asked for, all after the final norm."""

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
    # NCHW is the one layout that all of timm's models give here
    last, between = net.forward_intermediates(images, indices=list(layers), norm=True, output_fmt="NCHW")
    return last, {layer: inner.flatten(2).transpose(1, 2) for layer, inner in zip(layers, between, strict=True)}
