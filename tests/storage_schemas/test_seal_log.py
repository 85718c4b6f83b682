"""Sealing a commit log changes where records are read from, and not which shards count or what is recorded of them."""

import pickle
import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest
from counting_store import counted

from storage_schemas import seal_log
from storage_schemas.commits import Commits, ShardRecord, committed_shards, read_commit, read_commits
from storage_schemas.format.errors import ContractError, CorruptionError, MissingError, StorageError
from storage_schemas.format.layout import FORMAT_VERSION, SEALED_FORMAT
from storage_schemas.format.snapshots import HEADS, SNAPSHOTS, Head, Snapshot, head_name, parse_head, snapshot_name
from storage_schemas.objects.publish import publish_bytes, publish_group
from storage_schemas.objects.store import Store
from storage_schemas.read_groups import read_attributes
from storage_schemas.seal_log import forget_shards, seal_unit
from storage_schemas.shard_writer import ShardKey, commit
from storage_schemas.unit_log import logged, open_log, open_logs

UNIT, OTHER = "teachers/t/low-64", "teachers/t/low-64x"
IDENTITY = "cd" * 32


@pytest.fixture(autouse=True)
def few_shards_per_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Snapshots of at most four shards, so that a few records show what thousands do."""
    monkeypatch.setattr(seal_log, "SHARDS_PER_SNAPSHOT", 4)


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A cache of each kind, without shards."""
    empty = Store(uri=str(tmp_path / "cache") if request.param == "local" else "memory://sealed")
    publish_group(empty, "", {"format": FORMAT_VERSION, "recipe": "tests"})
    yield empty
    empty.filesystem.rm(empty.path(""), recursive=True)


def records_of(shard: int, version: int = 0, identity: str = IDENTITY, unit: str = UNIT) -> list[ShardRecord]:
    """Return the records of a shard: an array, its summary, and a part of a table."""
    array = ShardRecord(
        path=f"features.zarr/{unit}/spatial/c/{shard}/0",
        array=f"{unit}/spatial",
        first_row=shard * 4,
        rows=4 - shard % 2,
        bytes=1000 + shard,
        xxh3=f"{shard:016x}{version:016x}",
        chunks=bytes([shard % 256, version % 256, 0, 1]) * (4 - shard % 2),
        identity=identity,
    )
    table = replace(array, path=f"tables/placements/t/low-64/{shard:05d}.parquet", array="", chunks=b"")
    return [array, replace(array, array=f"{unit}/summary", bytes=10), table]


def add(store: Store, *shards: int, version: int = 0, unit: str = UNIT) -> Commits:
    """Commit shards, and return their records."""
    added = {shard: records_of(shard, version, unit=unit) for shard in shards}
    for shard, records in added.items():
        commit(store, ShardKey(unit=unit, shard=shard, identity=IDENTITY), records)
    return added


def names_in(store: Store, folder: str) -> list[str]:
    """Return the objects in a folder of a unit."""
    return store.listing(f"{folder}/{UNIT}")


def head_of(store: Store) -> Head:
    """Return the head of the unit."""
    head = open_log(store, UNIT).head
    assert head is not None
    return head


def test_a_sealed_log_has_the_same_records_and_they_stay(store: Store) -> None:
    added = add(store, *range(10), 17)
    before = names_in(store, "tables/shards")
    assert seal_unit(store, UNIT) == 11
    assert names_in(store, "tables/shards") == before
    assert [(each.first, each.stop, each.missing) for each in head_of(store).snapshots] == [
        (0, 4, ()),
        (4, 8, ()),
        (8, 10, ()),
        (17, 18, ()),
    ]
    assert committed_shards(store, UNIT) == [*range(10), 17]
    assert read_commits(store, UNIT) == added
    assert {shard: read_commit(store, UNIT, shard) for shard in added} == added


def test_records_that_follow_are_found_in_the_folder_of_the_heads_epoch(store: Store) -> None:
    added = add(store, 0, 1)
    seal_unit(store, UNIT)
    added |= add(store, 2, 5)
    assert names_in(store, "tables/shards")[2:] == [f"tables/shards/{UNIT}/after/00001/{n:05d}.parquet" for n in (2, 5)]
    assert read_commits(store, UNIT) == added
    assert seal_unit(store, UNIT) == 2
    added |= add(store, 3)
    assert names_in(store, "tables/shards")[-1] == f"tables/shards/{UNIT}/after/00002/00003.parquet"
    assert read_commits(store, UNIT) == added
    assert (head_of(store).epoch, head_of(store).snapshots[-1].missing) == (2, (3, 4))
    seal_unit(store, UNIT)
    assert [(each.first, each.stop, each.epochs) for each in head_of(store).snapshots] == [(0, 2, (0,)), (2, 6, (1, 2))]


