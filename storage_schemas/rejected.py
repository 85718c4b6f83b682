"""Rejected views: how many of a cache's commit records tell of, and how every command says so."""

import shlex
from collections.abc import Iterable, Mapping, Sequence

from storage_schemas.commits import ShardRecord


def rejected_count(canvases: Iterable[Mapping[int, Sequence[ShardRecord]]]) -> int:
    """Count the rejected views of committed shards, by their commit records alone.

    Args:
        canvases: commit records of the canvases of each view set, by shard.
    """
    records = (record for commits in canvases for shard in commits.values() for record in shard)
    return sum(record.rows for record in records if record.path.startswith("tables/rejected/"))


def listed_by(uri: str) -> str:
    """Say which command lists the rejected images of a cache.

    Args:
        uri: of the cache.
    """
    return f"`make inspect CACHE={shlex.quote(uri)} ARGS=--rejected` lists the images"


def rejected_line(uri: str, rejected: int) -> str:
    """Return the line that a command ends with where views of its cache were rejected.

    Args:
        uri: of the cache.
        rejected: how many views.
    """
    return f"{rejected} views are rejected, since their images are unusable; {listed_by(uri)}"
