"""The tasks of the stats stage: branches of consecutive shards."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import final

from storage_schemas.format.views import ViewSet

BRANCHES = 32
"""Most tasks that a view set is divided into. Each task sends back one scatter, C² float64 (134 MB where C is 4096), so
the number of branches bounds what travels, however many shards there are. It also bounds the workers of a set."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureTask:
    """A branch: consecutive committed shards of one set of a teacher's features."""

    teacher: str
    view_set: ViewSet
    shards: tuple[int, ...]
    """Each holds at least one view."""
    views: int
    """Views in these shards."""
    summarised: bool
    """Whether the teacher has summaries."""
    kept_apart: bool = True
    """Whether the mean direction and the dispersion are those of the training views alone. Statistics that an earlier
    version began are over all views."""


def branches(
    teacher: str, view_set: ViewSet, views: Sequence[tuple[int, int]], summarised: bool, kept_apart: bool = True
) -> list[MeasureTask]:
    """Divide shards into tasks of consecutive shards. The tasks depend on the number of shards alone, not on workers.

    Args:
        teacher: whose features they are.
        view_set: their set.
        views: number of each shard and of the views in it, in order; without shards that hold no view.
        summarised: whether the teacher has summaries.
        kept_apart: see `MeasureTask`.
    """
    count = min(BRANCHES, len(views))
    cuts = [len(views) * branch // count for branch in range(count + 1)] if count else []
    return [
        MeasureTask(
            teacher=teacher,
            view_set=view_set,
            shards=tuple(shard for shard, _ in views[start:stop]),
            views=sum(count for _, count in views[start:stop]),
            summarised=summarised,
            kept_apart=kept_apart,
        )
        for start, stop in pairwise(cuts)
    ]
