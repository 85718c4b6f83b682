"""Images whose views could not be cut, by reason. The cache keeps their keys and reasons, and no pixels of them."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from storage_schemas.cache import Cache
from storage_schemas.format.layout import views_unit
from storage_schemas.format.views import ViewSet
from trainer.data.set_source import SetSource

NAMED = 10
"""Largest number of images of a reason that are named."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedFor:
    """The images that were rejected for one reason."""

    reason: str
    """One of the reasons of docs/images.md."""
    images: int
    views: int
    """Views that were to be cut from them."""
    named: tuple[tuple[str, str], ...]
    """Key of an image, and what was found in it, sorted; at most `NAMED`."""


def rejected_images(cache: Cache, views: str, sets: Mapping[ViewSet, SetSource]) -> list[RejectedFor]:
    """Return the rejected images of a cache by reason, the reason of most images first.

    Args:
        cache: the cache.
        views: digest of its views.
        sets: its view sets. Tables are read of those only in which a view was rejected.

    Raises:
        CorruptionError: a commit record or a table is damaged.
    """
    counts: dict[str, Counter[tuple[str, str]]] = {}
    for view_set in (view_set for view_set, found in sets.items() if found.rejected):
        commits = cache.records(views_unit(view_set), views)
        for row in cache.rejected(view_set, commits).to_pylist():
            counts.setdefault(row["reason"], Counter())[row["image"], row["detail"]] += 1
    reasons = [
        RejectedFor(
            reason=reason,
            images=len({image for image, _ in found}),
            views=found.total(),
            named=tuple(sorted(found)[:NAMED]),
        )
        for reason, found in counts.items()
    ]
    return sorted(reasons, key=lambda rejected: (-rejected.images, rejected.reason))
