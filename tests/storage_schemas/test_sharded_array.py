"""Reading gives the views asked for, in the order asked for, and never bytes that fail a check."""

import pickle
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from zarr.codecs import Crc32cCodec, ZstdCodec

from storage_schemas import sharded_array
from storage_schemas.commits import ShardRecord
from storage_schemas.format.errors import ContractError, CorruptionError, MissingError
from storage_schemas.format.shard_format import ArraySpec, encode_chunk, encode_index, with_checksum
from storage_schemas.objects.store import Store
from storage_schemas.sharded_array import ShardedArray

ROWS, SLOTS = 10, 4
SPEC = ArraySpec(path="teachers/t/low-256/spatial", shape=(ROWS, 2, 3), dtype="float16", rows_per_shard=SLOTS)
ZSTD = replace(SPEC, compression="zstd")
ENTRIES = np.random.default_rng(0).standard_normal((ROWS, 2, 3)).astype(np.float16)


def record_of(spec: ArraySpec, shard: int, chunks: list[bytes], body: bytes) -> ShardRecord:
    """Return the record that a writer commits for a shard."""
    return ShardRecord(
        path=f"features.zarr/{spec.path}/c/{shard}/0/0",
        array=spec.path,
        first_row=shard * SLOTS,
        rows=len(chunks),
        bytes=len(body),
        xxh3="",
        chunks=b"".join(chunk[-4:] for chunk in chunks),
        identity="",
    )


def written(spec: ArraySpec, folder: Path, entries: np.ndarray = ENTRIES) -> ShardedArray:
    """Write entries as shards of SLOTS, the last partly filled, and open them."""
    store, records = Store(uri=str(folder)), {}
    for shard, first in enumerate(range(0, len(entries), SLOTS)):
        chunks = [b"".join(encode_chunk(entry, spec)) for entry in entries[first : first + SLOTS]]
        starts = np.cumsum([0, *map(len, chunks)]).tolist()
        spans = list(zip(starts, map(len, chunks), strict=False))
        body = b"".join(chunks) + encode_index(spans, SLOTS)
        records[shard] = record_of(spec, shard, chunks, body)
        place = folder / records[shard].path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(body)
    return ShardedArray(store=store, spec=spec, records=records)


@pytest.fixture(scope="module", params=[SPEC, ZSTD], ids=["plain", "zstd"])
def array(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ShardedArray:
    """Three shards, the last of two views."""
    return written(request.param, tmp_path_factory.mktemp("cache"))


@given(rows=st.lists(st.integers(0, ROWS - 1), max_size=30))
def test_rows_come_in_the_order_asked_for_repeats_and_all(array: ShardedArray, rows: list[int]) -> None:
    np.testing.assert_array_equal(array.read(rows), ENTRIES[rows].reshape(-1, 2, 3))


@given(rows=st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=8))
def test_rows_are_written_into_the_callers_buffer_whatever_its_strides(array: ShardedArray, rows: list[int]) -> None:
    held = np.full((2 * len(rows), 3, 2), 7, np.float16)
    out = held[::2].transpose(0, 2, 1)
    assert array.read(rows, out) is out
    np.testing.assert_array_equal(out, ENTRIES[rows])
    assert (held[1::2] == 7).all()


@pytest.mark.parametrize(
    ("out", "found"),
    [
        (np.empty((2, 2, 3), np.float32), "is float32 (2, 2, 3)"),
        (np.empty((3, 2, 3), np.float16), "is float16 (3, 2, 3)"),
        (np.empty((2, 3, 2), np.float16), "is float16 (2, 3, 2)"),
    ],
)
def test_a_buffer_of_another_shape_or_type_is_refused(array: ShardedArray, out: np.ndarray, found: str) -> None:
    with pytest.raises(ContractError) as refusal:
        array.read([0, 1], out)
    assert str(refusal.value) == (
        f"buffer breaks the storage contract:\n  teachers/t/low-256/spatial: {found}, the entries are float16 (2, 2, 3)"
    )


