"""Rejected views: which are on record, and how many of them a user accepts."""

import math

import pyarrow as pa

from storage_schemas.cache import Cache
from storage_schemas.errors import Problem, SettingError
from storage_schemas.layout import table_part, views_unit
from storage_schemas.manifest import ViewsManifest
from storage_schemas.tables import REJECTED, from_parquet

SHOWN = 10
"""Rejected images that a message names; the table holds all."""


def rejected_views(cache: Cache, manifest: ViewsManifest) -> pa.Table:
    """Return the `rejected` table over all committed shards."""
    names = [
        table_part("rejected", view_set.name, shard)
        for view_set in manifest.sets
        for shard in cache.records(views_unit(view_set), manifest.digest)
    ]
    parts = (from_parquet(cache.store.read(name), REJECTED, name) for name in names)
    return pa.concat_tables([REJECTED.empty_table(), *parts])


def require_few_rejected(cache: Cache, manifest: ViewsManifest, most: float) -> None:
    """Refuse to go on over more rejected views than the user accepts.

    Args:
        cache: where they are recorded.
        manifest: of its views.
        most: share of all views that may be rejected.

    Raises:
        SettingError: there are more; names their images.
    """
    rejected = rejected_views(cache, manifest).to_pylist()
    total = sum(one.grid.rows for one in manifest.sets.values())
    share = len(rejected) / total
    if share <= most:
        return
    reasons = sorted({f"{one['image']}: {one['reason']} ({one['detail']})" for one in rejected})
    problems = [Problem(place="DATA", found=reason) for reason in reasons[:SHOWN]]
    if len(reasons) > SHOWN:
        problems.append(Problem(place="DATA", found=f"and {len(reasons) - SHOWN} more images, in tables/rejected"))
    enough = math.ceil(1000 * share) / 1000
    fix = f"to go on without them: --run.max-rejected {enough}; to have them: mend them, and point CACHE at a new place"
    problems.append(Problem(place="what to do", found=f"{len(rejected)} of {total} views were rejected", fix=fix))
    raise SettingError("image list", problems)
