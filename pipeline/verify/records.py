"""Checking commit records: against the objects that they name, and against what the manifests imply."""

from collections.abc import Iterator, Sequence

import xxhash

from pipeline.inventory.units import Unit
from storage_schemas.commits import ShardRecord
from storage_schemas.format.errors import Problem
from storage_schemas.objects.store import Store

BLOCK = 16 * 2**20
"""Bytes of an object that are read and hashed at a time."""
REJECTED = "tables/rejected/"
"""Folder of the table of rejected views."""


def object_problems(store: Store, record: ShardRecord, fix: str, *, reads_bytes: bool = True) -> Iterator[Problem]:
    """Compare an object's size, and its bytes where they are to be read, with its commit record."""
    size = store.size(record.path)
    if size is None:
        yield Problem(place=record.path, found="is missing, and its commit record names it", fix=fix)
    elif size != record.bytes:
        yield Problem(place=record.path, found=f"has {size} bytes, its commit record says {record.bytes}", fix=fix)
    elif reads_bytes and _xxh3(store, record.path, size) != record.xxh3:
        yield Problem(place=record.path, found="its XXH3 is not that of its commit record", fix=fix)


def record_problems(unit: Unit, shard: int, records: Sequence[ShardRecord], place: str, fix: str) -> Iterator[Problem]:
    """Compare a commit record, which lies at `place`, with what its unit implies: objects, rows, identity."""
    grid = unit.grid
    if shard >= grid.shards:
        yield Problem(place=place, found=f"is of shard {shard}, the unit has {grid.shards}", fix=f"delete {place}")
        return
    named, expected = sorted(record.path for record in records), sorted(unit.objects(shard))
    if named != expected:
        yield Problem(place=place, found=f"names {', '.join(named)}, expected {', '.join(expected)}", fix=fix)
    arrays = [record.array for record in records if record.array]
    if arrays != [spec.path for spec in unit.arrays]:
        yield Problem(place=place, found=f"names the arrays {', '.join(arrays) or 'none'}", fix=fix)
    if any(record.identity != unit.identity for record in records):
        found = f"has the identity {records[0].identity}, its group has {unit.identity}"
        yield Problem(place=place, found=found, fix=fix)
    if any(record.first_row != grid.slots(shard).start for record in records):
        yield Problem(place=place, found=f"does not start at row {grid.slots(shard).start}", fix=fix)
    yield from _row_counts(unit, shard, records, place, fix)


def _row_counts(unit: Unit, shard: int, records: Sequence[ShardRecord], place: str, fix: str) -> Iterator[Problem]:
    slots = len(unit.grid.slots(shard))
    rejected = [record.rows for record in records if record.path.startswith(REJECTED)]
    rows = sorted({record.rows for record in records if not record.path.startswith(REJECTED)})
    # every view of a shard is either cut or rejected; there are details and features only of views that were cut
    full = rows == [slots - sum(rejected)] if rejected else len(rows) == 1 and 0 <= rows[0] <= slots
    if not full:
        counts = f"{' and '.join(map(str, rows))} rows" + (f" and {sum(rejected)} rejected" if rejected else "")
        found = f"names objects of {counts} for a shard of {slots} slots"
        yield Problem(place=place, found=found, fix=fix)


def _xxh3(store: Store, name: str, size: int) -> str:
    digest = xxhash.xxh3_128()
    for start in range(0, size, BLOCK):
        [body] = store.read_ranges(name, [(start, min(start + BLOCK, size))])
        digest.update(body)
    return digest.hexdigest()
