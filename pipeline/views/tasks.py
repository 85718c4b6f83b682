"""The tasks of the views stage: one for each shard of which an array is missing."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from pipeline.views.sampling import DrawnView
from pipeline.views.task import CutTask, Detail
from storage_schemas.cache import Cache
from storage_schemas.format.errors import ContractError, IdentityError, Problem
from storage_schemas.format.layout import detail_unit, views_unit
from storage_schemas.format.manifest import ViewsManifest
from storage_schemas.format.views import ViewSet


def missing_tasks(
    cache: Cache,
    manifest: ViewsManifest,
    details: Mapping[ViewSet, Sequence[Detail]],
    views: Mapping[ViewSet, Sequence[DrawnView]],
) -> list[CutTask]:
    """Return a task for every shard of which something is not committed.

    Args:
        cache: where they are committed.
        manifest: of the views.
        details: what else is wanted, by set.
        views: those drawn, by set; none when only the number of tasks matters.

    Raises:
        ContractError: a commit record is of other views.
        IdentityError: a teacher's details were cut otherwise.
    """
    return [
        task
        for view_set, one in manifest.sets.items()
        for task in _tasks_of_set(cache, manifest, view_set, details[view_set], views.get(view_set, ()))
    ]


def _tasks_of_set(
    cache: Cache, manifest: ViewsManifest, view_set: ViewSet, details: Sequence[Detail], views: Sequence[DrawnView]
) -> Iterable[CutTask]:
    one = manifest.sets[view_set]
    cut = cache.records(views_unit(view_set), manifest.digest)
    detailed = {detail: _detailed(cache, view_set, detail) for detail in details}
    for shard in range(one.grid.shards):
        canvases = shard not in cut
        lacking = tuple(detail for detail in details if shard not in detailed[detail])
        if canvases or lacking:
            drawn = one.grid.drawn(shard)
            yield CutTask(
                view_set=view_set,
                manifest=one,
                shard=shard,
                views=tuple(views[drawn.start : drawn.stop]),
                identity=manifest.digest,
                canvases=canvases,
                details=lacking,
            )


def _detailed(cache: Cache, view_set: ViewSet, detail: Detail) -> Collection[int]:
    """Return the shards of which a detail is committed."""
    unit = detail_unit(view_set, detail.teacher)
    try:
        return cache.records(unit, detail.identity)
    except ContractError as error:
        found = f"holds windows that were not cut with sides of {detail.side} px from these views"
        fix = "use the size and the tiles that made them, or give this teacher another name"
        raise IdentityError(f"teacher {detail.teacher}", [Problem(place=unit, found=found, fix=fix)]) from error