def test_a_full_snapshot_stays_and_a_small_last_one_is_written_anew(store: Store) -> None:
    add(store, *range(5))
    seal_unit(store, UNIT)
    first, last = head_of(store).snapshots
    added = add(store, 5, 6)
    seal_unit(store, UNIT)
    assert head_of(store).snapshots[0] == first
    assert [(each.first, each.stop) for each in head_of(store).snapshots] == [(0, 4), (4, 7)]
    assert store.exists(snapshot_name(UNIT, last)), "an old head may still be in use; gc deletes it"
    assert read_commits(store, UNIT, [5, 6]) == added


def test_a_log_that_has_too_few_new_records_is_left_alone(store: Store) -> None:
    add(store, 0, 1)
    assert seal_unit(store, UNIT, least=3) == 0
    assert (names_in(store, HEADS), names_in(store, SNAPSHOTS)) == ([], [])
    assert read_attributes(store, "") == {"format": FORMAT_VERSION, "recipe": "tests"}
    assert seal_unit(store, "teachers/t/low-96") == 0


def test_a_sealed_cache_has_a_format_that_older_versions_refuse(store: Store) -> None:
    add(store, 0)
    seal_unit(store, UNIT)
    assert read_attributes(store, "") == {"format": SEALED_FORMAT, "recipe": "tests"}


def test_a_shard_that_is_forgotten_is_not_committed_and_may_be_written_again(store: Store) -> None:
    added = add(store, *range(6))
    seal_unit(store, UNIT)
    added |= add(store, 6, 7)
    forget_shards(store, UNIT, [1, 5, 6])
    assert committed_shards(store, UNIT) == [0, 2, 3, 4, 7]
    with pytest.raises(MissingError, match=r"00001\.parquet: is not there"):
        read_commit(store, UNIT, 1)
    again = add(store, 1, version=1)
    assert read_commits(store, UNIT) == {shard: {**added, **again}[shard] for shard in (0, 1, 2, 3, 4, 7)}
    seal_unit(store, UNIT)
    assert read_commit(store, UNIT, 1) == again[1]
    with pytest.raises(MissingError, match="is not committed"):
        forget_shards(store, UNIT, [0, 5])
    assert committed_shards(store, UNIT) == [0, 1, 2, 3, 4, 7], "nothing is forgotten where a name is wrong"


def test_without_its_head_the_records_alone_count(store: Store) -> None:
    added = add(store, 0, 1)
    seal_unit(store, UNIT)
    added |= add(store, 2)
    seal_unit(store, UNIT)
    added |= add(store, 3)
    store.remove(head_name(UNIT))
    assert read_commits(store, UNIT) == added
    assert seal_unit(store, UNIT) == 4
    assert head_of(store).epoch == 3, "newer than every folder of records"
    assert read_commits(store, UNIT) == added


def test_an_old_head_that_was_put_back_loses_no_record_when_it_is_sealed_again(store: Store) -> None:
    added = add(store, 0)
    seal_unit(store, UNIT)
    old = store.read(head_name(UNIT))
    added |= add(store, 1)
    seal_unit(store, UNIT)
    added |= add(store, 2)
    publish_bytes(store, head_name(UNIT), old)
    assert seal_unit(store, UNIT) == 2
    assert read_commits(store, UNIT) == added


def test_a_run_whose_claim_is_gone_seals_and_forgets_nothing(store: Store) -> None:
    added = add(store, 0, 1)
    cut_off = replace(store, claim="leases/gone.claim")
    with pytest.raises(StorageError, match="is gone: the lease of this run expired"):
        seal_unit(cut_off, UNIT)
    assert (names_in(store, HEADS), names_in(store, SNAPSHOTS)) == ([], [])
    seal_unit(store, UNIT)
    before = store.read(head_name(UNIT))
    for shards in ([0], [0, 1]):
        with pytest.raises(StorageError, match="is gone: the lease of this run expired"):
            forget_shards(cut_off, UNIT, shards)
    assert store.read(head_name(UNIT)) == before
    assert read_commits(store, UNIT) == added


