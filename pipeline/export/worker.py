"""One task of the export stage: the views of a shard, gathered from the shards of another cache that hold them."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import final

import numpy as np
import pyarrow as pa

from pipeline.inventory.units import Unit
from pipeline.workers.prefetch import ahead
from storage_schemas.cache import Cache
from storage_schemas.commits import ShardRecord, read_commit
from storage_schemas.format.encodings import INT8_LARGEST, as_numbers, as_stored
from storage_schemas.format.errors import ContractError, Problem
from storage_schemas.format.layout import table_part
from storage_schemas.objects.store import Store
from storage_schemas.shard_writer import ShardKey, ShardWriter, array_record, commit, open_shard, write_table_part
from storage_schemas.sharded_array import ShardedArray

BLOCK = 16 * 2**20
"""Bytes of an array that are read at a time, and at least one view; a few such blocks are held."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExportTask:
    """One shard of a unit of the target, and which views of the source fill it."""

    source: Unit
    target: Unit
    shard: int
    """Of the target."""
    rows: tuple[int, ...]
    """Row slots of its views in the source, in order."""
    tables: Mapping[str, pa.Table]
    """Parts of tables that are known already, by table; those of placements are read by the worker."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What became of a task."""

    views: int
    bytes: int
    """Bytes of the arrays written."""
    copied: int
    """Of these, in chunks that were copied as they are."""
    saturated: int
    """Numbers that were encoded as `int8` and are as large as that holds, or larger."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ShardExporter:
    """The worker of the export stage."""

    source: Store
    target: Store

    def export(self, task: ExportTask) -> ExportReport:
        """Write one shard and commit it.

        Chunks are copied as they are, checksum and all, where dtype and codec stay; whatever is read is checked.

        Raises:
            MissingError, CorruptionError: the source does not hold what it committed.
            ContractError: a number of the source is too large for `float16`.
        """
        cache, unit = Cache(store=self.source), task.target
        commits = _commits(cache, task)
        with ExitStack() as stack:
            writers = [stack.enter_context(open_shard(self.target, spec, task.shard)) for spec in unit.arrays]
            arrays = [cache.array(spec.path, commits) for spec in task.source.arrays]
            saturated = sum(_copy(array, writer, task.rows) for array, writer in zip(arrays, writers, strict=True))
        key = ShardKey(unit=unit.name, shard=task.shard, identity=unit.identity)
        first_row = unit.grid.slots(task.shard).start
        parts = [
            write_table_part(
                self.target, table_part(name, folder, task.shard), self._table(task, name, commits), first_row, key
            )
            for name, folder in unit.tables
        ]
        commit(self.target, key, [*(array_record(writer, key) for writer in writers), *parts])
        as_they_are = [_is_same(*pair) for pair in zip(arrays, writers, strict=True)]
        sizes = [writer.sink.size for writer in writers]
        return ExportReport(
            views=len(task.rows),
            bytes=sum(sizes),
            copied=sum(size for size, same in zip(sizes, as_they_are, strict=True) if same),
            saturated=saturated,
        )

    def _table(self, task: ExportTask, name: str, commits: dict[int, list[ShardRecord]]) -> pa.Table:
        if name in task.tables:
            return task.tables[name]
        teacher = task.target.teacher
        if teacher is None:
            raise ContractError("export", [Problem(place=name, found="is a table that nothing was selected of")])
        placements = Cache(store=self.source).placements(task.source.view_set, teacher.name, commits)
        placed = {row: position for position, row in enumerate(placements["row"].to_pylist())}
        if absent := [row for row in task.rows if row not in placed]:
            found = f"{len(absent)} views have no placement, the first in row {absent[0]}"
            raise ContractError("placements", [Problem(place=task.source.name, found=found)])
        return renumbered(placements, [placed[row] for row in task.rows], task.target.grid.slots(task.shard).start)


def renumbered(table: pa.Table, positions: Sequence[int], first: int) -> pa.Table:
    """Return some rows of a table, in the order given, numbered from a row slot on."""
    taken = table.take(pa.array(positions, pa.int64()))
    numbers = pa.array(range(first, first + len(positions)), pa.int64())
    return taken.set_column(0, table.schema.field("row"), numbers).combine_chunks()


def _commits(cache: Cache, task: ExportTask) -> dict[int, list[ShardRecord]]:
    """Read the commit records of the shards that hold the task's views."""
    unit = task.source
    shards = sorted({row // unit.grid.rows_per_shard for row in task.rows})
    commits = {shard: read_commit(cache.store, unit.name, shard) for shard in shards}
    odd = [shard for shard, records in commits.items() if any(one.identity != unit.identity for one in records)]
    if odd:
        found = f"shards {', '.join(map(str, odd))} were computed from something else than the group says"
        raise ContractError("commit log", [Problem(place=unit.name, found=found)])
    return commits


def _is_same(array: ShardedArray, writer: ShardWriter) -> bool:
    return (array.spec.dtype, array.spec.compression) == (writer.spec.dtype, writer.spec.compression)


def _copy(array: ShardedArray, writer: ShardWriter, rows: Sequence[int]) -> int:
    """Copy views from one array to another, and return how many numbers saturated on the way."""
    step, saturated = max(1, BLOCK // array.spec.entry_bytes), 0
    blocks = [rows[first : first + step] for first in range(0, len(rows), step)]
    if _is_same(array, writer):
        for chunks in ahead(array.read_chunks, blocks):
            for chunk in chunks:
                writer.append_chunk(chunk)
        return 0
    for entries in ahead(array.read, blocks):
        for entry in entries:
            stored = _encoded(entry, writer)
            saturated += int((np.abs(stored) == INT8_LARGEST).sum()) if stored.dtype != entry.dtype else 0
            writer.append(stored)
    return saturated


def _encoded(entry: np.ndarray, writer: ShardWriter) -> np.ndarray:
    dtype = writer.spec.dtype
    if dtype == entry.dtype or dtype == "uint8":
        return entry
    with np.errstate(over="ignore"):  # what float16 cannot hold is infinite, and refused when it is appended
        return as_stored(as_numbers(entry), dtype)
