"""Writing shards: streamed view by view, published whole, committed last."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

import numpy as np
import pyarrow as pa

from storage_schemas.commits import ShardRecord, to_table
from storage_schemas.format.errors import ContractError, Problem
from storage_schemas.format.layout import FEATURES, array_object
from storage_schemas.format.shard_format import (
    CHECKSUM_BYTES,
    ArraySpec,
    Chunk,
    array_metadata,
    encode_chunk,
    encode_index,
)
from storage_schemas.format.tables import to_parquet
from storage_schemas.objects.publish import Sink, publish, publish_bytes, publish_group, publish_json, require_claim
from storage_schemas.objects.store import Store
from storage_schemas.seal_log import record_place
from storage_schemas.small_arrays import groups_above

HALF_EXPONENT = 0x7C00
"""Bits of the exponent of a float16. They are all set in NaN and infinity, and in no other number."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ShardKey:
    """Which shard of which unit."""

    unit: str
    """The unit that it is part of; see `storage_schemas.format.layout`."""
    shard: int
    """Number of the shard."""
    identity: str
    """Digest of what it is computed from."""


@final
class ShardWriter:
    """Writes one shard of one array: entries are appended in order of row, and each is checked."""

    def __init__(self, spec: ArraySpec, sink: Sink) -> None:
        """Begin a shard.

        Args:
            spec: the array.
            sink: what the bytes are written to.
        """
        self.spec, self.sink = spec, sink
        self.spans: list[tuple[int, int]] = []
        """Start and length of each chunk (bytes)."""
        self.checksums = bytearray()
        """CRC32C of each chunk."""

    def append(self, entry: np.ndarray) -> None:
        """Write the next view's entry.

        Raises:
            ContractError: wrong shape or dtype, a value that is not finite, or more entries than the shard has slots.
        """
        self.append_all([entry])

    def append_all(self, entries: Iterable[np.ndarray]) -> None:
        """Write the entries of the next views with one write, or none of them. All are in memory until then.

        Args:
            entries: in order of row.

        Raises:
            ContractError: as for `append`.
        """
        self.sink.write_all(piece for entry in entries for piece in self._noted(self._encoded(entry)))

    def append_chunk(self, chunk: bytes) -> None:
        """Write the next view's entry as a chunk that was read, and checked, from an array of the same dtype and codec.

        Raises:
            ContractError: more entries than the shard has slots.
        """
        self.sink.write_all(self._noted((memoryview(chunk)[:-CHECKSUM_BYTES], chunk[-CHECKSUM_BYTES:])))

    def _encoded(self, entry: np.ndarray) -> Chunk:
        if not _is_finite(entry):
            found = f"entry {len(self.spans)} of the shard holds NaN or infinity"
            raise ContractError("shard", [Problem(place=self.spec.path, found=found)])
        return encode_chunk(entry, self.spec)

    def _noted(self, chunk: Chunk) -> Chunk:
        if len(self.spans) == self.spec.rows_per_shard:
            found = f"has {self.spec.rows_per_shard} row slots, and all are filled"
            raise ContractError("shard", [Problem(place=self.spec.path, found=found)])
        body, checksum = chunk
        start = sum(self.spans[-1]) if self.spans else 0
        self.spans.append((start, len(body) + CHECKSUM_BYTES))
        self.checksums += checksum
        return chunk


def _is_finite(entry: np.ndarray) -> bool:
    if (
        entry.dtype == np.float16
    ):  # NumPy would convert each number first; testing the exponent takes a tenth of the time
        return int((entry.view(np.uint16) & HALF_EXPONENT).max(initial=0)) != HALF_EXPONENT
    return entry.dtype.kind != "f" or bool(np.isfinite(entry).all())


@contextmanager
def open_shard(store: Store, spec: ArraySpec, shard: int) -> Iterator[ShardWriter]:
    """Open one shard of an array for writing. It appears whole when the block ends, and not at all where it raises.

    Args:
        store: the cache.
        spec: the array.
        shard: number of the shard.

    Yields:
        What entries are appended to.

    Raises:
        StorageError: the store fails; or the claim of this run is gone.
    """
    with publish(store, array_object(spec.path, shard, len(spec.shape))) as sink:
        writer = ShardWriter(spec, sink)
        yield writer
        sink.write(encode_index(writer.spans, spec.rows_per_shard))
        require_claim(store)


def array_record(writer: ShardWriter, key: ShardKey) -> ShardRecord:
    """Return the commit record of a shard that was written."""
    return ShardRecord(
        path=array_object(writer.spec.path, key.shard, len(writer.spec.shape)),
        array=writer.spec.path,
        first_row=key.shard * writer.spec.rows_per_shard,
        rows=len(writer.spans),
        bytes=writer.sink.size,
        xxh3=writer.sink.xxh3,
        chunks=bytes(writer.checksums),
        identity=key.identity,
    )


def write_table_part(store: Store, name: str, table: pa.Table, first_row: int, key: ShardKey) -> ShardRecord:
    """Publish a part of a table, and return its commit record.

    Args:
        store: the cache.
        name: the object, relative to the cache.
        table: rows of the part.
        first_row: first row slot of the shard.
        key: the shard that it is part of.
    """
    sink = publish_bytes(store, name, to_parquet(table))
    return ShardRecord(
        path=name,
        array="",
        first_row=first_row,
        rows=table.num_rows,
        bytes=sink.size,
        xxh3=sink.xxh3,
        chunks=b"",
        identity=key.identity,
    )


def commit(store: Store, key: ShardKey, records: Sequence[ShardRecord]) -> None:
    """Publish a shard's commit record. This comes last: from now on the shard counts.

    Args:
        store: the cache.
        key: the shard.
        records: one for each of its objects.

    Raises:
        StorageError: the store fails; or the claim of this run is gone.
    """
    require_claim(store)
    publish_bytes(store, record_place(store, key.unit, key.shard), to_parquet(to_table(list(records))))


def create_array(store: Store, spec: ArraySpec) -> None:
    """Publish the metadata of an array, and of the groups above it where there are none yet."""
    publish_json(store, f"{FEATURES}/{spec.path}/zarr.json", array_metadata(spec))
    for group in groups_above(spec.path):
        if not store.exists(f"{FEATURES}/{group}/zarr.json"):
            publish_group(store, group)