@pytest.mark.parametrize("spec", [SPEC, ZSTD], ids=["plain", "zstd"])
def test_shards_that_zarr_wrote_are_read_equal(spec: ArraySpec, tmp_path: Path) -> None:
    codecs: list[Any] = [Crc32cCodec()] if spec.compression == "none" else [ZstdCodec(level=3), Crc32cCodec()]
    plain = zarr.create_array(
        tmp_path / "features.zarr" / spec.path,
        shape=spec.shape,
        chunks=(1, 2, 3),
        shards=(SLOTS, 2, 3),
        dtype=spec.dtype,
        compressors=codecs,
        fill_value=np.nan,
    )
    plain[...] = ENTRIES
    records = {}
    for shard in range(3):
        body = (tmp_path / f"features.zarr/{spec.path}/c/{shard}/0/0").read_bytes()
        entries = ENTRIES[SLOTS * shard : SLOTS * shard + SLOTS]
        records[shard] = record_of(spec, shard, [b"".join(encode_chunk(entry, spec)) for entry in entries], body)
    read = ShardedArray(store=Store(uri=str(tmp_path)), spec=spec, records=records).read(range(ROWS))
    np.testing.assert_array_equal(read, ENTRIES)


def test_an_array_is_read_from_a_store_that_is_not_local(array: ShardedArray) -> None:
    remote = Store(uri="memory://sharded")
    for record in array.records.values():
        remote.filesystem.pipe_file(remote.path(record.path), array.store.read(record.path))
    read = ShardedArray(store=remote, spec=array.spec, records=array.records).read([9, 0, 9, 5])
    np.testing.assert_array_equal(read, ENTRIES[[9, 0, 9, 5]])
    remote.filesystem.rm("/sharded", recursive=True)


def test_an_array_survives_pickling_with_its_indices(array: ShardedArray) -> None:
    array.read([0])
    copy = pickle.loads(pickle.dumps(array))
    assert copy.indices.keys() == array.indices.keys()
    np.testing.assert_array_equal(copy.read([7, 0]), ENTRIES[[7, 0]])


@pytest.mark.parametrize("dtype", ["uint8", "int8", "float16", "float32"])
@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_every_encoding_reads_back_from_a_folder_and_from_elsewhere(
    dtype: Any, compression: Any, tmp_path: Path
) -> None:
    entries = np.random.default_rng(3).integers(0, 100, ENTRIES.shape).astype(dtype)
    array = written(replace(SPEC, dtype=dtype, compression=compression), tmp_path, entries)
    rows = np.random.default_rng(4).permutation(ROWS).tolist()
    for store in (array.store, Store(uri=f"local://{tmp_path}"), Store(uri=f"memory://{dtype}-{compression}")):
        for record in array.records.values() if not store.is_local else ():
            store.filesystem.pipe_file(store.path(record.path), array.store.read(record.path))
        out = np.zeros((ROWS, 2, 3), dtype)
        ShardedArray(store=store, spec=array.spec, records=array.records).read(rows, out)
        np.testing.assert_array_equal(out, entries[rows])


def test_shards_are_read_at_once_and_the_first_refusal_is_told_when_none_is_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharded_array, "WORTH_A_THREAD", 0)
    array, met, done = written(SPEC, tmp_path), Barrier(3, timeout=60), []
    plain = ShardedArray._read_shard

    def meeting(self: ShardedArray, shard: int, *rest: Any) -> None:
        met.wait()  # all three are under way
        try:
            plain(self, shard, *rest)
        finally:
            done.append(shard)

    monkeypatch.setattr(ShardedArray, "_read_shard", meeting)
    np.testing.assert_array_equal(array.read([9, 0, 5, 1]), ENTRIES[[9, 0, 5, 1]])
    (tmp_path / array.records[1].path).unlink()
    (tmp_path / array.records[0].path).unlink()
    fresh, done[:] = ShardedArray(store=array.store, spec=SPEC, records=array.records), []
    assert array.records[1].path in refusal_of(MissingError, lambda: fresh.read([5, 9, 0]))
    assert sorted(done) == [0, 1, 2]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_reads_on_with_threads_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharded_array, "WORTH_A_THREAD", 0)
    array = written(SPEC, tmp_path)
    array.read(range(ROWS))
    child = get_context("fork").Process(target=lambda: np.testing.assert_array_equal(array.read(range(ROWS)), ENTRIES))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    np.testing.assert_array_equal(array.read(range(ROWS)), ENTRIES)


def refusal_of(kind: type[Exception], read: Callable[[], Any]) -> str:
    """Return what is said when `read` is refused."""
    with pytest.raises(kind) as refusal:
        read()
    return str(refusal.value)


