"""Shards: whole ones only, of what the array says, committed last."""

import itertools
import json
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from durability import recorded

from storage_schemas.cache import Cache
from storage_schemas.commits import ShardRecord, read_commits
from storage_schemas.format.errors import ContractError
from storage_schemas.format.shard_format import ArraySpec, array_metadata, encode_chunk
from storage_schemas.format.tables import REJECTED, from_parquet
from storage_schemas.objects.publish import Sink, publish, publish_group
from storage_schemas.objects.store import Store
from storage_schemas.shard_writer import (
    ShardKey,
    ShardWriter,
    array_record,
    commit,
    create_array,
    open_shard,
    write_table_part,
)
from storage_schemas.sharded_array import ShardedArray
from storage_schemas.small_arrays import write_small_arrays

NUMBERS = itertools.count()
SPEC = ArraySpec(path="teachers/t/low-128/spatial", shape=(7, 2, 3), dtype="float16", rows_per_shard=4)
KEY = ShardKey(unit="teachers/t/low-128", shard=1, identity="1234")
OBJECT = "features.zarr/teachers/t/low-128/spatial/c/1/0/0"


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind."""
    return Store(uri=str(tmp_path / "cache") if request.param == "local" else f"memory://shards-{next(NUMBERS)}")


def entry(number: int) -> np.ndarray:
    """One view's entry."""
    return np.full((2, 3), number, dtype=np.float16)


def write_shard(store: Store, shard: int, *entries: np.ndarray) -> ShardWriter:
    """Write a shard of the entries given."""
    with open_shard(store, SPEC, shard) as writer:
        for entry in entries:
            writer.append(entry)
    return writer


def test_a_shard_is_seen_when_it_is_whole_and_reads_back(store: Store) -> None:
    with open_shard(store, SPEC, 1) as writer:
        for number in (5, 6):
            writer.append(entry(number))
        assert not store.exists(OBJECT)
    record = array_record(writer, KEY)
    assert record == ShardRecord(
        path=OBJECT,
        array=SPEC.path,
        first_row=4,
        rows=2,
        bytes=store.size(OBJECT) or 0,
        xxh3=writer.sink.xxh3,
        chunks=b"".join(encode_chunk(entry(number), SPEC)[1] for number in (5, 6)),
        identity="1234",
    )
    read = ShardedArray(store=store, spec=SPEC, records={1: record}).read([4, 5])
    np.testing.assert_array_equal(read, np.stack([entry(5), entry(6)]))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((3, 2), np.float16), "an entry is float16 (3, 2), expected float16 (2, 3)"),
        (np.zeros((2, 3), np.float32), "an entry is float32 (2, 3), expected float16 (2, 3)"),
        (np.full((2, 3), np.nan, np.float16), "entry 1 of the shard holds NaN or infinity"),
        (np.array([[0, 0, 0], [0, np.inf, 0]], np.float16), "entry 1 of the shard holds NaN or infinity"),
    ],
)
def test_an_entry_that_does_not_belong_is_refused_and_the_shard_with_it(
    store: Store, wrong: np.ndarray, message: str
) -> None:
    with pytest.raises(ContractError) as caught:
        write_shard(store, 1, entry(5), wrong)
    assert [str(problem) for problem in caught.value.problems] == [f"{SPEC.path}: {message}"]
    assert store.listing("") == []


def test_every_finite_half_is_stored_and_no_other(store: Store) -> None:
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    finite = halves[np.isfinite(halves)]
    spec = ArraySpec(path="a", shape=(4, len(finite)), dtype="float16", rows_per_shard=4)
    with open_shard(store, spec, 0) as writer:
        writer.append(finite)
    alone = ArraySpec(path="b", shape=(4, 1), dtype="float16", rows_per_shard=4)
    for bits in (0x7C00, 0x7C01, 0x7E00, 0x7FFF, 0xFC00, 0xFE00, 0xFFFF):
        with pytest.raises(ContractError), open_shard(store, alone, 0) as writer:
            writer.append(np.array([bits], np.uint16).view(np.float16))


def test_a_shard_is_streamed_whatever_its_size(tmp_path: Path) -> None:
    entries = np.random.default_rng(0).standard_normal((2, 14, 14, 1024)).astype(np.float16)
    spec = ArraySpec(path="a", shape=(240, 14, 14, 1024), dtype="float16", rows_per_shard=240)
    tracemalloc.start()
    try:
        with open_shard(Store(uri=str(tmp_path)), spec, 0) as writer:
            for row in range(240):
                writer.append(entries[row % 2])
        held = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert writer.sink.size > 90 * 2**20
    assert held < 4 * entries[0].nbytes  # of 240: one written, one checked


def test_the_hash_is_that_of_the_object(store: Store) -> None:
    with publish(store, "x") as sink:
        for number, length in enumerate([1, 2**16, 3, 2**17, 2**18, 2**16 - 1, 2**16]):
            sink.write(bytes([number]) * length)
    assert sink.xxh3 == xxhash.xxh3_128(store.read("x")).hexdigest()


def test_more_entries_than_slots_are_refused(store: Store) -> None:
    with pytest.raises(ContractError) as caught:
        write_shard(store, 0, *(entry(number) for number in range(5)))
    assert [str(problem) for problem in caught.value.problems] == [f"{SPEC.path}: has 4 row slots, and all are filled"]
    assert store.listing("") == []