def test_records_of_two_identities_are_not_sealed(store: Store) -> None:
    add(store, 0)
    commit(store, ShardKey(unit=UNIT, shard=1, identity="x"), records_of(1, identity="ee" * 32))
    with pytest.raises(ContractError, match="shards 1 were computed from something else"):
        seal_unit(store, UNIT)
    assert names_in(store, HEADS) == []


def test_the_identity_of_a_sealed_log_is_checked(store: Store) -> None:
    add(store, *range(20))
    seal_unit(store, UNIT)
    log = open_log(store, UNIT)
    log.require_identity(IDENTITY)
    for ask in (log.require_identity, lambda identity: log.records(identity=identity)):
        with pytest.raises(ContractError, match="were computed from something else"):
            ask("ee" * 32)


@pytest.mark.parametrize("few", [1, 0])
def test_a_lost_record_of_a_sealed_shard_is_read_from_its_snapshot(
    store: Store, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage_schemas.unit_log.FEW", few)
    added = add(store, *range(6))
    seal_unit(store, UNIT)
    store.remove(f"tables/shards/{UNIT}/00002.parquet")
    log = pickle.loads(pickle.dumps(open_log(store, UNIT)))
    assert log.records([2, 4]) == {shard: added[shard] for shard in (2, 4)}
    assert log.read(2) == added[2]


@pytest.mark.parametrize("change", ["flipped", "cut", "swapped"])
def test_a_damaged_snapshot_is_named_with_the_way_back(store: Store, change: str) -> None:
    add(store, *range(8))
    seal_unit(store, UNIT)
    first, second = (snapshot_name(UNIT, snapshot) for snapshot in head_of(store).snapshots)
    body = store.read(first)
    flipped = body[:200] + bytes([body[200] ^ 1]) + body[201:]
    damaged = {"flipped": flipped, "cut": body[:-1], "swapped": store.read(second)}[change]
    publish_bytes(store, first, damaged)
    with pytest.raises(CorruptionError) as refusal:
        read_commits(store, UNIT)
    assert f"{first}: its bytes do not have the XXH3 in its name (delete {head_name(UNIT)}: " in str(refusal.value)
    store.remove(head_name(UNIT))
    assert len(read_commits(store, UNIT)) == 8


def test_a_log_that_was_open_when_its_snapshots_were_replaced_and_deleted_reads_the_new_ones(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage_schemas.unit_log.FEW", 0)
    added = add(store, 0)
    seal_unit(store, UNIT)
    log = open_log(store, UNIT)
    add(store, 1)
    seal_unit(store, UNIT)
    store.remove(snapshot_name(UNIT, log.snapshots[0]))
    assert log.records([0]) == added


def test_totals_come_from_the_head_and_the_records_that_are_newer(tmp_path: Path) -> None:
    store = Store(uri=str(tmp_path))
    added = add(store, *range(9))
    seal_unit(store, UNIT)
    added |= add(store, 9, 10)
    with counted() as requests:
        totals = open_log(Store(uri=f"counted://{tmp_path}"), UNIT).totals()
    assert len(requests.reads) == 1 + 2
    assert requests.listings == [f"{tmp_path}/tables/shards/{UNIT}/after/00001"]
    assert (totals.shards, totals.views) == (11, sum(records[0].rows for records in added.values()))
    assert totals.bytes == sum(record.bytes for records in added.values() for record in records if record.array)


def test_all_units_are_found_where_some_are_sealed_and_others_are_not(store: Store) -> None:
    views = ["views/low-64", "views/low-64/detail/t", "views/low-96", "views/low-96/detail/t"]
    units = [*views, UNIT, "teachers/u/low-64"]
    for unit in units:
        add(store, 0, 1, unit=unit)
    assert {unit: list(log) for unit, log in open_logs(store).items()} == {unit: [0, 1] for unit in units}
    for unit in ("views/low-64", "views/low-96/detail/t", UNIT):
        seal_unit(store, unit)
        add(store, 2, unit=unit)
        found = {name: list(log) for name, log in open_logs(store).items()}
        assert found.keys() == set(units)
        assert found[unit] == [0, 1, 2]
        assert all(shards in ([0, 1], [0, 1, 2]) for shards in found.values())
    assert set(open_logs(store, "views")) == set(views)
    assert set(open_logs(store, "teachers/t")) == {UNIT}
    assert open_logs(store, "teachers/v") == {}


@pytest.mark.parametrize("seed", range(3))
def test_a_log_holds_what_was_committed_and_not_forgotten_whatever_is_done_to_it(tmp_path: Path, seed: int) -> None:
    store, draw, model = Store(uri=str(tmp_path)), random.Random(seed), dict[int, list[ShardRecord]]()
    for step in range(25):
        action = draw.choice(["commit", "commit", "seal", "forget", "unhead"])
        if action == "commit":
            free = [shard for shard in range(40) if shard not in model]
            model |= add(store, *draw.sample(free, min(len(free), draw.randrange(1, 6))), version=step)
        elif action == "seal":
            seal_unit(store, UNIT, least=draw.choice([1, 3]))
        elif action == "forget" and model:
            gone = draw.sample(sorted(model), min(len(model), draw.randrange(1, 4)))
            forget_shards(store, UNIT, gone)
            model = {shard: records for shard, records in model.items() if shard not in gone}
        elif action == "unhead" and draw.random() < 0.3:
            store.remove(head_name(UNIT))
        log = open_log(store, UNIT)
        assert list(log) == sorted(model)
        assert log.records() == model
        shard = draw.randrange(40)
        assert (shard in log) == (shard in model)
        assert len(log) == len(model)


def test_of_two_records_of_a_shard_the_newer_counts() -> None:
    names = [f"tables/shards/{UNIT}/{name}.parquet" for name in ("after/00002/00001", "00001", "after/00001/00001")]
    others = [
        f"tables/shards/{UNIT}/{name}" for name in ("1.parquet", "after/2/00001.parquet", "00001.parquet.partial")
    ]
    for listed in permutations(names):  # a listing may come in any order
        assert logged([*listed, *others]) == {UNIT: {1: 2}}


SNAPSHOT = Snapshot(first=0, stop=4, missing=(1,), epochs=(0,), views=8, rejected=0, bytes=9, size=10, xxh3="ab" * 16)
LATER = replace(SNAPSHOT, first=4, stop=6, missing=())
HEAD = Head(unit=UNIT, epoch=1, identity=IDENTITY, snapshots=(SNAPSHOT, LATER))


def test_a_head_is_read_back() -> None:
    assert parse_head(HEAD.to_json(), head_name(UNIT)) == HEAD


@pytest.mark.parametrize(
    "odd",
    [
        replace(HEAD, unit=OTHER),
        replace(HEAD, epoch=0),
        replace(HEAD, snapshots=()),
        replace(HEAD, snapshots=(LATER, SNAPSHOT)),
        replace(HEAD, snapshots=(replace(SNAPSHOT, stop=5), LATER)),
        replace(HEAD, snapshots=(replace(SNAPSHOT, missing=(0,)), LATER)),
        replace(HEAD, snapshots=(replace(SNAPSHOT, missing=(3,)), LATER)),
        replace(HEAD, snapshots=(replace(SNAPSHOT, missing=(2, 1)), LATER)),
        replace(HEAD, snapshots=(replace(SNAPSHOT, missing=(), stop=0), LATER)),
        replace(HEAD, snapshots=(replace(SNAPSHOT, epochs=()), LATER)),
        replace(HEAD, snapshots=(replace(SNAPSHOT, size=-1), LATER)),
        replace(HEAD, snapshots=(replace(SNAPSHOT, views=10**30), LATER)),
        replace(HEAD, snapshots=(replace(SNAPSHOT, xxh3="../../etc"), LATER)),
    ],
)
def test_a_head_that_cannot_be_is_refused(odd: Head) -> None:
    with pytest.raises(ContractError, match="does not list snapshots of this unit"):
        parse_head(odd.to_json(), head_name(UNIT))


def test_every_flipped_bit_of_a_head_is_found() -> None:
    body = HEAD.to_json()
    for place in range(len(body) - 1):
        for bit in (0, 6):
            flipped = body[:place] + bytes([body[place] ^ (1 << bit)]) + body[place + 1 :]
            with pytest.raises((CorruptionError, ContractError)):
                parse_head(flipped, head_name(UNIT))
