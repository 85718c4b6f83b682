"""Rejected views: which are on record, and how many of them a user accepts."""

import math
from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa

from storage_schemas.cache import Cache
from storage_schemas.commits import ShardRecord
from storage_schemas.format.errors import Problem, SettingError
from storage_schemas.format.layout import table_part, views_unit
from storage_schemas.format.manifest import ViewsManifest
from storage_schemas.format.tables import REJECTED, from_parquet

SHOWN = 10
"""Rejected images that a message names; the table holds all."""


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


def exceeds(rejected: int, manifest: ViewsManifest, most: float) -> bool:
    """Say whether so many rejected views are more than a share of all that were drawn, whatever becomes of the rest."""
    return rejected / _total(manifest) > most


def require_few_rejected(cache: Cache, manifest: ViewsManifest, most: float) -> None:
    """Refuse to go on over more rejected views than the user accepts.

    Args:
        cache: where they are recorded.
        manifest: of its views.
        most: share of all views that may be rejected.

    Raises:
        SettingError: there are more; names their images.
    """
    table, total = rejected_views(cache, manifest), _total(manifest)
    if not exceeds(table.num_rows, manifest, most):
        return
    reasons = sorted({f"{one['image']}: {one['reason']} ({one['detail']})" for one in table.to_pylist()})
    problems = [Problem(place="DATA", found=reason) for reason in reasons[:SHOWN]]
    if len(reasons) > SHOWN:
        problems.append(Problem(place="DATA", found=f"and {len(reasons) - SHOWN} more images, in tables/rejected"))
    met = _met(cache, manifest)
    found = f"{table.num_rows} of {met} views were rejected"
    if met < total:
        found += f" before the run ended early; of all {total}, {most:g} are accepted"
    enough = math.ceil(1000 * table.num_rows / met) / 1000
    fix = f"to go on without them: --run.max-rejected {enough}; to have them: mend them, and point CACHE at a new place"
    problems.append(Problem(place="what to do", found=found, fix=fix))
    raise SettingError("image list", problems)


def _total(manifest: ViewsManifest) -> int:
    return sum(one.grid.views for one in manifest.sets.values())


def _met(cache: Cache, manifest: ViewsManifest) -> int:
    """Return how many views are cut or rejected: the row slots of the committed shards."""
    return sum(
        len(one.grid.slots(shard))
        for view_set, one in manifest.sets.items()
        for shard in cache.records(views_unit(view_set), manifest.digest)
    )
