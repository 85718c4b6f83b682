"""The worker of the export stage: it gathers the views of one shard from the shards of the source that hold them."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat
from typing import final

import numpy as np
import pyarrow as pa

from pipeline.inventory.units import Unit
from pipeline.workers.prefetch import ahead
from storage_schemas.cache import Cache
from storage_schemas.commits import ShardRecord
from storage_schemas.format.encodings import INT8_LARGEST, Coding, as_numbers, as_stored
from storage_schemas.format.errors import ContractError, Problem
from storage_schemas.format.layout import table_part
from storage_schemas.format.shard_format import ArraySpec
from storage_schemas.objects.store import Store
from storage_schemas.shard_writer import ShardKey, ShardWriter, array_record, commit, open_shard, write_table_part
from storage_schemas.sharded_array import ShardedArray

Change = Callable[[np.ndarray], np.ndarray]
"""A function from an entry of the source to that of the target."""
BLOCK = 16 * 2**20
"""Bytes of an array that are read at a time, at least one view. A few such blocks are in memory at once."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExportTask:
    """One shard of a unit of the target, and the views of the source that fill it."""

    source: Unit
    target: Unit
    shard: int
    """Its number in the target."""
    rows: tuple[int, ...]
    """Row slots of its views in the source, in order."""
    tables: Mapping[str, pa.Table]
    """Its parts of `views` and `rejected`, where the unit has them; the worker reads placements itself."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """The result of one task."""

    views: int
    bytes: int
    """Size of the array shards written."""
    copied: int
    """Of these, bytes that were copied without decoding."""
    saturated: int
    """Numbers newly encoded as `int8` that are at its largest value, or were beyond it."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ShardExporter:
    """The worker of the export stage."""

    source: Store
    target: Store

    def export(self, task: ExportTask) -> ExportReport:
        """Write one shard and commit it.

        Where neither type nor codec changes, chunks are copied with their checksum. Every chunk read is checked.

        Raises:
            MissingError, CorruptionError: the source has lost or damaged something that it committed.
            ContractError: a number of the source is too large for `float16`.
        """
        cache, unit = Cache(store=self.source), task.target
        shards = {row // task.source.grid.rows_per_shard for row in task.rows}
        commits = cache.records(task.source.name, task.source.identity, shards)
        with ExitStack() as stack:
            writers = [stack.enter_context(open_shard(self.target, spec, task.shard)) for spec in unit.arrays]
            arrays = [cache.array(spec.path, commits) for spec in task.source.arrays]
            changes = [self._change(array.spec, writer.spec) for array, writer in zip(arrays, writers, strict=True)]
            saturated = sum(map(_copy, arrays, writers, repeat(task.rows), changes))
        key = ShardKey(unit=unit.name, shard=task.shard, identity=unit.identity)
        records = [array_record(writer, key) for writer in writers]
        commit(self.target, key, [*records, *self._write_tables(task, commits, key)])
        return ExportReport(
            views=len(task.rows),
            bytes=sum(writer.sink.size for writer in writers),
            copied=sum(
                writer.sink.size for array, writer in zip(arrays, writers, strict=True) if _is_same(array, writer)
            ),
            saturated=saturated,
        )

    def _change(self, source: ArraySpec, target: ArraySpec) -> Change:
        """Return what becomes of the entries of an array."""
        if _means_the_same(source, target):
            return _as_they_are
        before, after = Cache(store=self.source).coding(source), Cache(store=self.target).coding(target)
        return partial(_encoded, before, after)

    def _write_tables(
        self, task: ExportTask, commits: dict[int, list[ShardRecord]], key: ShardKey
    ) -> list[ShardRecord]:
        """Write the shard's part of each table of its unit, and return their records."""
        first_row = task.target.grid.slots(task.shard).start
        places = {table: table_part(table, folder, task.shard) for table, folder in task.target.tables}
        return [
            write_table_part(self.target, place, self._table(task, table, commits), first_row, key)
            for table, place in places.items()
        ]

    def _table(self, task: ExportTask, name: str, commits: dict[int, list[ShardRecord]]) -> pa.Table:
        if name in task.tables:
            return task.tables[name]
        teacher = task.target.teacher
        if teacher is None:
            raise ContractError("export", [Problem(place=name, found="is a table of neither views nor features")])
        placements = Cache(store=self.source).placements(task.source.view_set, teacher.name, commits)
        placed = {row: position for position, row in enumerate(placements["row"].to_pylist())}
        if absent := [row for row in task.rows if row not in placed]:
            found = f"{len(absent)} views have no placement, the first in row {absent[0]}"
            raise ContractError("placements", [Problem(place=task.source.name, found=found)])
        return take_rows(placements, [placed[row] for row in task.rows], task.target.grid.slots(task.shard).start)


def take_rows(table: pa.Table, positions: Sequence[int], first: int) -> pa.Table:
    """Return the rows at some positions of a table, in their order; their row slots count from `first`."""
    taken = table.take(pa.array(positions, pa.int64()))
    numbers = pa.array(range(first, first + len(positions)), pa.int64())
    return taken.set_column(0, table.schema.field("row"), numbers).combine_chunks()


def _is_same(array: ShardedArray, writer: ShardWriter) -> bool:
    return _bytes_of(array.spec) == _bytes_of(writer.spec)


def _bytes_of(spec: ArraySpec) -> tuple[object, ...]:
    """Return what decides into which bytes an array encodes the same numbers."""
    step = spec.step if spec.dtype == "int8" else None
    return spec.dtype, step, spec.latents, spec.compression, spec.level if spec.compression == "zstd" else None


def _means_the_same(source: ArraySpec, target: ArraySpec) -> bool:
    """Say whether entries of two arrays stand for the same numbers, so that they need not be rounded again."""
    return _bytes_of(replace(source, compression="none")) == _bytes_of(replace(target, compression="none"))


def _copy(array: ShardedArray, writer: ShardWriter, rows: Sequence[int], change: Change) -> int:
    """Copy views from one array to another, and return how many numbers saturated."""
    step, saturated = max(1, BLOCK // array.spec.entry_bytes), 0
    blocks = [rows[first : first + step] for first in range(0, len(rows), step)]
    if _is_same(array, writer):
        for chunks in ahead(array.read_chunks, blocks):
            for chunk in chunks:
                writer.append_chunk(chunk)
        return 0
    for entries in ahead(array.read, blocks):
        for entry in entries:
            stored = change(entry)
            if stored.dtype == np.int8 and entry.dtype != np.int8 and not writer.spec.latents:
                saturated += int((np.abs(stored) == INT8_LARGEST).sum())
            writer.append(stored)
    return saturated


def _as_they_are(entry: np.ndarray) -> np.ndarray:
    return entry


def _encoded(source: Coding, target: Coding, entry: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # a number too large for float16 becomes infinite, and the writer refuses that
        return as_stored(as_numbers(entry, source), target)
