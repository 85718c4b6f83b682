"""The commit log names what counts, and nothing else."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from storage_schemas.commits import (
    ShardRecord,
    committed_shards,
    read_commit,
    read_commits,
    read_records,
    record_path,
    to_table,
)
from storage_schemas.format.errors import ContractError, CorruptionError, MissingError
from storage_schemas.format.tables import to_parquet
from storage_schemas.objects.store import Store

ARRAY = ShardRecord(
    path="features.zarr/views/low-256/pixels/c/3/0/0/0",
    array="views/low-256/pixels",
    first_row=48,
    rows=16,
    bytes=2**40,
    xxh3="ab" * 16,
    chunks=b"four" * 16,
    identity="cd" * 32,
)
PART = replace(ARRAY, path="tables/views/low-256/00003.parquet", array="", bytes=100, chunks=b"")


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty store of each kind."""
    empty = Store(uri=str(tmp_path) if request.param == "local" else "memory://commits")
    empty.filesystem.makedirs(empty.path("tables"), exist_ok=True)
    yield empty
    empty.filesystem.rm(empty.path("tables"), recursive=True)


def put(store: Store, name: str, body: bytes) -> None:
    """Write an object."""
    store.filesystem.makedirs(store.path(name).rsplit("/", 1)[0], exist_ok=True)
    store.filesystem.pipe_file(store.path(name), body)


def commit(store: Store, unit: str, shard: int, records: list[ShardRecord]) -> None:
    """Write a shard's commit record."""
    put(store, record_path(unit, shard), to_parquet(to_table(records)))


def test_a_record_lies_under_its_unit_by_the_number_of_its_shard() -> None:
    assert record_path("views/low-256/detail/siglip2", 7) == "tables/shards/views/low-256/detail/siglip2/00007.parquet"
    assert record_path("views/low-256", 123456) == "tables/shards/views/low-256/123456.parquet"


def test_records_must_carry_the_identity_of_their_group(store: Store) -> None:
    own, other = ARRAY.identity, "ef" * 32
    for shard in range(3):
        commit(store, "views/low-256", shard, [ARRAY, PART])
    assert read_records(store, "views/low-256", own) == {shard: [ARRAY, PART] for shard in range(3)}
    commit(store, "views/low-256", 1, [ARRAY, replace(PART, identity=other)])
    commit(store, "views/low-256", 2, [replace(ARRAY, identity=other), PART])
    with pytest.raises(ContractError) as refusal:
        read_records(store, "views/low-256", own)
    assert str(refusal.value) == (
        "commit log breaks the storage contract:\n"
        "  views/low-256: shards 1, 2 were computed from something else than the group says"
    )
    assert read_records(store, "views/low-256", own, [0]) == {0: [ARRAY, PART]}, "the others are not read"


def test_the_records_of_named_shards_are_read_in_order_and_no_others(store: Store) -> None:
    for shard in range(4):
        commit(store, "views/low-256", shard, [replace(ARRAY, bytes=shard), PART])
    named = read_commits(store, "views/low-256", [3, 1])
    assert list(named) == [1, 3]
    assert [records[0].bytes for records in named.values()] == [1, 3]


def test_records_come_back_as_they_were_committed(store: Store) -> None:
    commit(store, "views/low-256", 3, [ARRAY, PART])
    commit(store, "views/low-256", 100_000, [PART])
    assert read_commit(store, "views/low-256", 3) == [ARRAY, PART]
    assert read_commits(store, "views/low-256") == {3: [ARRAY, PART], 100_000: [PART]}


def test_a_unit_without_a_record_has_no_shard(store: Store) -> None:
    assert committed_shards(store, "views/low-256") == []
    assert read_commits(store, "views/low-256") == {}


def test_units_that_lie_within_or_beside_one_another_are_kept_apart(store: Store) -> None:
    units = ["views/low-256", "views/low-256/detail/x", "views/low-25", "views/low-2561", "teachers/x/low-256"]
    for number, unit in enumerate(units):
        commit(store, unit, number, [replace(PART, rows=number)])
    assert [committed_shards(store, unit) for unit in units] == [[0], [1], [2], [3], [4]]
    assert [read_commits(store, unit) for unit in units] == [{n: [replace(PART, rows=n)]} for n in range(5)]


def test_shards_are_sorted_by_number_and_what_is_no_record_is_passed_over(store: Store) -> None:
    for shard in (100_000, 2, 99_999):
        commit(store, "views/low-256", shard, [PART])
    for name in ("00003.parquet.0f1e.partial", "notes.txt", "x.parquet", "00004", "-1.parquet"):
        put(store, f"tables/shards/views/low-256/{name}", b"")
    assert committed_shards(store, "views/low-256") == [2, 99_999, 100_000]


def test_a_shard_that_was_not_committed_is_missing(store: Store) -> None:
    with pytest.raises(MissingError, match=r"tables/shards/views/low-256/00003\.parquet: is not there"):
        read_commit(store, "views/low-256", 3)


NO_OBJECT = (
    "commit record breaks the storage contract:\n"
    "  tables/shards/views/low-256/00003.parquet: names no object of this cache"
)


@pytest.mark.parametrize(
    "path", ["", "elsewhere/x", "/features.zarr/x", "../features.zarr/x", "s3://b/x", "features.zarr"]
)
def test_a_record_that_names_something_outside_the_caches_folders_is_refused(store: Store, path: str) -> None:
    commit(store, "views/low-256", 3, [ARRAY, replace(PART, path=path)])
    with pytest.raises(ContractError) as refusal:
        read_commit(store, "views/low-256", 3)
    assert str(refusal.value) == NO_OBJECT


def test_a_record_that_climbs_out_of_the_caches_folders_is_refused_when_it_is_followed(store: Store) -> None:
    commit(store, "views/low-256", 3, [replace(PART, path="tables/../../secret")])
    [record] = read_commit(store, "views/low-256", 3)
    with pytest.raises(CorruptionError, match="leads out of the cache"):
        store.read(record.path)


def test_a_record_of_nothing_is_refused(store: Store) -> None:
    commit(store, "views/low-256", 3, [])
    with pytest.raises(ContractError) as refusal:
        read_commit(store, "views/low-256", 3)
    assert str(refusal.value) == NO_OBJECT


def test_a_damaged_record_is_refused_by_its_place(store: Store) -> None:
    commit(store, "views/low-256", 3, [ARRAY])
    name = record_path("views/low-256", 3)
    put(store, name, store.read(name)[:-1])
    with pytest.raises(CorruptionError, match=r"tables/shards/views/low-256/00003\.parquet: its bytes do not have"):
        read_commits(store, "views/low-256")


def test_a_record_of_mixed_identity_is_refused_whichever_of_its_objects_is_the_odd_one(store: Store) -> None:
    odd = [replace(record, identity="ef" * 32) for record in (ARRAY, PART)]
    for records in ([odd[0], PART], [ARRAY, odd[1]], odd):
        commit(store, "views/low-256", 3, records)
        with pytest.raises(ContractError, match="shards 3 were computed from something else than the group says"):
            read_records(store, "views/low-256", ARRAY.identity)
    commit(store, "views/low-256", 3, [ARRAY, PART])
    assert read_records(store, "views/low-256", ARRAY.identity) == {3: [ARRAY, PART]}
