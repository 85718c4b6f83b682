"""Reading views from a sharded array: indices are cached, neighbours are read together, every chunk is checked."""

from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import final

import numpy as np

from storage_schemas.commits import ShardRecord
from storage_schemas.format.errors import ContractError, CorruptionError, MissingError, Problem
from storage_schemas.format.layout import FEATURES, array_object
from storage_schemas.format.shard_format import (
    CHECKSUM_BYTES,
    NO_CHUNK,
    ArraySpec,
    decode_chunk,
    decode_index,
    index_bytes,
    parse_array_metadata,
    require_checksum,
    require_whole_chunk,
)
from storage_schemas.objects.in_flight import all_at_once
from storage_schemas.objects.spans import coalesce
from storage_schemas.objects.store import Store
from storage_schemas.open_shards import RecordsOfArray, UnitCommits, UnitRecords
from storage_schemas.read_cache import RangeKey, ReadCache
from storage_schemas.read_groups import parse_metadata

WORTH_A_THREAD = 2**20
"""Below this size (bytes), reading from a local disk takes less time than waking threads."""
Wanted = list[tuple[int, int]]
"""Positions in the caller's buffer, and the rows that are read into them."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ShardedArray:
    """One array of the cache, open for reading. It reads shards that are in the commit log, and no others.

    A reader of it may be sent to other processes.

    Where the records are read with their shards (`UnitRecords`), so is all else that belongs to a shard: its index and
    the checksums of its chunks are dropped when others are opened.
    """

    store: Store
    """The cache."""
    spec: ArraySpec
    """The array."""
    records: RecordsOfArray | Mapping[int, ShardRecord]
    """Commit record of each shard, by shard number."""
    kept: ReadCache | None = None
    """Keeps chunks and indices on this machine; None to keep nothing."""
    indices: dict[int, np.ndarray] = field(default_factory=dict, init=False, repr=False)
    """Decoded indices of the shards that are open."""
    opened: dict[int, ShardRecord] = field(default_factory=dict, init=False, repr=False)
    """Commit records of the shards that are open, which fit the array."""
    is_straight: bool = field(init=False, repr=False)
    """Whether chunks have the same bytes in local files and in memory, so that they are read into the caller's
    buffer."""
    reader: object = field(default_factory=object, init=False, repr=False)
    """Identifies this array among those whose local files this process keeps open."""

    def __post_init__(self) -> None:
        if not isinstance(self.records, RecordsOfArray):
            self._require_fitting(self.records)
            self.opened.update(self.records)
        object.__setattr__(self, "is_straight", self.spec.is_plain and self.store.is_local)

    def read(self, rows: Sequence[int], out: np.ndarray | None = None) -> np.ndarray:
        """Return the entries of the given rows, in their order.

        Args:
            rows: row slots, in any order; they may repeat.
            out: buffer `[len(rows), *entry shape]` of the array's dtype to read into; None to make one.

        Raises:
            MissingError: a row lies in a shard that was never committed, or no view fills its slot.
            CorruptionError: stored bytes fail a check, or an object is shorter than its record says.
            ContractError: the buffer has another shape or dtype than the entries.
        """
        shape = (len(rows), *self.spec.entry_shape)
        if out is None:
            out = self._new(len(rows))
        if out.shape != shape or out.dtype != np.dtype(self.spec.dtype):
            found = f"is {out.dtype} {out.shape}, the entries are {self.spec.dtype} {shape}"
            raise ContractError("buffer", [Problem(place=self.spec.path, found=found)])
        by_shard = _by_shard(rows, self.spec.rows_per_shard)
        self._close_all_but(by_shard)
        reads = [partial(self._read_shard, shard, wanted, out) for shard, wanted in by_shard.items()]
        if self.store.is_local and out.nbytes < WORTH_A_THREAD:
            for read in reads:
                read()
        else:
            all_at_once(reads)
        return out

    def _new(self, count: int) -> np.ndarray:
        """Return a buffer for entries. Its memory has latents as chunks have them, channels first."""
        shape = self.spec.entry_shape
        if not self.spec.latents:
            return np.empty((count, *shape), dtype=self.spec.dtype)
        return np.moveaxis(np.empty((count, shape[-1], *shape[:-1]), dtype=self.spec.dtype), 1, -1)

    def read_chunks(self, rows: Sequence[int]) -> list[bytes]:
        """Return the chunks of the given rows as they are stored, with their checksums, in their order.

        They are checked, but not decoded.

        Args:
            rows: row slots, in any order; they may repeat.

        Raises:
            MissingError, CorruptionError: as `read`.
        """
        chunks = [b""] * len(rows)
        for shard, wanted in _by_shard(rows, self.spec.rows_per_shard).items():
            self.store.checked(partial(self._read_as_stored, shard, wanted, chunks))
        return chunks

    def _read_as_stored(self, shard: int, wanted: Wanted, chunks: list[bytes]) -> None:
        index = self._index(shard)
        spans = [self._span(shard, index, row) for _, row in wanted]
        runs = coalesce(spans)
        bodies, starts = self.store.read_ranges(self._record(shard).path, runs), [start for start, _ in runs]
        for (position, row), (start, stop) in zip(wanted, spans, strict=True):
            run = bisect_right(starts, start) - 1
            chunk = memoryview(bodies[run])[start - starts[run] : stop - starts[run]]
            require_whole_chunk(chunk, self.spec, self._place(shard, row))
            self._require_committed(shard, row, chunk[-CHECKSUM_BYTES:])
            chunks[position] = bytes(chunk)

    def _read_shard(self, shard: int, wanted: Wanted, out: np.ndarray) -> None:
        if self.is_straight and out.flags.c_contiguous:
            self._read_straight(shard, wanted, out.reshape(len(out), -1).view(np.uint8))
        else:
            self.store.checked(partial(self._read_decoded, shard, wanted, out))

    def _read_straight(self, shard: int, wanted: Wanted, bodies: np.ndarray) -> None:
        """Read chunks into the caller's buffer, and check each while it is in the processor's cache."""
        index, record = self._index(shard), self._record(shard)
        spans = [(*self._span(shard, index, row), position, row) for position, row in wanted]
        file = self.store.open(record.path, self.reader)
        for start, stop, position, row in sorted(spans):
            body, stored = bodies[position], bytearray(CHECKSUM_BYTES)
            if stop - start != len(body) + CHECKSUM_BYTES:
                found = f"{stop - start - CHECKSUM_BYTES} bytes, expected {len(body)}"
                raise CorruptionError("chunk", [Problem(place=self._place(shard, row), found=found)])
            file.fill(start, body, stored)
            require_checksum(body, bytes(stored), self._place(shard, row))
            self._require_committed(shard, row, stored)

    def _read_decoded(self, shard: int, wanted: Wanted, out: np.ndarray) -> None:
        index = self._index(shard)
        asked = [(position, row, self._span(shard, index, row)) for position, row in wanted]
        absent = [
            (position, row, span) for position, row, span in asked if not self._recall(shard, row, span, out[position])
        ]
        runs = coalesce(span for _, _, span in absent)
        bodies = self.store.read_ranges(self._record(shard).path, runs) if runs else []
        starts = [start for start, _ in runs]
        for position, row, (start, stop) in absent:
            run = bisect_right(starts, start) - 1
            chunk = memoryview(bodies[run])[start - starts[run] : stop - starts[run]]
            self._decode(shard, row, chunk, out[position])
            if self.kept is not None:
                self.kept.put(self._key(shard, (start, stop)), chunk)

    def _recall(self, shard: int, row: int, span: tuple[int, int], out: np.ndarray) -> bool:
        """Fill a view's place from the read cache; return whether it was kept there."""
        if self.kept is None or (chunk := self.kept.get(self._key(shard, span))) is None:
            return False
        try:
            self._decode(shard, row, chunk, out)
        except CorruptionError:
            self.kept.drop(self._key(shard, span))
            return False
        return True

    def _decode(self, shard: int, row: int, chunk: memoryview, out: np.ndarray) -> None:
        decode_chunk(chunk, self.spec, out, self._place(shard, row))
        self._require_committed(shard, row, chunk[-CHECKSUM_BYTES:])

    def _index(self, shard: int) -> np.ndarray:
        if (index := self.indices.get(shard)) is None:
            record = self._record(shard)
            span = (record.bytes - index_bytes(self.spec.rows_per_shard), record.bytes)
            kept = self._recall_index(shard, span)
            self.indices[shard] = index = self._read_index(shard, span) if kept is None else kept
        return index

    def _read_index(self, shard: int, span: tuple[int, int]) -> np.ndarray:
        [body] = self.store.read_ranges(self._record(shard).path, [span])
        index = self._decode_index(shard, body)
        if self.kept is not None:
            self.kept.put(self._key(shard, span), body)
        return index

    def _recall_index(self, shard: int, span: tuple[int, int]) -> np.ndarray | None:
        if self.kept is None or (body := self.kept.get(self._key(shard, span))) is None:
            return None
        try:
            return self._decode_index(shard, bytes(body))
        except CorruptionError:
            self.kept.drop(self._key(shard, span))
            return None

    def _decode_index(self, shard: int, body: bytes) -> np.ndarray:
        return decode_index(body, self.spec.rows_per_shard, f"{self.spec.path} shard {shard}")

    def _key(self, shard: int, span: tuple[int, int]) -> RangeKey:
        record, (start, stop) = self._record(shard), span
        return RangeKey(uri=self.store.uri, path=record.path, xxh3=record.xxh3, start=start, stop=stop)

    def _record(self, shard: int) -> ShardRecord:
        if (record := self.opened.get(shard)) is None:
            if shard not in self.records:
                found, fix = f"shard {shard} was never committed", "run the stage that writes it again: it resumes"
                raise MissingError("shard", [Problem(place=self.spec.path, found=found, fix=fix)])
            record = self.records[shard]
            self._require_fitting({shard: record})
            self.opened[shard] = record
        return record

    def _require_fitting(self, records: Mapping[int, ShardRecord]) -> None:
        problems = [problem for shard, record in records.items() for problem in _problems(self.spec, shard, record)]
        if problems:
            raise ContractError(f"commit log of {self.spec.path}", problems)

    def _close_all_but(self, wanted: Collection[int]) -> None:
        """Drop the records and indices of shards that were opened first, where they are read with their shards."""
        if not isinstance(self.records, RecordsOfArray) or len(self.opened) <= self.records.most_open:
            return
        closed = [shard for shard in self.opened if shard not in wanted]
        for shard in closed[: len(self.opened) - self.records.most_open]:
            self.opened.pop(shard, None)
            self.indices.pop(shard, None)

    def _span(self, shard: int, index: np.ndarray, row: int) -> tuple[int, int]:
        offset, length = index[row % self.spec.rows_per_shard].tolist()
        if offset == NO_CHUNK:
            raise MissingError("view", [Problem(place=self._place(shard, row), found="no view fills this row slot")])
        if offset + length > self._record(shard).bytes:
            found = f"its index points beyond the {self._record(shard).bytes} bytes of the shard"
            raise CorruptionError("shard", [Problem(place=self._place(shard, row), found=found)])
        if length > self.spec.most_chunk_bytes:
            found = f"its index gives {length} bytes, a chunk has at most {self.spec.most_chunk_bytes}"
            raise CorruptionError("shard", [Problem(place=self._place(shard, row), found=found)])
        return offset, offset + length

    def _require_committed(self, shard: int, row: int, stored: bytes | bytearray | memoryview) -> None:
        slot = CHECKSUM_BYTES * (row % self.spec.rows_per_shard)
        if self._record(shard).chunks[slot : slot + CHECKSUM_BYTES] != stored:
            found = "is sound, but not the chunk that was committed here: another shard is in this place"
            raise CorruptionError("chunk", [Problem(place=self._place(shard, row), found=found)])

    def _place(self, shard: int, row: int) -> str:
        return f"{self.spec.path} shard {shard} row {row}"


