"""Which views each step uses: a function of the seed and the step alone.

The training rows of each view set are shuffled and used one after another. When all rows were used, a new epoch of the
set begins: they are shuffled again. So no view of a set is ever used more than once more than another view of that set.

Each step draws one view set per partition and takes the next rows of that set. The draws are made for a whole cycle at
a time: as many steps as it takes to use all views of every partition about once.

The order does not depend on who reads. Workers, ranks and a resumed run take their share of the same steps.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count
from typing import final

import numpy as np
from jaxtyping import Int64

from storage_schemas.format.seeds import generator
from storage_schemas.format.views import Partition, ViewSet


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ShuffledSet:
    """The training rows of one view set, which are shuffled for every epoch."""

    rows: Int64[np.ndarray, " views"]
    """Row slots, without repeats."""
    rows_per_shard: int
    """Row slots in a shard. Rows of one shard are read together."""
    proportion: float
    """How often the set is drawn, relative to the other sets of its partition (unitless)."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Order:
    """Everything that the order of views depends on, for one stage of a run."""

    seed: int
    sets: Mapping[ViewSet, ShuffledSet]
    """At least one, none of them empty."""
    batches: Mapping[Partition, int]
    """Views per step, for each partition that has a set."""
    window_shards: int
    """Number of shards whose rows are shuffled together."""
    first_cycle: int = 0
    """Cycles that earlier stages began."""
    views_used: Mapping[ViewSet, int] = field(default_factory=dict)
    """Views of each set that earlier stages used."""

    @property
    def steps_per_cycle(self) -> int:
        """Number of steps after which the views of every partition were used at least about once."""
        views = dict.fromkeys(self.batches, 0)
        for view_set, shuffled_set in self.sets.items():
            views[view_set.partition] += len(shuffled_set.rows)
        return max(-(-views[partition] // batch) for partition, batch in self.batches.items())

    def sets_of(self, partition: Partition) -> list[ViewSet]:
        """Return a partition's view sets, sorted."""
        return sorted(view_set for view_set in self.sets if view_set.partition == partition)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepPart:
    """The rows that one step takes from one partition."""

    view_set: ViewSet
    rows: Int64[np.ndarray, " batch"]
    """Row slots, in the order of the batch."""
    epochs: Int64[np.ndarray, " batch"]
    """For each row, the epoch of its set (from 0): how often the student used the view before."""

    def share(self, rank: int, world: int) -> "StepPart":
        """Return the rows of one of `world` training processes."""
        return StepPart(view_set=self.view_set, rows=self.rows[rank::world], epochs=self.epochs[rank::world])


def shuffled(shuffled_set: ShuffledSet, window_shards: int, key: tuple[int | str, ...]) -> Int64[np.ndarray, " views"]:
    """Return a set's rows in random order: shards at random, and rows at random among `window_shards` shards at a time.

    A reader has only that many shards open at once. Any two views can still come into one batch, because each epoch
    groups the shards anew.
    """
    random = generator(key)
    shards, shard_of_row = np.unique(shuffled_set.rows // shuffled_set.rows_per_shard, return_inverse=True)
    windows = random.permutation(len(shards))[shard_of_row] // window_shards
    return shuffled_set.rows[np.lexsort((random.random(len(shuffled_set.rows)), windows))]


def draw_sets(order: Order, partition: Partition, cycle: int) -> Int64[np.ndarray, " steps"]:
    """Draw a view set, as an index into `order.sets_of(partition)`, for every step of a cycle."""
    weights = np.array([order.sets[view_set].proportion for view_set in order.sets_of(partition)])
    edges = np.cumsum(weights) / weights.sum()
    draws = generator((order.seed, "resolution", partition, order.first_cycle + cycle)).random(order.steps_per_cycle)
    return np.minimum(np.searchsorted(edges, draws, side="right"), len(weights) - 1).astype(np.int64)


def views_used_before(order: Order, partition: Partition, step: int) -> dict[ViewSet, int]:
    """Return how many views of each set were used before `step` of this stage, by earlier stages too."""
    sets, length = order.sets_of(partition), order.steps_per_cycle
    draws = [draw_sets(order, partition, cycle) for cycle in range(step // length)]
    draws.append(draw_sets(order, partition, step // length)[: step % length])
    used = np.bincount(np.concatenate(draws), minlength=len(sets)) * order.batches[partition]
    return {view_set: order.views_used.get(view_set, 0) + n for view_set, n in zip(sets, used.tolist(), strict=True)}


def steps(order: Order, start: int = 0) -> Iterator[tuple[StepPart, ...]]:
    """Yield the rows of each step, without end, from step `start` on: one part per partition, low first."""
    parts = [_parts(order, partition, start) for partition in sorted(order.batches, reverse=True)]
    yield from zip(*parts, strict=True)


def _parts(order: Order, partition: Partition, start: int) -> Iterator[StepPart]:
    sets, used, size = order.sets_of(partition), views_used_before(order, partition, start), order.batches[partition]
    draws = lru_cache(maxsize=1)(lambda cycle: draw_sets(order, partition, cycle))

    # a batch may take the end of one epoch and the start of the next
    @lru_cache(maxsize=2 * len(sets))
    def rows_of_epoch(view_set: ViewSet, epoch: int) -> Int64[np.ndarray, " views"]:
        # "deal" is part of the seed: another word would change the order of runs that began before
        return shuffled(order.sets[view_set], order.window_shards, (order.seed, "deal", view_set.name, epoch))

    for step in count(start):
        cycle, within = divmod(step, order.steps_per_cycle)
        view_set = sets[draws(cycle)[within]]
        epochs, places = np.divmod(np.arange(size) + used[view_set], len(order.sets[view_set].rows))
        pairs = zip(epochs.tolist(), places.tolist(), strict=True)
        rows = [rows_of_epoch(view_set, epoch)[place] for epoch, place in pairs]
        used[view_set] += size
        yield StepPart(view_set=view_set, rows=np.array(rows, dtype=np.int64), epochs=epochs.astype(np.int64))
