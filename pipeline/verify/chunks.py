"""Checking every chunk of a shard: checksum, length, place in the index, and that its numbers are finite."""

from collections.abc import Iterator, Sequence

import numpy as np

from pipeline.verify.problems import collecting, rows_problem
from storage_schemas.commits import ShardRecord
from storage_schemas.format.errors import AbstractStillhouseError, Problem, StorageError
from storage_schemas.format.shard_format import NO_CHUNK, ArraySpec
from storage_schemas.objects.store import Store
from storage_schemas.sharded_array import ShardedArray

BLOCK = 16 * 2**20
"""Bytes of an array that are decoded at a time."""


def chunk_problems(store: Store, spec: ArraySpec, shard: int, record: ShardRecord, fix: str) -> Iterator[Problem]:
    """Read every chunk of a shard, and yield what is wrong with it."""
    problems: list[Problem] = []
    with collecting(problems, record.path, fix):
        array = ShardedArray(store=store, spec=spec, records={shard: record})
        rows = range(record.first_row, record.first_row + record.rows)
        step = max(1, BLOCK // spec.entry_bytes)
        for first in range(0, len(rows), step):
            problems += _block_problems(array, rows[first : first + step], fix)
        if shard in array.indices and (array.indices[shard][record.rows :] != NO_CHUNK).any():
            problems.append(Problem(place=record.path, found="its index has chunks in slots without a view", fix=fix))
    yield from problems


def _block_problems(array: ShardedArray, rows: Sequence[int], fix: str) -> Iterator[Problem]:
    try:
        entries = array.read(rows)
    except StorageError:
        raise
    except AbstractStillhouseError:
        yield from _row_by_row(array, rows, fix)
        return
    if entries.dtype.kind == "f":
        finite = np.isfinite(entries).reshape(len(rows), -1).all(axis=1)
        bad = [row for row, is_finite in zip(rows, finite.tolist(), strict=True) if not is_finite]
        yield from rows_problem(array.spec.path, bad, "holds NaN or infinity", fix)


def _row_by_row(array: ShardedArray, rows: Sequence[int], fix: str) -> list[Problem]:
    """Return the problems of each row: a block is read at once, and its error names only the first."""
    problems: list[Problem] = []
    for row in rows:
        with collecting(problems, f"{array.spec.path} row {row}", fix):
            array.read([row])
    return problems
