"""What one task of `verify` is told."""

from dataclasses import dataclass
from typing import final

from pipeline.config import ViewsConfig
from pipeline.inventory.units import Unit
from pipeline.views.sampling import DrawnView
from storage_schemas.commits import record_path


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CheckTask:
    """One committed shard."""

    name: str
    """Its unit's name."""
    shard: int
    fix: str
    """What mends anything in this shard."""
    views_fix: str
    """What mends the views that it is of."""
    unit: Unit | None
    """Its unit; None where the manifest that would say is damaged. Its objects are checked all the same."""
    exported: bool
    """Whether it holds features that come from another cache: mosaics are numbered as there."""
    settings: ViewsConfig | None
    """Of the views; None where they cannot be read."""
    drawn: tuple[DrawnView, ...] | None
    """Views drawn for the shard; None where the image list cannot be read."""


def rewrite(unit: str, shard: int, command: str) -> str:
    """Say how a damaged shard is mended: a shard without a record is one that is still to be written."""
    return f"delete {record_path(unit, shard)}; then `{command}` writes the shard again"
