"""The share of rejected views that the user accepts: given once for a cache, it holds for every later run on it.

It lies beside the cache's contents, at `CACHE/accepted/rejected.json`, and only where more views were rejected than the
default allows: it decides which runs go on, and changes nothing that they write.
"""

import json

from pipeline.views.generations import total_views
from storage_schemas.cache import Cache
from storage_schemas.format.errors import MALFORMED, CorruptionError, Problem
from storage_schemas.format.manifest import ViewsManifest
from storage_schemas.format.seal import sealed, unsealed
from storage_schemas.objects.publish import publish_json

DEFAULT_SHARE = 0.01
"""The share where none was given for a cache."""
ACCEPTED = "accepted/rejected.json"
"""The object that records the share, relative to the cache."""


def exceeds(rejected: int, manifest: ViewsManifest, share: float) -> bool:
    """Say whether a number of rejected views is more than a share of all views, even if all others can be cut."""
    return rejected / total_views(manifest) > share


def accepted_share(cache: Cache, given: float | None) -> float:
    """Return the share that may be rejected: what this run was given, what an earlier run was given, or the default.

    Raises:
        CorruptionError: the recorded share is damaged.
    """
    if given is not None:
        return given
    return _recorded(cache) if cache.store.exists(ACCEPTED) else DEFAULT_SHARE


def are_too_many(cache: Cache, rejected: int, manifest: ViewsManifest, given: float | None) -> bool:
    """Say whether more views were rejected than the user accepts, and record a share that makes a difference.

    Args:
        cache: the cache; its record is read or written only where the default share is exceeded.
        rejected: how many views were rejected so far.
        manifest: the manifest of the views.
        given: the share that this run was given; None where it was given none.

    Raises:
        CorruptionError: the recorded share is damaged.
    """
    if given is None and not exceeds(rejected, manifest, DEFAULT_SHARE):
        return False
    if exceeds(rejected, manifest, accepted_share(cache, given)):
        return True
    if given is not None and exceeds(rejected, manifest, DEFAULT_SHARE):
        _record(cache, given)
    return False


def copy_accepted(source: Cache, target: Cache) -> None:
    """Let an export go by the share that was accepted for the cache that it comes from."""
    if source.store.exists(ACCEPTED):
        _record(target, _recorded(source))


def _record(cache: Cache, share: float) -> None:
    if not cache.store.exists(ACCEPTED) or _recorded(cache) != share:
        publish_json(cache.store, ACCEPTED, sealed({"share": share}))


def _recorded(cache: Cache) -> float:
    try:
        return float(unsealed(json.loads(cache.store.read(ACCEPTED)), ACCEPTED)["share"])
    except MALFORMED as error:
        fix = "delete it, and give --run.max-rejected once more"
        raise CorruptionError("accepted share", [Problem(place=ACCEPTED, found="cannot be read", fix=fix)]) from error
