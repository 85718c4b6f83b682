"""Rejected views: which views were rejected, and how many of them the user accepts."""

import math
from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa

from pipeline.views.generations import total_views
from storage_schemas.cache import Cache
from storage_schemas.commits import ShardRecord
from storage_schemas.format.errors import Problem, SettingError, first_problems
from storage_schemas.format.layout import table_part, views_unit
from storage_schemas.format.manifest import ViewsManifest
from storage_schemas.format.tables import REJECTED, from_parquet


def rejected_views(cache: Cache, manifest: ViewsManifest) -> pa.Table:
    """Return the `rejected` table over all committed shards."""
    names = [
        table_part("rejected", view_set.name, shard)
        for view_set in manifest.sets
        for shard in cache.records(views_unit(view_set), manifest.digest)
    ]
    parts = cache.store.read_parsed(list(names), lambda body, place: from_parquet(body, REJECTED, place))
    return pa.concat_tables([REJECTED.empty_table(), *parts])


def rejected_count(canvases: Iterable[Mapping[int, Sequence[ShardRecord]]]) -> int:
    """Count the rejected views of committed shards, by their commit records alone.

    Args:
        canvases: commit records of the canvases of each view set, by shard.
    """
    records = (record for commits in canvases for shard in commits.values() for record in shard)
    return sum(record.rows for record in records if record.path.startswith("tables/rejected/"))


def exceeds(rejected: int, manifest: ViewsManifest, limit: float) -> bool:
    """Say whether a number of rejected views is more than a share of all views, even if all others can be cut."""
    return rejected / total_views(manifest) > limit


def require_few_rejected(cache: Cache, manifest: ViewsManifest, limit: float) -> None:
    """Refuse to go on when more views were rejected than the user accepts.

    Args:
        cache: holds the `rejected` table.
        manifest: of its views.
        limit: share of all views that may be rejected.

    Raises:
        SettingError: more were rejected; names their images.
    """
    table, total = rejected_views(cache, manifest), total_views(manifest)
    if not exceeds(table.num_rows, manifest, limit):
        return
    reasons = sorted({f"{row['image']}: {row['reason']} ({row['detail']})" for row in table.to_pylist()})
    problems = first_problems([Problem(place="DATA", found=reason) for reason in reasons])
    done = _committed_slots(cache, manifest)
    found = f"{table.num_rows} of {done} views were rejected; tables/rejected lists them all"
    if done < total:
        found += f". The run stopped early: at most {limit:g} of all {total} views may be rejected"
    enough = math.ceil(1000 * table.num_rows / done) / 1000
    fix = (
        f"to go on without these images: --run.max-rejected {enough}; to include them: repair them, and point CACHE at "
        "a new place"
    )
    problems.append(Problem(place="what to do", found=found, fix=fix))
    raise SettingError("image list", problems)


def _committed_slots(cache: Cache, manifest: ViewsManifest) -> int:
    """Return how many views were cut or rejected so far: the row slots of the committed shards."""
    return sum(
        len(shape.grid.slots(shard))
        for view_set, shape in manifest.sets.items()
        for shard in cache.records(views_unit(view_set), manifest.digest)
    )
