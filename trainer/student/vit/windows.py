"""ViTDet: most blocks attend within square windows, a few attend everywhere.

Tokens of a window lie side by side from before the first block until after the last: attention everywhere does not
depend on their order.

Class tokens and registers, which belong to no window, follow one of two policies through the windowed blocks.
"""

from collections.abc import Sequence
from itertools import groupby

import torch
from jaxtyping import Float
from torch import Tensor, nn

from storage_schemas.format.seeds import Key, pick, unit_interval
from trainer.settings.student import TokenPolicy
from trainer.student.vit.positions import Count


def global_blocks(depth: int, count: int) -> list[bool]:
    """Say of each block whether it attends everywhere: the last of every ⌊depth / count⌋, and the very last.

    Where `count` does not divide the depth there is one more: 27 blocks and 4 give 5, 11, 17, 23 and 26.
    """
    period = depth // count
    return [block % period == period - 1 or block == depth - 1 for block in range(depth)]


def fitting(windows: Sequence[int], tokens: int) -> list[int]:
    """Return the windows (tokens) that divide a side of so many tokens into more than one."""
    return [window for window in windows if tokens % window == 0 and window < tokens]


def draw_window(windows: Sequence[int], share: float, tokens: int, key: Key) -> int | None:
    """Draw the window of one step.

    Args:
        windows: to choose from, each as often (tokens).
        share: how often to have a window at all.
        tokens: along one side.
        key: what the draw is for.

    Returns:
        Side of the windows (tokens); None for attention everywhere, as always where no window fits.
    """
    choices = fitting(windows, tokens)
    if not choices or unit_interval((*key, "windowed")) >= share:
        return None
    return pick(dict.fromkeys(choices, 1.0), (*key, "window"))


def to_windows(
    tokens: Float[Tensor, "batch rows cols channels"], window: int
) -> Float[Tensor, "batch windows inside channels"]:
    """Gather each window's tokens, windows and tokens both row by row; `window` (tokens) divides rows and columns."""
    batch, rows, cols, channels = tokens.shape
    cells = tokens.reshape(batch, rows // window, window, cols // window, window, channels)
    return cells.transpose(2, 3).reshape(batch, -1, window * window, channels)


def from_windows(
    tokens: Float[Tensor, "batch windows inside channels"], window: int, rows: Count, cols: Count
) -> Float[Tensor, "batch rows cols channels"]:
    """Put every token back where `to_windows` found it."""
    batch, channels = tokens.shape[0], tokens.shape[3]
    cells = tokens.reshape(batch, rows // window, cols // window, window, window, channels)
    return cells.transpose(2, 3).reshape(batch, rows, cols, channels)


def attend(
    blocks: Sequence[nn.Module],
    everywhere: Sequence[bool],
    prefix: Float[Tensor, "batch prefix channels"],
    patches: Float[Tensor, "batch rows cols channels"],
    window: int | None,
    policy: TokenPolicy,
) -> tuple[Float[Tensor, "batch prefix channels"], Float[Tensor, "batch rows cols channels"]]:
    """Run tokens through transformer blocks.

    Args:
        blocks: in their order; each maps `[batch, tokens, channels]` to the same.
        everywhere: for each block, whether it attends everywhere where others attend in windows.
        prefix: class tokens and registers.
        patches: the rest.
        window: side of the windows (tokens), which divides rows and columns; None for attention everywhere.
        policy: `apart` leaves class tokens and registers as they are between two blocks that attend everywhere;
            `copied` lends each window a copy, which are averaged before the next block that attends everywhere.
    """
    rows, cols = patches.shape[1:3]
    if window is None:
        prefix, cells = _everywhere(blocks, prefix, patches.flatten(1, 2)[:, None])
        return prefix, cells.reshape(patches.shape)
    cells = to_windows(patches, window)
    for whole, run in groupby(zip(everywhere, blocks, strict=True), key=lambda pair: pair[0]):
        step = _everywhere if whole else WITHIN[policy]
        prefix, cells = step([block for _, block in run], prefix, cells)
    return prefix, from_windows(cells, window, rows, cols)


Tokens = tuple[Float[Tensor, "batch prefix channels"], Float[Tensor, "batch windows inside channels"]]
"""Class tokens and registers; patches by window."""


def _everywhere(blocks: Sequence[nn.Module], prefix: Tensor, patches: Tensor) -> Tokens:
    every = _through(blocks, torch.cat([prefix, patches.flatten(1, 2)], dim=1))
    count = prefix.shape[1]
    return every[:, :count], every[:, count:].reshape(patches.shape)


def _apart(blocks: Sequence[nn.Module], prefix: Tensor, patches: Tensor) -> Tokens:
    return prefix, _through(blocks, patches.flatten(0, 1)).reshape(patches.shape)


def _copied(blocks: Sequence[nn.Module], prefix: Tensor, patches: Tensor) -> Tokens:
    both = torch.cat([prefix[:, None].expand(-1, patches.shape[1], -1, -1), patches], dim=2)
    both = _through(blocks, both.flatten(0, 1)).reshape(both.shape)
    count = prefix.shape[1]
    return both[:, :, :count].mean(dim=1), both[:, :, count:]


WITHIN = {"apart": _apart, "copied": _copied}
"""What a stretch of blocks does in windows, by policy."""


def _through(blocks: Sequence[nn.Module], tokens: Tensor) -> Tensor:
    for block in blocks:
        tokens = block(tokens)
    return tokens