@pytest.mark.parametrize(("row", "shard"), [(4, 1), (7, 1), (12, 3), (-1, -1)])
def test_a_shard_that_was_never_committed_is_missing_though_its_object_lies_there(
    array: ShardedArray, row: int, shard: int
) -> None:
    records = {number: record for number, record in array.records.items() if number != 1}
    part = ShardedArray(store=array.store, spec=array.spec, records=records)
    assert refusal_of(MissingError, lambda: part.read([0, row])) == (
        "shard is missing:\n"
        f"  teachers/t/low-256/spatial: shard {shard} was never committed "
        "(run the stage that writes it again: it resumes)"
    )


def test_a_slot_that_no_view_fills_is_missing(array: ShardedArray) -> None:
    assert refusal_of(MissingError, lambda: array.read([9, 10])) == (
        "view is missing:\n  teachers/t/low-256/spatial shard 2 row 10: no view fills this row slot"
    )


def test_a_committed_shard_whose_object_is_gone_is_missing(tmp_path: Path) -> None:
    array = written(SPEC, tmp_path)
    (tmp_path / array.records[1].path).unlink()
    np.testing.assert_array_equal(array.read([0]), ENTRIES[[0]])
    assert refusal_of(MissingError, lambda: array.read([0, 4])) == (
        f"object is missing:\n  {tmp_path}/{array.records[1].path}: is not there"
    )


@pytest.mark.parametrize("spec", [SPEC, ZSTD], ids=["plain", "zstd"])
def test_a_shard_cut_short_anywhere_is_damaged(spec: ArraySpec, tmp_path: Path) -> None:
    array = written(spec, tmp_path)
    place = tmp_path / array.records[0].path
    body = place.read_bytes()
    for length in range(len(body)):
        place.write_bytes(body[:length])
        fresh = ShardedArray(store=array.store, spec=spec, records=array.records)
        said = refusal_of(CorruptionError, lambda fresh=fresh: fresh.read([0, 1, 2, 3]))  # type: ignore[misc]
        assert said == f"object is damaged:\n  {place}: ends within bytes {len(body) - 68} to {len(body)}"


def test_a_shard_cut_short_after_its_index_was_read_is_damaged(tmp_path: Path) -> None:
    array = written(SPEC, tmp_path)
    array.read([0])
    place = tmp_path / array.records[0].path
    place.write_bytes(place.read_bytes()[:20])
    assert refusal_of(CorruptionError, lambda: array.read([1])) == (
        f"object is damaged:\n  {place}: ends within bytes 16 to 32"
    )


def test_a_shard_in_anothers_place_is_damaged_where_their_sizes_differ(tmp_path: Path) -> None:
    array = written(SPEC, tmp_path)
    (tmp_path / array.records[0].path).replace(tmp_path / array.records[2].path)
    assert refusal_of(CorruptionError, lambda: array.read([8])) == (
        "shard index is damaged:\n  teachers/t/low-256/spatial shard 2: its CRC32C does not match its bytes"
    )


@pytest.mark.parametrize("spec", [SPEC, ZSTD], ids=["plain", "zstd"])
def test_a_sound_shard_in_anothers_place_is_damaged_though_nothing_but_its_values_differs(
    spec: ArraySpec, tmp_path: Path
) -> None:
    same_size = np.concatenate([ENTRIES[:SLOTS], -ENTRIES[:SLOTS]])
    array = written(spec, tmp_path, same_size)
    first, second = (tmp_path / array.records[shard].path for shard in (0, 1))
    bodies = first.read_bytes(), second.read_bytes()
    assert spec is ZSTD or len(bodies[0]) == len(bodies[1])
    first.write_bytes(bodies[1])
    for row in range(SLOTS):
        fresh = ShardedArray(store=array.store, spec=spec, records=array.records)
        said = refusal_of(CorruptionError, lambda row=row, fresh=fresh: fresh.read([row]))  # type: ignore[misc]
        found = "is sound, but not the chunk that was committed here: another shard is in this place"
        assert said == f"chunk is damaged:\n  {spec.path} shard 0 row {row}: {found}"
        fresh = ShardedArray(store=array.store, spec=spec, records=array.records)
        copied = refusal_of(CorruptionError, lambda row=row, fresh=fresh: fresh.read_chunks([row]))  # type: ignore[misc]
        assert copied == said  # an export would commit them as its own


def test_views_of_a_shard_that_changed_places_are_damaged(tmp_path: Path) -> None:
    array = written(SPEC, tmp_path)
    place = tmp_path / array.records[0].path
    body = place.read_bytes()
    place.write_bytes(body[16:32] + body[:16] + body[32:])
    np.testing.assert_array_equal(array.read([2, 3]), ENTRIES[[2, 3]])
    assert "row 1: is sound, but not the chunk" in refusal_of(CorruptionError, lambda: array.read([1]))


