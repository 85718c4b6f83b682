"""The worker of `verify`: it checks one committed shard, from its commit record to every chunk and table row."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

from pipeline.inventory.units import Unit
from pipeline.verify.chunks import chunk_problems
from pipeline.verify.problems import collecting
from pipeline.verify.records import object_problems, record_problems
from pipeline.verify.shard_task import CheckTask
from pipeline.verify.tables import table_problems
from storage_schemas.commits import ShardRecord
from storage_schemas.format.errors import Problem
from storage_schemas.format.layout import array_object
from storage_schemas.format.snapshots import Snapshot, head_name, snapshot_name
from storage_schemas.objects.store import Store
from storage_schemas.shard_records import parse_record
from storage_schemas.unit_log import read_snapshots, records_of


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """The result of one task."""

    problems: tuple[Problem, ...]
    records: tuple[ShardRecord, ...]
    """The shard's commit record, a line for each object; empty where it cannot be read."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ShardChecker:
    """The worker of `verify`."""

    store: Store
    quick: bool = False
    """Whether the bytes of array shards are not read."""

    def check(self, task: CheckTask) -> CheckReport:
        """Check one shard, and go on after every problem."""
        problems: list[Problem] = []
        records: list[ShardRecord] = []
        with collecting(problems, task.record, task.fix):
            [records] = self.store.read_parsed([task.record], parse_record)
        if task.snapshot is not None:
            records = self._compared(task, task.snapshot, records, problems)
        for record in records:
            reads_bytes = not (self.quick and record.array)
            with collecting(problems, record.path, task.fix):
                problems += object_problems(self.store, record, task.fix, reads_bytes=reads_bytes)
        if task.unit is not None and records:
            problems += self._unit_problems(task, task.unit, records)
        return CheckReport(problems=tuple(problems), records=tuple(records))

    def _compared(
        self, task: CheckTask, snapshot: Snapshot, records: list[ShardRecord], problems: list[Problem]
    ) -> list[ShardRecord]:
        """Return the records of a sealed shard, after comparing its commit record with its snapshot."""
        place, sealed = snapshot_name(task.name, snapshot), list[ShardRecord]()
        fix = f"delete {head_name(task.name)}: the commit records count then, and `make compact` seals them again"
        with collecting(problems, place, fix):
            [table] = read_snapshots(self.store, task.name, [snapshot])
            sealed = records_of(task.name, snapshot, table, [task.shard])[task.shard]
        if records and sealed and records != sealed:
            found = f"says something else of shard {task.shard} than {task.record}"
            problems.append(Problem(place=place, found=found, fix=fix))
        return records or sealed

    def _unit_problems(self, task: CheckTask, unit: Unit, records: Sequence[ShardRecord]) -> Iterator[Problem]:
        wrong = list(record_problems(unit, task.shard, records, task.record, task.fix))
        yield from wrong
        if wrong:
            return  # arrays and tables cannot be compared with a record that is wrong itself
        by_path = {record.path: record for record in records}
        for spec in unit.arrays:
            record = by_path[array_object(spec.path, task.shard, len(spec.shape))]
            if not self.quick and self.store.size(record.path) == record.bytes:
                yield from chunk_problems(self.store, spec, task.shard, record, task.fix)
        yield from table_problems(self.store, task, unit, records[0].rows)
