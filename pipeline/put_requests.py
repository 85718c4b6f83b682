"""How many requests writing takes on an object store: what such stores bill, beside bytes."""

from collections.abc import Iterable

from pipeline.units import Unit
from storage_schemas.s3_upload import PART_BYTES
from storage_schemas.shard_format import CHECKSUM_BYTES, index_bytes


def put_requests(units: Iterable[Unit]) -> int:
    """Return the requests that write some units to S3 if no view is rejected, before compression.

    A small object is one PUT. A large one is begun, sent in parts, and completed: each is billed as a PUT.
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
    """Return the requests that write one object of so many bytes."""
    return 1 if size < PART_BYTES else 2 + -(-size // PART_BYTES)
