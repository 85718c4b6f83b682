"""Which views each step uses: a function of the seed and the step alone.

The training views of each view set are shuffled and used one after another. When all were used, a new epoch of the set
begins: they are shuffled again. So no view of a set is ever used more than once more than another view of that set.

Each step draws one view set per partition, by hash of the seed and the step, and takes the next views of that set.

The order does not depend on who reads. Workers, ranks and a resumed run take their share of the same steps. A step of
a set of a billion views takes as long, and as little memory, as one of a thousand; see `PermutedEpoch`.
"""

from collections.abc import Iterator
from functools import lru_cache
from itertools import count
from typing import final

import numpy as np
from jaxtyping import Int64

from storage_schemas.format.views import Partition, ViewSet
from trainer.data.order_types import Order, StepPart
from trainer.data.permutation import round_keys, uniform_at
from trainer.data.permuted_epoch import Blocks, PermutedEpoch
from trainer.data.shuffled_table import ShuffledTable

DRAWN_AT_ONCE = 2**16
"""Steps whose view sets are in memory at a time while they are counted."""


@final
class Permuted:
    """The order of views without tables."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self._of_partition = {
            partition: (round_keys((order.seed, "sets", partition), 1)[0], order.edges(partition))
            for partition in order.batches
        }
        # a batch may take the end of one epoch or window and the start of the next
        self._epoch = lru_cache(maxsize=2 * len(order.sets))(self._open_epoch)
        self._window = lru_cache(maxsize=2 * len(order.sets))(self._open_window)

    def draws(self, partition: Partition, first: int, stop: int) -> Int64[np.ndarray, " steps"]:
        """Return the view set of some steps of a stage, as an index into `Order.sets_of`."""
        key, edges = self._of_partition[partition]
        drawn = uniform_at(key, self.order.first_step + np.arange(first, stop))
        return np.minimum(np.searchsorted(edges, drawn, side="right"), len(edges) - 1).astype(np.int64)

    def rows(self, view_set: ViewSet, epoch: int, places: Int64[np.ndarray, " places"]) -> Int64[np.ndarray, " places"]:
        """Return the rows at some places of an epoch, which follow one another."""
        in_order, views, place = self._epoch(view_set, epoch), [np.zeros(0, np.int64)], int(places[0])
        stop = place + len(places)
        while place < stop:
            number, within = in_order.window_at(place)
            # the epoch begins and ends inside the same window
            left = min(stop, in_order.blocks.views) - place
            views.append(self._window(view_set, epoch, number)[within : within + left])
            place += len(views[-1])
        return self.order.sets[view_set].rows[np.concatenate(views)]

    def _open_epoch(self, view_set: ViewSet, epoch: int) -> PermutedEpoch:
        found = self.order.sets[view_set]
        blocks = Blocks(views=len(found.rows), size=found.rows_per_shard)
        key = (self.order.seed, "epoch", view_set.name, epoch)
        return PermutedEpoch(blocks=blocks, window=self.order.window_shards, key=key)

    def _open_window(self, view_set: ViewSet, epoch: int, window: int) -> Int64[np.ndarray, " views"]:
        return self._epoch(view_set, epoch).views_of_window(window)


def rule_of(order: Order) -> Permuted | ShuffledTable:
    """Return how an order is drawn."""
    return ShuffledTable(order) if order.rule == "table" else Permuted(order)


def views_used_before(order: Order, partition: Partition, step: int) -> dict[ViewSet, int]:
    """Return how many views of each set were used before `step` of this stage, by earlier stages too."""
    sets, rule = order.sets_of(partition), rule_of(order)
    used = np.zeros(len(sets), dtype=np.int64)
    for first in range(0, step, DRAWN_AT_ONCE):
        drawn = rule.draws(partition, first, min(first + DRAWN_AT_ONCE, step))
        used += np.bincount(drawn, minlength=len(sets)) * order.batches[partition]
    return {view_set: order.views_used.get(view_set, 0) + n for view_set, n in zip(sets, used.tolist(), strict=True)}


def steps(order: Order, start: int = 0) -> Iterator[tuple[StepPart, ...]]:
    """Yield the rows of each step, without end, from step `start` on: one part per partition, low first."""
    parts = [_parts(order, partition, start) for partition in sorted(order.batches, reverse=True)]
    yield from zip(*parts, strict=True)


def _parts(order: Order, partition: Partition, start: int) -> Iterator[StepPart]:
    sets, used, size = order.sets_of(partition), views_used_before(order, partition, start), order.batches[partition]
    rule = rule_of(order)
    for step in count(start):
        [drawn] = rule.draws(partition, step, step + 1)
        view_set = sets[drawn]
        epochs, places = np.divmod(np.arange(size) + used[view_set], len(order.sets[view_set].rows))
        rows = [rule.rows(view_set, int(epoch), places[epochs == epoch]) for epoch in np.unique(epochs)]
        used[view_set] += size
        yield StepPart(view_set=view_set, rows=np.concatenate(rows), epochs=epochs)
