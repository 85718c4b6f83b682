"""Rejected views: how many of them the user accepts."""

import math

from pipeline.views.accepted import accepted_share, are_too_many
from pipeline.views.generations import total_views
from pipeline.views.tasks import CommittedViews
from storage_schemas.cache import Cache
from storage_schemas.format.errors import Problem, SettingError, first_problems
from storage_schemas.rejected import listed_by, rejected_count


def require_few_rejected(cache: Cache, committed: CommittedViews, given: float | None) -> None:
    """Refuse to go on when more views were rejected than the user accepts.

    Args:
        cache: holds the `rejected` table, which is read only for the message.
        committed: the commit records of its views.
        given: share of all views that may be rejected, as this run was given it; None where it was not.

    Raises:
        SettingError: more were rejected; names their images.
    """
    rejected, total = rejected_count(committed.canvases.values()), total_views(committed.manifest)
    if not are_too_many(cache, rejected, committed.manifest, given):
        return
    reasons = _reasons(cache, committed)
    problems = first_problems([Problem(place="DATA", found=reason) for reason in reasons])
    done = _committed_slots(committed)
    found = f"{rejected} of {done} views were rejected; {listed_by(cache.store.uri)}"
    if done < total:
        found += (
            f". The run stopped early: at most {accepted_share(cache, given):g} of all {total} views may be rejected"
        )
    enough = math.ceil(1000 * rejected / done) / 1000
    fix = (
        f"to go on without these images: --run.max-rejected {enough}; to include them: repair them, and point CACHE at "
        "a new place"
    )
    problems.append(Problem(place="what to do", found=found, fix=fix))
    raise SettingError("image list", problems)


def _reasons(cache: Cache, committed: CommittedViews) -> list[str]:
    """Return each rejected image with its reason, sorted."""
    tables = [cache.rejected(view_set, commits) for view_set, commits in committed.canvases.items()]
    rows = [row for table in tables for row in table.to_pylist()]
    return sorted({f"{row['image']}: {row['reason']} ({row['detail']})" for row in rows})


def _committed_slots(committed: CommittedViews) -> int:
    """Return how many views were cut or rejected so far: the row slots of the committed shards."""
    grids = {view_set: shape.grid for view_set, shape in committed.manifest.sets.items()}
    return sum(
        len(grids[view_set].slots(shard)) for view_set, commits in committed.canvases.items() for shard in commits
    )
