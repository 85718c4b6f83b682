"""Which views go into which step: a function of the seed and the step alone.

Each view set is a deck. Its training rows are shuffled and dealt out, and when they are spent they are shuffled again;
so after any number of steps no view of a set was met twice more than another. Each step draws one view set per
partition and takes the next batch from its deck. An epoch is as many steps as deal every partition out about once.

Nothing here depends on who reads: workers, ranks and a resumed run take their share of the same steps.
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
class Deck:
    """The training rows of one view set."""

    rows: Int64[np.ndarray, " views"]
    """Row slots, without repeats."""
    rows_per_shard: int
    """Row slots in a shard: what is read together."""
    proportion: float
    """How often the set is drawn (unitless, compared within its partition)."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Order:
    """All that the order of a run depends on."""

    seed: int
    decks: Mapping[ViewSet, Deck]
    """At least one, none of them empty."""
    batches: Mapping[Partition, int]
    """Views per step, for each partition that has a deck."""
    window_shards: int
    """Shards among which rows are shuffled."""
    first_epoch: int = 0
    """Epochs of the stages before."""
    dealt: Mapping[ViewSet, int] = field(default_factory=dict)
    """Views of each set that the stages before took."""

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which every partition's views are dealt out at least about once."""
        views = dict.fromkeys(self.batches, 0)
        for view_set, deck in self.decks.items():
            views[view_set.partition] += len(deck.rows)
        return max(-(-views[partition] // batch) for partition, batch in self.batches.items())

    def sets(self, partition: Partition) -> list[ViewSet]:
        """Return a partition's view sets, sorted."""
        return sorted(view_set for view_set in self.decks if view_set.partition == partition)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepPart:
    """What one step takes from one partition."""

    view_set: ViewSet
    rows: Int64[np.ndarray, " batch"]
    """Row slots, in the order of the batch."""
    deals: Int64[np.ndarray, " batch"]
    """For each row, how often its set was dealt out before: this numbers a view's meetings with the student."""

    def share(self, rank: int, world: int) -> "StepPart":
        """Return the rows that one of `world` training processes takes."""
        return StepPart(view_set=self.view_set, rows=self.rows[rank::world], deals=self.deals[rank::world])


def shuffled(deck: Deck, window_shards: int, key: tuple[int | str, ...]) -> Int64[np.ndarray, " views"]:
    """Return a deck's rows shuffled: shards at random, and rows at random among `window_shards` shards at a time.

    A reader then has only that many shards open, and a view can still meet any other: which shards share a window
    changes with every deal.
    """
    random = generator(key)
    shards, shard_of_row = np.unique(deck.rows // deck.rows_per_shard, return_inverse=True)
    windows = random.permutation(len(shards))[shard_of_row] // window_shards
    return deck.rows[np.lexsort((random.random(len(deck.rows)), windows))]


def draw_sets(order: Order, partition: Partition, epoch: int) -> Int64[np.ndarray, " steps"]:
    """Draw a view set, as an index into `order.sets(partition)`, for every step of an epoch."""
    weights = np.array([order.decks[view_set].proportion for view_set in order.sets(partition)])
    edges = np.cumsum(weights) / weights.sum()
    draws = generator((order.seed, "resolution", partition, order.first_epoch + epoch)).random(order.steps_per_epoch)
    return np.minimum(np.searchsorted(edges, draws, side="right"), len(weights) - 1).astype(np.int64)


def dealt_before(order: Order, partition: Partition, step: int) -> dict[ViewSet, int]:
    """Return how many views of each set the steps before `step` took, and the stages before."""
    sets, length = order.sets(partition), order.steps_per_epoch
    draws = [draw_sets(order, partition, epoch) for epoch in range(step // length)]
    draws.append(draw_sets(order, partition, step // length)[: step % length])
    taken = np.bincount(np.concatenate(draws), minlength=len(sets)) * order.batches[partition]
    return {one: order.dealt.get(one, 0) + count for one, count in zip(sets, taken.tolist(), strict=True)}


def steps(order: Order, start: int = 0) -> Iterator[tuple[StepPart, ...]]:
    """Yield, without end, what each step takes, from step `start` on: one part per partition, low first."""
    parts = [_parts(order, partition, start) for partition in sorted(order.batches, reverse=True)]
    yield from zip(*parts, strict=True)


def _parts(order: Order, partition: Partition, start: int) -> Iterator[StepPart]:
    sets, taken, size = order.sets(partition), dealt_before(order, partition, start), order.batches[partition]
    draws = lru_cache(maxsize=1)(lambda epoch: draw_sets(order, partition, epoch))
    # a batch may take the end of one deal and the start of the next
    deal = lru_cache(maxsize=2 * len(sets))(
        lambda view_set, number: shuffled(
            order.decks[view_set], order.window_shards, (order.seed, "deal", view_set.name, number)
        )
    )
    for step in count(start):
        epoch, within = divmod(step, order.steps_per_epoch)
        view_set = sets[draws(epoch)[within]]
        deals, places = np.divmod(np.arange(size) + taken[view_set], len(order.decks[view_set].rows))
        rows = [deal(view_set, number)[place] for number, place in zip(deals.tolist(), places.tolist(), strict=True)]
        taken[view_set] += size
        yield StepPart(view_set=view_set, rows=np.array(rows, dtype=np.int64), deals=deals.astype(np.int64))
