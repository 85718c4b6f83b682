"""What a worker of `verify` needs to know to check one committed shard."""

from dataclasses import dataclass
from typing import final

from pipeline.config import ViewsConfig
from pipeline.inventory.units import Unit
from pipeline.views.order import DrawnView
from storage_schemas.format.snapshots import Snapshot


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CheckTask:
    """One committed shard, and what it must agree with."""

    name: str
    """Name of its unit."""
    shard: int
    """Its number in the unit."""
    record: str
    """Its commit record: an object, relative to the cache."""
    snapshot: Snapshot | None
    """The snapshot that has its records too; None where they were not sealed."""
    fix: str
    """What to do where anything in this shard is damaged."""
    views_fix: str
    """What to do where the views that this shard belongs to are damaged."""
    unit: Unit | None
    """Its unit; None where the manifest that defines it is damaged. The shard's objects are checked all the same."""
    exported: bool
    """Whether it holds features from another cache: its mosaics have the numbers that they have there."""
    settings: ViewsConfig | None
    """Settings of the views; None where they cannot be read."""
    drawn: tuple[DrawnView, ...] | None
    """Views drawn for the shard; None where the image list cannot be read."""
