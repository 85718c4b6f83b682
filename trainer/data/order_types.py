"""What the order of views depends on, and what it gives for a step."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

import numpy as np
from jaxtyping import Float64, Int64

from storage_schemas.format.views import Partition, ViewSet
from storage_schemas.row_ranges import RowRanges
from trainer.settings.running import OrderRule


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ShuffledSet:
    """The training views of one view set, which are shuffled for every epoch."""

    rows: RowRanges
    """Their row slots."""
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
    rule: OrderRule = "permutation"
    """How the order is drawn."""
    first_step: int = 0
    """Steps of earlier stages."""
    first_cycle: int = 0
    """Cycles that earlier stages began, for the rule `table`."""
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

    def edges(self, partition: Partition) -> Float64[np.ndarray, " sets"]:
        """Return which part of [0, 1) stands for each set of a partition, by where it ends."""
        weights = np.array([self.sets[view_set].proportion for view_set in self.sets_of(partition)])
        return np.cumsum(weights) / weights.sum()


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
