"""What is still to be cut: one task for each shard that is not whole."""

from collections.abc import Iterable, Mapping, Sequence

from pipeline.cut_shard import CutTask, Detail
from pipeline.draw import DrawnView
from storage_schemas.cache import Cache
from storage_schemas.layout import detail_unit, views_unit
from storage_schemas.manifest import ViewsManifest
from storage_schemas.views import ViewSet


def missing_tasks(
    cache: Cache, manifest: ViewsManifest, details: Sequence[Detail], views: Mapping[ViewSet, Sequence[DrawnView]]
) -> list[CutTask]:
    """Return a task for every shard of which something is not committed.

    Args:
        cache: where they are committed.
        manifest: of the views.
        details: what else is wanted of every set.
        views: those drawn, by set; none when only the number of tasks matters.

    Raises:
        ContractError: a commit record is of other views.
    """
    return [
        task
        for view_set, one in manifest.sets.items()
        for task in _tasks_of_set(cache, manifest, view_set, details, views.get(view_set, ()))
    ]


def _tasks_of_set(
    cache: Cache, manifest: ViewsManifest, view_set: ViewSet, details: Sequence[Detail], views: Sequence[DrawnView]
) -> Iterable[CutTask]:
    one = manifest.sets[view_set]
    cut = cache.records(views_unit(view_set), manifest.digest)
    detailed = {detail: cache.records(detail_unit(view_set, detail.teacher), detail.identity) for detail in details}
    for shard in range(one.grid.shards):
        canvases = shard not in cut
        lacking = tuple(detail for detail in details if shard not in detailed[detail])
        if canvases or lacking:
            slots = one.grid.slots(shard)
            yield CutTask(
                view_set=view_set,
                manifest=one,
                shard=shard,
                views=tuple(views[slots.start : slots.stop]),
                identity=manifest.digest,
                canvases=canvases,
                details=lacking,
            )