def test_an_index_that_points_beyond_the_shard_is_damaged(tmp_path: Path) -> None:
    array = written(SPEC, tmp_path)
    place = tmp_path / array.records[0].path
    body = place.read_bytes()
    place.write_bytes(body[:-68] + encode_index([(0, 16), (16, len(body))], SLOTS))
    np.testing.assert_array_equal(array.read([0]), ENTRIES[[0]])
    assert refusal_of(CorruptionError, lambda: array.read([1])) == (
        f"shard is damaged:\n  teachers/t/low-256/spatial shard 0 row 1: "
        f"its index points beyond the {len(body)} bytes of the shard"
    )


def test_a_chunk_of_another_length_is_damaged(array: ShardedArray, tmp_path: Path) -> None:
    chunks = [b"".join(encode_chunk(ENTRIES[0], SPEC)), with_checksum(ENTRIES[1].tobytes()[:10])]
    body = b"".join(chunks) + encode_index([(0, 16), (16, 14)], SLOTS)
    place = tmp_path / array.records[0].path
    place.parent.mkdir(parents=True)
    place.write_bytes(body)
    store, records = Store(uri=str(tmp_path)), {0: record_of(SPEC, 0, chunks, body)}
    for out in (None, np.empty((2, 3, 2), np.float16).transpose(0, 2, 1)):
        fresh = ShardedArray(store=store, spec=SPEC, records=records)
        said = refusal_of(CorruptionError, lambda fresh=fresh, out=out: fresh.read([1, 0], out))  # type: ignore[misc]
        assert said == f"chunk is damaged:\n  {SPEC.path} shard 0 row 1: 10 bytes, expected 12"


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_every_flipped_bit_of_a_shard_is_found_and_its_place_named(compression: Any, tmp_path: Path) -> None:
    shape = (SLOTS, 11, 11)
    spec = ArraySpec(path="a", shape=shape, dtype="float16", rows_per_shard=SLOTS, compression=compression)
    entries = np.random.default_rng(1).standard_normal(shape).astype(np.float16)
    array = written(spec, tmp_path, entries)
    place = tmp_path / array.records[0].path
    body = place.read_bytes()
    array.read([0])
    stops = array.indices[0].sum(axis=1)
    flips = np.random.default_rng(2).integers(0, 8, size=len(body)).tolist()
    assert len(body) > 1000
    for position, bit in enumerate(flips):
        torn = bytearray(body)
        torn[position] ^= 1 << bit
        place.write_bytes(torn)
        fresh = ShardedArray(store=array.store, spec=spec, records=array.records)
        said = refusal_of(CorruptionError, lambda fresh=fresh: fresh.read(range(SLOTS)))  # type: ignore[misc]
        row = int(np.searchsorted(stops, position, side="right"))
        where = ("chunk", f"a shard 0 row {row}") if row < SLOTS else ("shard index", "a shard 0")
        assert said == f"{where[0]} is damaged:\n  {where[1]}: its CRC32C does not match its bytes"


RECORD = record_of(SPEC, 1, [b"four"] * 4, bytes(132))


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        (
            replace(RECORD, path="features.zarr/teachers/t/low-256/spatial/c/0/0/0"),
            "its record names features.zarr/teachers/t/low-256/spatial/c/0/0/0, "
            "expected features.zarr/teachers/t/low-256/spatial/c/1/0/0",
        ),
        (replace(RECORD, first_row=8), "its record has 4 rows from 8, its 4 slots start at 4"),
        (replace(RECORD, rows=5), "its record has 5 rows from 4, its 4 slots start at 4"),
        (replace(RECORD, rows=-1), "its record has -1 rows from 4, its 4 slots start at 4"),
        (replace(RECORD, chunks=bytes(12)), "its record has 12 bytes of checksums for 4 chunks"),
        (replace(RECORD, bytes=67), "its record has 67 bytes, its index alone takes 68"),
    ],
)
def test_a_record_that_does_not_fit_the_array_is_refused(record: ShardRecord, problem: str) -> None:
    store = Store(uri="memory://nothing")
    said = refusal_of(ContractError, lambda: ShardedArray(store=store, spec=SPEC, records={1: record}))
    assert said == f"commit log of teachers/t/low-256/spatial breaks the storage contract:\n  shard 1: {problem}"
    assert (
        ShardedArray(store=store, spec=SPEC, records={1: replace(RECORD, bytes=68, rows=0, chunks=b"")}).indices == {}
    )
