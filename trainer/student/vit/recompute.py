"""Activation checkpointing: the activations inside a block are not kept, but computed again in the backward pass."""

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Block = Callable[[Tensor], Tensor]
"""A transformer block: it maps `[batch, tokens, channels]` to the same shape."""


def recomputed(blocks: Iterable[nn.Module], *, wanted: bool) -> list[Block]:
    """Return blocks as functions; if wanted, their activations are computed again where a gradient needs them.

    The repetition draws the same dropout and stochastic depth, has the same precision, and gives the same bits.

    Args:
        blocks: transformer blocks.
        wanted: whether to keep only the input of each block. Without gradients there is nothing to keep.
    """
    if not (wanted and torch.is_grad_enabled()):
        return list(blocks)
    return [partial(checkpoint, block, use_reentrant=False) for block in blocks]
