"""The order of runs that began before the order without a table: for every epoch, all rows of a set are shuffled.

It goes on for these runs (`data.order table`), and for no others: a shuffle of a billion rows takes minutes and eight
gigabytes.
"""

from functools import lru_cache
from typing import final

import numpy as np
from jaxtyping import Int64

from storage_schemas.format.seeds import generator
from storage_schemas.format.views import Partition, ViewSet
from storage_schemas.row_ranges import RowRanges
from trainer.data.order_types import Order


@final
class ShuffledTable:
    """The order of views by tables."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self._of_cycle = lru_cache(maxsize=2)(self._draw_cycle)
        # a batch may take the end of one epoch and the start of the next
        self._of_epoch = lru_cache(maxsize=2 * len(order.sets))(self._shuffle_epoch)

    def draws(self, partition: Partition, first: int, stop: int) -> Int64[np.ndarray, " steps"]:
        """Return the view set of some steps, as an index into `Order.sets_of`. It is drawn for a cycle at a time."""
        length = self.order.steps_per_cycle
        cycles = range(first // length, -(-stop // length))
        drawn = [np.zeros(0, np.int64), *(self._of_cycle(partition, cycle) for cycle in cycles)]
        before = first // length * length
        return np.concatenate(drawn)[first - before : stop - before]

    def rows(self, view_set: ViewSet, epoch: int, places: Int64[np.ndarray, " places"]) -> Int64[np.ndarray, " places"]:
        """Return the rows at some places of an epoch."""
        return self._of_epoch(view_set, epoch)[places]

    def _draw_cycle(self, partition: Partition, cycle: int) -> Int64[np.ndarray, " steps"]:
        order = self.order
        edges = order.edges(partition)
        draws = generator((order.seed, "resolution", partition, order.first_cycle + cycle)).random(
            order.steps_per_cycle
        )
        return np.minimum(np.searchsorted(edges, draws, side="right"), len(edges) - 1).astype(np.int64)

    def _shuffle_epoch(self, view_set: ViewSet, epoch: int) -> Int64[np.ndarray, " views"]:
        shuffled_set = self.order.sets[view_set]
        # "deal" is part of the seed: another word would change the order of these runs
        key = (self.order.seed, "deal", view_set.name, epoch)
        return shuffled(shuffled_set.rows, shuffled_set.rows_per_shard, self.order.window_shards, key)


def shuffled(
    rows: RowRanges, rows_per_shard: int, window_shards: int, key: tuple[int | str, ...]
) -> Int64[np.ndarray, " views"]:
    """Return a set's rows in random order: shards at random, and rows at random among `window_shards` shards at a time.

    A reader has only that many shards open at once. Any two views can still come into one batch, because each epoch
    groups the shards anew.
    """
    random, every = generator(key), rows[:]
    shards, shard_of_row = np.unique(every // rows_per_shard, return_inverse=True)
    windows = random.permutation(len(shards))[shard_of_row] // window_shards
    return every[np.lexsort((random.random(len(every)), windows))]
