"""Whether what is planned fits where it is to go."""

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from typing import final

from pipeline.units import Unit, total_bytes
from storage_schemas.layout import array_object
from storage_schemas.store import Store


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """Room on the file system of a cache."""

    free: int
    """Free bytes that this user may fill."""
    needed: int
    """Bytes of the array shards that are still to be written."""
    present: int
    """Bytes of those that are there already."""

    @property
    def lacking(self) -> int:
        """Bytes by which it does not fit; 0 where it does."""
        return max(0, self.needed - self.free)


def space_for(store: Store, units: Iterable[Unit]) -> Space | None:
    """Measure the room for some units; None where the cache is not on a file system of this machine."""
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
