"""The order of one epoch of a view set, as a function of the place in it: it takes no table of the set's views.

The views of a set are numbered in the order of their row slots, without gaps. Blocks of as many views as a shard has
row slots are shuffled by a keyed permutation. So many blocks as `window` says form a window, whose views are shuffled
together. The epoch begins at a random place of this order and goes round: so every view is as likely as any other at
every place, also where the last block is shorter than the others.

Two draws of one image lie in different shards where a cache keeps an image's draws together, so in different blocks:
they meet in a window, and in a batch, by chance alone.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
from jaxtyping import Int64

from storage_schemas.format.seeds import Key
from trainer.data.permutation import ROUNDS, Permutation, mixed, round_keys, shuffled_places


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """How the views of a set are divided into blocks."""

    views: int
    """Views of the set; at least one."""
    size: int
    """Views in a block; the last one may have fewer."""

    @property
    def count(self) -> int:
        """Number of blocks."""
        return -(-self.views // self.size)

    def views_of(self, blocks: Int64[np.ndarray, " blocks"]) -> Int64[np.ndarray, " views"]:
        """Return the numbers of the views of some blocks, block after block."""
        views = (blocks[:, None] * self.size + np.arange(self.size)).reshape(-1)
        return views[views < self.views]


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class PermutedEpoch:
    """The order of one epoch of a view set."""

    blocks: Blocks
    window: int
    """Blocks whose views are shuffled together."""
    key: Key
    """What the order depends on."""

    def window_at(self, place: int) -> tuple[int, int]:
        """Return the window that a place of the epoch is in, and the place in the window.

        Args:
            place: 0 … views − 1.
        """
        turned = (place + self._turn) % self.blocks.views
        window = turned // (self.window * self.blocks.size)
        if self._start(window + 1) <= turned:  # the short block comes before it
            window += 1
        return window, turned - self._start(window)

    def views_of_window(self, window: int) -> Int64[np.ndarray, " views"]:
        """Return the numbers of the views of a window, in their order."""
        first = window * self.window
        blocks = self._order.at(np.arange(first, min(first + self.window, self.blocks.count)))
        views, key = self.blocks.views_of(blocks), mixed(self._keys[-2], np.array([window]))[0]
        return views[shuffled_places(key, len(views))]

    @cached_property
    def _keys(self) -> np.ndarray:
        return round_keys(self.key, ROUNDS + 2)

    @cached_property
    def _order(self) -> Permutation:
        return Permutation(size=self.blocks.count, keys=self._keys[:ROUNDS])

    @cached_property
    def _turn(self) -> int:
        return int(self._keys[-1]) % self.blocks.views

    @cached_property
    def _short_place(self) -> int:
        """Place of the last block, which may be short, among all blocks."""
        return int(self._order.place_of(np.array([self.blocks.count - 1]))[0])

    def _start(self, window: int) -> int:
        """Return how many views come before a window, before the order is turned."""
        block = min(window * self.window, self.blocks.count)
        lacking = self.blocks.count * self.blocks.size - self.blocks.views
        return block * self.blocks.size - (lacking if self._short_place < block else 0)
