"""`inspect --rejected`: every image whose views could not be cut, with the reason."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

from pipeline.inspect.facts import SCHEMA
from pipeline.inventory.commit_log import committed_below
from storage_schemas.cache import Cache
from storage_schemas.format.errors import MissingError, Problem
from storage_schemas.format.layout import views_unit


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedImage:
    """An image that was rejected."""

    image: str
    """Its key."""
    reason: str
    """One of the reasons of docs/images.md."""
    detail: str
    """What was found in it."""
    views: int
    """How many views were to be cut from it."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedFacts:
    """The rejected images of a cache."""

    schema: int
    cache: str
    """Its URI."""
    views: int
    """Views that could not be cut."""
    images: tuple[RejectedImage, ...]
    """Sorted by key, then by reason."""


def rejected_facts(cache: Cache) -> RejectedFacts:
    """Read the `rejected` tables of a cache.

    Raises:
        MissingError: there is no cache, or it has no views yet.
        CorruptionError: a commit record or a table is damaged.
    """
    cache.require()
    manifest = cache.views_manifest()
    if manifest is None:
        problem = Problem(place=cache.store.uri, found="no view was cut yet", fix="run `make views`")
        raise MissingError("views", [problem])
    shards, counts = committed_below(cache, ["views"]), dict[tuple[str, str, str], int]()
    for view_set in manifest.sets:
        unit = views_unit(view_set)
        commits = cache.records(unit, manifest.digest, shards.get(unit, ()))
        for row in cache.rejected(view_set, commits).to_pylist():
            key = row["image"], row["reason"], row["detail"]
            counts[key] = counts.get(key, 0) + 1
    images = tuple(
        RejectedImage(image=image, reason=reason, detail=detail, views=count)
        for (image, reason, detail), count in sorted(counts.items())
    )
    return RejectedFacts(schema=SCHEMA, cache=cache.store.uri, views=sum(counts.values()), images=images)


def rejected_lines(facts: RejectedFacts) -> Iterator[str]:
    """Return one line for each image, then their number."""
    for image in facts.images:
        yield f"{image.image}: {image.reason} ({image.detail}), {image.views} view{'s' * (image.views > 1)}"
    yield f"{facts.cache}: {len(facts.images)} images rejected, {facts.views} views"
