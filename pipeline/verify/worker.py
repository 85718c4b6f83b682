"""One task of `verify`: a shard's record, the objects it names, every chunk of its arrays, every row of its tables."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import xxhash

from pipeline.inventory.units import Unit
from pipeline.verify.findings import noting, rows_problem
from pipeline.verify.tables import table_problems
from pipeline.verify.task import CheckTask
from storage_schemas.commits import ShardRecord, read_commit, record_path
from storage_schemas.format.errors import AbstractStillhouseError, Problem
from storage_schemas.format.layout import array_object
from storage_schemas.format.shard_format import NO_CHUNK, ArraySpec
from storage_schemas.objects.store import Store
from storage_schemas.sharded_array import ShardedArray

BLOCK = 16 * 2**20
"""Bytes of an object that are hashed, and of an array that are decoded, at a time."""
REJECTED = "tables/rejected/"
"""Where parts of the table of rejected views lie."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """What became of a task."""

    problems: tuple[Problem, ...]
    records: tuple[ShardRecord, ...]
    """Objects that the shard's record names."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ShardChecker:
    """The worker of `verify`."""

    store: Store
    quick: bool = False
    """Whether the bytes of array shards are left unread."""

    def check(self, task: CheckTask) -> CheckReport:
        """Check one shard. Nothing that is wrong in it ends the check."""
        problems: list[Problem] = []
        records: list[ShardRecord] = []
        with noting(problems, record_path(task.name, task.shard), task.fix):
            records = read_commit(self.store, task.name, task.shard)
        for record in records:
            with noting(problems, record.path, task.fix):
                problems += object_problems(self.store, record, task.fix, read=not (self.quick and record.array))
        if task.unit is not None and records:
            problems += self._unit_problems(task, task.unit, records)
        return CheckReport(problems=tuple(problems), records=tuple(records))

    def _unit_problems(self, task: CheckTask, unit: Unit, records: Sequence[ShardRecord]) -> Iterator[Problem]:
        wrong = list(record_problems(unit, task.shard, records, task.fix))
        yield from wrong
        if wrong:
            return  # what a record should say of its objects is not known
        by_path = {record.path: record for record in records}
        for spec in unit.arrays:
            record = by_path[array_object(spec.path, task.shard, len(spec.shape))]
            if not self.quick and self.store.size(record.path) == record.bytes:
                yield from chunk_problems(self.store, spec, task.shard, record, task.fix)
        yield from table_problems(self.store, task, unit, records[0].rows)


def object_problems(store: Store, record: ShardRecord, fix: str, *, read: bool = True) -> Iterator[Problem]:
    """Compare an object's size with its commit record and, where it is to be read, its bytes."""
    size = store.size(record.path)
    if size is None:
        yield Problem(place=record.path, found="is not there, and its record names it", fix=fix)
    elif size != record.bytes:
        yield Problem(place=record.path, found=f"has {size} bytes, its record says {record.bytes}", fix=fix)
    elif read and _xxh3(store, record.path, size) != record.xxh3:
        yield Problem(place=record.path, found="its XXH3 is not the one that its record names", fix=fix)


def record_problems(unit: Unit, shard: int, records: Sequence[ShardRecord], fix: str) -> Iterator[Problem]:
    """Compare what a commit record says with what its unit implies: objects, rows, identity."""
    place, grid = record_path(unit.name, shard), unit.grid
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
        found = f"was computed from something else than its group says: {records[0].identity}, not {unit.identity}"
        yield Problem(place=place, found=found, fix=fix)
    if any(record.first_row != grid.slots(shard).start for record in records):
        yield Problem(place=place, found=f"does not start at row {grid.slots(shard).start}", fix=fix)
    yield from _row_counts(unit, shard, records, fix)


def _row_counts(unit: Unit, shard: int, records: Sequence[ShardRecord], fix: str) -> Iterator[Problem]:
    slots = len(unit.grid.slots(shard))
    rejected = [record.rows for record in records if record.path.startswith(REJECTED)]
    rows = sorted({record.rows for record in records if not record.path.startswith(REJECTED)})
    # every view of a shard is cut or rejected; details and features are of those that were cut
    full = rows == [slots - sum(rejected)] if rejected else len(rows) == 1 and 0 <= rows[0] <= slots
    if not full:
        counts = f"{' and '.join(map(str, rows))} rows" + (f" and {sum(rejected)} rejected" if rejected else "")
        found = f"names objects of {counts} for a shard of {slots} slots"
        yield Problem(place=record_path(unit.name, shard), found=found, fix=fix)


def chunk_problems(store: Store, spec: ArraySpec, shard: int, record: ShardRecord, fix: str) -> Iterator[Problem]:
    """Read every chunk of a shard: checksum, length, index; and look for values that are not finite."""
    problems: list[Problem] = []
    with noting(problems, record.path, fix):
        array = ShardedArray(store=store, spec=spec, records={shard: record})
        rows = range(record.first_row, record.first_row + record.rows)
        step = max(1, BLOCK // spec.entry_bytes)
        for first in range(0, len(rows), step):
            problems += _rows_problems(array, rows[first : first + step], fix)
        if shard in array.indices and (array.indices[shard][record.rows :] != NO_CHUNK).any():
            problems.append(Problem(place=record.path, found="its index has chunks beyond its views", fix=fix))
    yield from problems


def _rows_problems(array: ShardedArray, rows: Sequence[int], fix: str) -> Iterator[Problem]:
    try:
        entries = array.read(rows)
    except AbstractStillhouseError:
        yield from _row_by_row(array, rows, fix)
        return
    if entries.dtype.kind == "f":
        finite = np.isfinite(entries).reshape(len(rows), -1).all(axis=1)
        bad = [row for row, sound in zip(rows, finite.tolist(), strict=True) if not sound]
        yield from rows_problem(array.spec.path, bad, "holds NaN or infinity", fix)


def _row_by_row(array: ShardedArray, rows: Sequence[int], fix: str) -> list[Problem]:
    problems: list[Problem] = []
    for row in rows:
        with noting(problems, f"{array.spec.path} row {row}", fix):
            array.read([row])
    return problems


def _xxh3(store: Store, name: str, size: int) -> str:
    digest = xxhash.xxh3_128()
    for start in range(0, size, BLOCK):
        [body] = store.read_ranges(name, [(start, min(start + BLOCK, size))])
        digest.update(body)
    return digest.hexdigest()
