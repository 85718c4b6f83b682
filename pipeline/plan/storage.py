"""Whether a plan fits on the file system of the cache, and how many requests it takes on S3."""

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from typing import final

from pipeline.inventory.units import Unit, total_bytes
from storage_schemas.format.layout import array_object
from storage_schemas.format.shard_format import CHECKSUM_BYTES, index_bytes
from storage_schemas.objects.s3_upload import PART_BYTES
from storage_schemas.objects.store import Store


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """Space on the file system of a cache."""

    free: int
    """Free bytes that this user may use."""
    needed: int
    """Bytes of the array shards that are still to be written."""
    present: int
    """Bytes of those that exist already."""

    @property
    def lacking(self) -> int:
        """Bytes that are missing; 0 where the plan fits."""
        return max(0, self.needed - self.free)


def space_for(store: Store, units: Iterable[Unit]) -> Space | None:
    """Measure the space for some units; None where the cache is not on a file system of this machine."""
    if not store.is_local:
        return None
    units = list(units)
    present = _present(store, units)
    free = shutil.disk_usage(_existing(store.path(""))).free
    return Space(free=free, needed=max(0, total_bytes(units) - present), present=present)


def _present(store: Store, units: Iterable[Unit]) -> int:
    if not store.exists(""):
        return 0
    names = (
        array_object(spec.path, shard, len(spec.shape))
        for unit in units
        for spec in unit.arrays
        for shard in range(unit.grid.shards)
    )
    return sum(store.size(name) or 0 for name in names)


def _existing(path: str) -> str:
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path


def put_requests(units: Iterable[Unit]) -> int:
    """Return how many requests write some units to S3, without compression, if no view is rejected.

    A small object takes one PUT. A large object takes a request that begins its upload, one for each part, and one that
    completes it; each is billed as a PUT.
    """
    total = 0
    for unit in units:
        grid = unit.grid
        total += grid.shards * (len(unit.tables) + 1)
        for spec in unit.arrays:
            entry, index = spec.entry_bytes + CHECKSUM_BYTES, index_bytes(spec.rows_per_shard)
            total += sum(requests_of(len(grid.slots(shard)) * entry + index) for shard in range(grid.shards))
    return total


def requests_of(size: int) -> int:
    """Return how many requests write one object of `size` bytes."""
    return 1 if size < PART_BYTES else 2 + -(-size // PART_BYTES)