PIXELS = ArraySpec(path="views/low-32/pixels", shape=(10, 2, 2, 3), dtype="uint8", rows_per_shard=5)


@pytest.mark.parametrize("spec", [PIXELS, replace(PIXELS, compression="zstd"), replace(PIXELS, dtype="float16")])
def test_several_entries_at_once_give_the_bytes_of_one_after_the_other(store: Store, spec: ArraySpec) -> None:
    views = np.random.default_rng(5).integers(0, 256, size=(5, 2, 2, 3)).astype(spec.dtype)
    with open_shard(store, spec, 0) as alone:
        for view in views:
            alone.append(view)
    with open_shard(store, spec, 1) as together:
        together.append_all(views[:2])
        together.append_all([])
        together.append_all(iter([views[2], views[3, :, ::-1][:, ::-1], views[4]]))
    first, second = (array_record(written, KEY) for written in (alone, together))
    by_one, at_once = (store.read(f"features.zarr/{spec.path}/c/{shard}/0/0/0") for shard in (0, 1))
    assert by_one == at_once
    assert (first.bytes, first.xxh3, first.rows, first.chunks) == (
        second.bytes,
        second.xxh3,
        second.rows,
        second.chunks,
    )
    read = ShardedArray(store=store, spec=spec, records={1: second}).read(range(5, 10))
    np.testing.assert_array_equal(read, views)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([entry(3), entry(4), entry(5)], "has 4 row slots, and all are filled"),
        ([entry(3), np.full((2, 3), np.inf, np.float16)], "entry 3 of the shard holds NaN or infinity"),
        ([entry(3), entry(4)[:1]], "an entry is float16 (1, 3), expected float16 (2, 3)"),
    ],
)
def test_of_several_entries_none_may_be_wrong(wrong: list[np.ndarray], message: str) -> None:
    written: list[bytes] = []
    writer = ShardWriter(SPEC, Sink(written.extend))
    writer.append_all([entry(1), entry(2)])
    with pytest.raises(ContractError) as caught:
        writer.append_all(wrong)
    assert [str(problem) for problem in caught.value.problems] == [f"{SPEC.path}: {message}"]
    assert b"".join(written) == b"".join(piece for number in (1, 2) for piece in encode_chunk(entry(number), SPEC))


def test_a_shard_is_not_gone_on_with_after_a_refusal(store: Store) -> None:
    def go_on() -> None:
        with open_shard(store, SPEC, 0) as writer:
            writer.append(entry(1))
            with pytest.raises(ContractError, match="holds NaN or infinity"):
                writer.append_all([entry(2), np.full((2, 3), np.nan, np.float16)])

    with pytest.raises(ContractError, match="sink: is written to after a write that failed"):
        go_on()
    assert store.listing("") == []


def test_a_shard_counts_from_its_commit_on(store: Store) -> None:
    writer = write_shard(store, 1, entry(5))
    rejected = pa.Table.from_pylist([{"image": "a", "draw": 0, "reason": "empty", "detail": "zero bytes"}], REJECTED)
    part = write_table_part(store, "tables/rejected/low-128/00001.parquet", rejected, 4, KEY)
    assert read_commits(store, KEY.unit) == {}
    commit(store, KEY, [array_record(writer, KEY), part])
    assert read_commits(store, KEY.unit) == {1: [array_record(writer, KEY), part]}
    assert (part.array, part.first_row, part.rows) == ("", 4, 1)
    assert from_parquet(store.read(part.path), REJECTED, part.path).equals(rejected)


def test_an_array_is_created_with_every_group_above_it(store: Store) -> None:
    create_array(store, SPEC)
    names = ["", "/low-128", "/low-128/spatial"]
    expected = ["features.zarr/teachers/zarr.json", *(f"features.zarr/teachers/t{name}/zarr.json" for name in names)]
    assert sorted(store.listing("")) == sorted(expected)
    assert json.loads(store.read(expected[-1])) == array_metadata(SPEC)


def test_creating_an_array_leaves_the_attributes_of_the_groups_above_it_alone(store: Store) -> None:
    publish_group(store, "teachers/t", {"spec": "ours"})
    create_array(store, SPEC)
    assert Cache(store=store).attributes("teachers/t") == {"spec": "ours"}


def test_all_that_is_written_of_a_shard_is_durable_and_the_record_comes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, store = recorded(monkeypatch, tmp_path), Store(uri=str(tmp_path / "a" / "cache"))
    publish_group(store, "", {"format": 1})
    create_array(store, SPEC)
    write_small_arrays(store, "teachers/t/phi_s", {"mean": np.zeros(3), "scale": np.float64(1)})
    writer = write_shard(store, 1, entry(1), entry(2))
    part = write_table_part(store, "tables/rejected/low-128/00001.parquet", REJECTED.empty_table(), 4, KEY)
    commit(store, KEY, [array_record(writer, KEY), part])
    disk.require_durable()
    assert sorted(set(disk.renamed())) == [f"a/cache/{name}" for name in store.listing("")]
    record = "a/cache/tables/shards/teachers/t/low-128/00001.parquet"
    first = disk.steps.index(f"flush {record}")
    for name in (OBJECT, part.path):
        named = disk.steps.index(f"rename a/cache/{name}")
        folder = f"flush a/cache/{name.rpartition('/')[0]}"
        assert folder in disk.steps[named:first], "its name is on the disk before the record is written"
