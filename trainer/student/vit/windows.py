"""Windowed attention as in ViTDet: most blocks attend within square windows, a few blocks attend globally.

The tokens of a window are consecutive from before the first block until after the last; global attention does not
depend on the order of tokens. Class tokens and registers belong to no window: in windowed blocks they follow one of two
policies.
"""

from collections.abc import Sequence
from itertools import groupby

import torch
from jaxtyping import Float
from torch import Tensor

from storage_schemas.format.seeds import Key, pick, unit_interval
from trainer.settings.student import TokenPolicy
from trainer.student.vit.positions import Count
from trainer.student.vit.recompute import Block


def global_blocks(depth: int, count: int) -> list[bool]:
    """Return for each block whether it attends globally: the last of every ⌊depth / count⌋ blocks, and the last of all.

    If `count` does not divide the depth, there is one more: depth 27 and count 4 give blocks 5, 11, 17, 23 and 26.
    """
    period = depth // count
    return [block % period == period - 1 or block == depth - 1 for block in range(depth)]


def fitting(windows: Sequence[int], tokens: int) -> list[int]:
    """Return the windows (tokens) that divide a side of `tokens` tokens into two or more equal parts."""
    return [window for window in windows if tokens % window == 0 and window < tokens]


def draw_window(windows: Sequence[int], share: float, tokens: int, key: Key) -> int | None:
    """Draw the window of one step.

    Args:
        windows: sides to choose from, with equal probability (tokens).
        share: probability of windowed attention.
        tokens: tokens along one side of a view.
        key: key of the draw.

    Returns:
        Side of the windows (tokens). None for global attention, which is also the result if no window fits.
    """
    choices = fitting(windows, tokens)
    if not choices or unit_interval((*key, "windowed")) >= share:
        return None
    return pick(dict.fromkeys(choices, 1.0), (*key, "window"))


def to_windows(
    tokens: Float[Tensor, "batch rows cols channels"], window: int
) -> Float[Tensor, "batch windows inside channels"]:
    """Group tokens by window, in row-major order. `window` (tokens) must divide rows and columns."""
    batch, rows, cols, channels = tokens.shape
    cells = tokens.reshape(batch, rows // window, window, cols // window, window, channels)
    return cells.transpose(2, 3).reshape(batch, -1, window * window, channels)


def from_windows(
    tokens: Float[Tensor, "batch windows inside channels"], window: int, rows: Count, cols: Count
) -> Float[Tensor, "batch rows cols channels"]:
    """Undo `to_windows`."""
    batch, channels = tokens.shape[0], tokens.shape[3]
    cells = tokens.reshape(batch, rows // window, cols // window, window, window, channels)
    return cells.transpose(2, 3).reshape(batch, rows, cols, channels)


def attend(
    blocks: Sequence[Block],
    everywhere: Sequence[bool],
    prefix: Float[Tensor, "batch prefix channels"],
    patches: Float[Tensor, "batch rows cols channels"],
    window: int | None,
    policy: TokenPolicy,
) -> tuple[Float[Tensor, "batch prefix channels"], Float[Tensor, "batch rows cols channels"]]:
    """Run tokens through transformer blocks.

    Args:
        blocks: transformer blocks in order; each maps `[batch, tokens, channels]` to the same shape.
        everywhere: for each block, whether it attends globally when the others attend in windows.
        prefix: class tokens and registers.
        patches: patch tokens.
        window: side of the windows (tokens), which divides rows and columns; None for global attention.
        policy: `apart` leaves class tokens and registers unchanged in windowed blocks; `copied` gives each window a
            copy of them, and averages the copies before the next block with global attention.
    """
    rows, cols = patches.shape[1:3]
    if window is None:
        prefix, cells = _everywhere(blocks, prefix, patches.flatten(1, 2)[:, None])
        return prefix, cells.reshape(patches.shape)
    cells = to_windows(patches, window)
    for is_global, run in groupby(zip(everywhere, blocks, strict=True), key=lambda pair: pair[0]):
        step = _everywhere if is_global else WITHIN[policy]
        prefix, cells = step([block for _, block in run], prefix, cells)
    return prefix, from_windows(cells, window, rows, cols)


Tokens = tuple[Float[Tensor, "batch prefix channels"], Float[Tensor, "batch windows inside channels"]]
"""Class tokens and registers; patches by window."""


def _everywhere(blocks: Sequence[Block], prefix: Tensor, patches: Tensor) -> Tokens:
    every = _through(blocks, torch.cat([prefix, patches.flatten(1, 2)], dim=1))
    count = prefix.shape[1]
    return every[:, :count], every[:, count:].reshape(patches.shape)


def _apart(blocks: Sequence[Block], prefix: Tensor, patches: Tensor) -> Tokens:
    return prefix, _through(blocks, patches.flatten(0, 1)).reshape(patches.shape)


def _copied(blocks: Sequence[Block], prefix: Tensor, patches: Tensor) -> Tokens:
    both = torch.cat([prefix[:, None].expand(-1, patches.shape[1], -1, -1), patches], dim=2)
    both = _through(blocks, both.flatten(0, 1)).reshape(both.shape)
    count = prefix.shape[1]
    return both[:, :, :count].mean(dim=1), both[:, :, count:]


WITHIN = {"apart": _apart, "copied": _copied}
"""Policy → function that runs consecutive windowed blocks."""


def _through(blocks: Sequence[Block], tokens: Tensor) -> Tensor:
    for block in blocks:
        tokens = block(tokens)
    return tokens
