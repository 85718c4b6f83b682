"""The tasks of the views stage: one for each shard of which an array is not committed."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import final

from pipeline.inventory.commit_log import committed_below
from pipeline.views.sampling import DrawnView
from pipeline.views.shard_task import CutTask, Detail
from storage_schemas.cache import Cache
from storage_schemas.commits import ShardRecord
from storage_schemas.format.errors import ContractError, IdentityError, Problem
from storage_schemas.format.layout import detail_unit, views_unit
from storage_schemas.format.manifest import ViewsManifest
from storage_schemas.format.views import ViewSet

Commits = dict[int, list[ShardRecord]]
"""Commit records by shard number."""
Drawn = Mapping[ViewSet, Sequence[DrawnView]]
"""The views of each set, in order."""
NONE_DRAWN: Drawn = MappingProxyType({})
"""No views: enough to learn which shards are missing."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CommittedViews:
    """The commit records of a cache's views, as they were read at one moment."""

    manifest: ViewsManifest
    canvases: Mapping[ViewSet, Commits]
    """Commit records of each set's canvases."""
    details: Mapping[ViewSet, Mapping[Detail, Commits]]
    """Commit records of each detail that was asked for, by set."""

    def missing_tasks(self, views: Drawn = NONE_DRAWN) -> list[CutTask]:
        """Return a task for each shard whose canvases or a detail are not committed.

        Args:
            views: the views that were drawn, by set.
        """
        return [task for view_set in self.manifest.sets for task in self._tasks(view_set, views.get(view_set, ()))]

    @property
    def by_unit(self) -> dict[str, Commits]:
        """The commit records of canvases and details, by unit."""
        units = {views_unit(view_set): commits for view_set, commits in self.canvases.items()}
        for view_set, details in self.details.items():
            units |= {detail_unit(view_set, detail.teacher): commits for detail, commits in details.items()}
        return units

    def _tasks(self, view_set: ViewSet, views: Sequence[DrawnView]) -> list[CutTask]:
        shape, tasks = self.manifest.sets[view_set], []
        for shard in range(shape.grid.shards):
            canvases = shard not in self.canvases[view_set]
            details = tuple(detail for detail, commits in self.details[view_set].items() if shard not in commits)
            if canvases or details:
                drawn = shape.grid.drawn(shard)
                task = CutTask(
                    view_set=view_set,
                    manifest=shape,
                    shard=shard,
                    views=tuple(views[drawn.start : drawn.stop]),
                    identity=self.manifest.digest,
                    canvases=canvases,
                    details=details,
                )
                tasks.append(task)
        return tasks


def read_committed(
    cache: Cache, manifest: ViewsManifest, details: Mapping[ViewSet, Sequence[Detail]]
) -> CommittedViews:
    """Read the commit records of a cache's views, each once.

    Args:
        cache: the cache.
        manifest: the manifest of its views.
        details: the details that are needed besides the canvases, by set.

    Raises:
        ContractError: a commit record belongs to other views.
        IdentityError: a teacher's details were cut with another size.
    """
    shards = committed_below(cache, ["views"])

    def canvases(view_set: ViewSet) -> Commits:
        unit = views_unit(view_set)
        return cache.records(unit, manifest.digest, shards.get(unit, ()))

    def windows(view_set: ViewSet, detail: Detail) -> Commits:
        return _records_of_detail(cache, view_set, detail, shards.get(detail_unit(view_set, detail.teacher), ()))

    return CommittedViews(
        manifest=manifest,
        canvases={view_set: canvases(view_set) for view_set in manifest.sets},
        details={
            view_set: {detail: windows(view_set, detail) for detail in details[view_set]} for view_set in manifest.sets
        },
    )


def _records_of_detail(cache: Cache, view_set: ViewSet, detail: Detail, shards: Collection[int]) -> Commits:
    unit = detail_unit(view_set, detail.teacher)
    try:
        return cache.records(unit, detail.identity, shards)
    except ContractError as error:
        found = f"its windows were not cut from these views with sides of {detail.side} px"
        fix = "use the input size and the tiles that they were cut with, or give this teacher another name"
        raise IdentityError(f"teacher {detail.teacher}", [Problem(place=unit, found=found, fix=fix)]) from error