def open_array(store: Store, path: str, commits: UnitCommits, kept: ReadCache | None = None) -> ShardedArray:
    """Open a sharded array for reading.

    Args:
        store: the cache.
        path: the array, inside `features.zarr`.
        commits: commit records of the shards that may be read.
        kept: keeps what is read on this machine; None to keep nothing.

    Raises:
        MissingError: there is no such array.
        CorruptionError: its metadata is not JSON.
        ContractError: its metadata is not that of an array of ours, or a record does not fit the array.
    """
    records: RecordsOfArray | dict[int, ShardRecord]
    if isinstance(commits, UnitRecords):
        records = RecordsOfArray(commits, path)
    else:
        records = {shard: record for shard, parts in commits.items() for record in parts if record.array == path}
    spec_of = partial(_spec, path)
    [array] = store.read_parsed(
        [f"{FEATURES}/{path}/zarr.json"],
        lambda body, name: ShardedArray(store=store, spec=spec_of(body, name), records=records, kept=kept),
    )
    return array


def _spec(path: str, body: bytes, name: str) -> ArraySpec:
    return parse_array_metadata(path, parse_metadata(body, name))


def _by_shard(rows: Sequence[int], rows_per_shard: int) -> dict[int, Wanted]:
    wanted: dict[int, Wanted] = {}
    for position, row in enumerate(rows):
        wanted.setdefault(int(row) // rows_per_shard, []).append((position, row))
    return wanted


def _problems(spec: ArraySpec, shard: int, record: ShardRecord) -> Iterator[Problem]:
    place, slots = f"shard {shard}", spec.rows_per_shard
    expected = array_object(spec.path, shard, len(spec.shape))
    if record.path != expected:
        yield Problem(place=place, found=f"its record names {record.path}, expected {expected}")
    if record.first_row != shard * slots or not 0 <= record.rows <= slots:
        found = f"its record has {record.rows} rows from {record.first_row}, its {slots} slots start at {shard * slots}"
        yield Problem(place=place, found=found)
    elif len(record.chunks) != CHECKSUM_BYTES * record.rows:
        found = f"its record has {len(record.chunks)} bytes of checksums for {record.rows} chunks"
        yield Problem(place=place, found=found)
    if record.bytes < index_bytes(slots):
        found = f"its record has {record.bytes} bytes, its index alone takes {index_bytes(slots)}"
        yield Problem(place=place, found=found)
