"""The tasks of the views stage: the shards of which an array is not committed, grouped by the images they are cut from.

How shards are grouped decides how often an image is decoded, never what is stored.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType
from typing import final

from pipeline.config import ViewsConfig
from pipeline.inventory.commit_log import committed_below
from pipeline.views.order import DrawnView, image_rank
from pipeline.views.shard_task import CutTask, Detail, ShardTask
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
MOST_OPEN = 48
"""Most arrays of which a worker has a shard open at a time, where it can choose. On an object store each may hold two
parts of 16 MiB in memory."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CommittedViews:
    """The commit records of a cache's views, as they were read at one moment."""

    manifest: ViewsManifest
    canvases: Mapping[ViewSet, Commits]
    """Commit records of each set's canvases."""
    details: Mapping[ViewSet, Mapping[Detail, Commits]]
    """Commit records of each detail that was asked for, by set."""

    def missing_shards(self, views: Drawn = NONE_DRAWN) -> list[ShardTask]:
        """Return each shard whose canvases or a detail are not committed.

        Args:
            views: the views that were drawn, by set.
        """
        return [shard for view_set in self.manifest.sets for shard in self._missing(view_set, views.get(view_set, ()))]

    @property
    def by_unit(self) -> dict[str, Commits]:
        """The commit records of canvases and details, by unit."""
        units = {views_unit(view_set): commits for view_set, commits in self.canvases.items()}
        for view_set, details in self.details.items():
            units |= {detail_unit(view_set, detail.teacher): commits for detail, commits in details.items()}
        return units

    def _missing(self, view_set: ViewSet, views: Sequence[DrawnView]) -> list[ShardTask]:
        shape, tasks = self.manifest.sets[view_set], []
        for shard in range(shape.grid.shards):
            canvases = shard not in self.canvases[view_set]
            details = tuple(detail for detail, commits in self.details[view_set].items() if shard not in commits)
            if canvases or details:
                drawn = shape.grid.drawn(shard)
                task = ShardTask(
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


def cut_together(shards: Sequence[ShardTask], config: ViewsConfig, workers: int) -> list[CutTask]:
    """Group shards into tasks: those of all sets whose views come from the same images.

    The set whose shards span the most images sets the pace: each of its groups (see `pipeline.views.order`) makes a
    task, which takes along the shards of other sets that have their middle among its images.

    Args:
        shards: the shards that are to be cut, with their views.
        config: settings of the views. Where an image has one view, or the views of an image lie anywhere in a set,
            each shard is a task of its own.
        workers: a task is divided where there would be fewer tasks than workers, or too many open arrays.
    """
    alone = config.draws == 1 and config.placing == "drawn"
    if config.order == "views" or alone or not all(shard.views for shard in shards):
        return [CutTask(shards=(shard,)) for shard in shards]
    spans = _image_spans(shards, config.seed)
    widest = max(range(len(shards)), key=lambda number: len(spans[number]), default=0)
    paced = [span for shard, span in zip(shards, spans, strict=True) if shard.view_set == shards[widest].view_set]
    begins = list(_group_begins(paced))
    places = [bisect_right(begins, (span.start + span.stop) // 2) for span in spans]
    numbers = sorted(range(len(shards)), key=lambda number: (places[number], number))
    grouped = [list(group) for _, group in groupby(numbers, lambda number: places[number])]
    tasks = [part for group in grouped for part in _few_open(group, shards, spans)]
    while len(tasks) < workers and max(map(len, tasks), default=1) > 1:
        tasks.sort(key=lambda task: sum(len(shards[number].views) for number in task) if len(task) > 1 else 0)
        tasks += _halves(tasks.pop())
    return [CutTask(shards=tuple(shards[number] for number in task)) for task in sorted(tasks)]


def _image_spans(shards: Iterable[ShardTask], seed: int) -> list[range]:
    """Return from which image to which the views of each shard come, in the order of images."""
    ranks = [{image_rank(view, seed) for view in shard.views} for shard in shards]
    place = {rank: number for number, rank in enumerate(sorted(set[tuple[bool, bytes]]().union(*ranks)))}
    return [range(place[min(of_shard)], place[max(of_shard)] + 1) for of_shard in ranks]


def _group_begins(spans: Iterable[range]) -> Iterator[int]:
    """Yield the first image of each group of shards, but for the first group. Shards of a group share most images."""
    before: range | None = None
    for span in sorted(spans, key=lambda span: span.start):
        if before is not None and 2 * (before.stop - span.start) < len(span):
            yield span.start
        before = span


def _few_open(task: list[int], shards: Sequence[ShardTask], spans: Sequence[range]) -> list[list[int]]:
    """Divide a task where more than `MOST_OPEN` arrays would be open at a time."""
    opened = [(spans[number].start, len(shards[number].arrays)) for number in task]
    closed = [(spans[number].stop, -len(shards[number].arrays)) for number in task]
    most = count = 0
    for _, change in sorted([*opened, *closed]):
        count += change
        most = max(most, count)
    if most <= MOST_OPEN or len(task) == 1:
        return [task]
    return [part for half in _halves(task) for part in _few_open(half, shards, spans)]


def _halves(task: list[int]) -> list[list[int]]:
    middle = len(task) // 2  # shards of one set are neighbours: each half has fewer sets, and so fewer images
    return [task[:middle], task[middle:]]


def _records_of_detail(cache: Cache, view_set: ViewSet, detail: Detail, shards: Collection[int]) -> Commits:
    unit = detail_unit(view_set, detail.teacher)
    try:
        return cache.records(unit, detail.identity, shards)
    except ContractError as error:
        found = f"its windows were not cut from these views with sides of {detail.side} px"
        fix = "use the input size and the tiles that they were cut with, or give this teacher another name"
        raise IdentityError(f"teacher {detail.teacher}", [Problem(place=unit, found=found, fix=fix)]) from error
