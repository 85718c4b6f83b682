"""A log that is being sealed is whole at every moment: in a folder under SIGKILL, on S3 through faults and outages."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from fault_proxy import Fault, FaultKind, FaultProxy
from killed_sealing import FORGOTTEN, UNIT

from storage_schemas import seal_log
from storage_schemas.commits import Commits, ShardRecord, read_commits
from storage_schemas.format.errors import StorageError
from storage_schemas.format.layout import FORMAT_VERSION
from storage_schemas.format.snapshots import HEADS, SNAPSHOTS, head_name, snapshot_name
from storage_schemas.objects.publish import publish_bytes, publish_group
from storage_schemas.objects.retry_policy import RetryPolicy
from storage_schemas.objects.store import Store
from storage_schemas.seal_log import forget_shards, seal_unit
from storage_schemas.shard_writer import ShardKey, commit
from storage_schemas.unit_log import open_log

SHARDS = 14
ROOT = "features.zarr/zarr.json"
HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def few_shards_per_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Snapshots of at most four shards."""
    monkeypatch.setattr(seal_log, "SHARDS_PER_SNAPSHOT", 4)


def add(store: Store, *shards: int) -> Commits:
    """Commit shards, and return their records."""
    added = {
        shard: [
            ShardRecord(
                path=f"features.zarr/{UNIT}/spatial/c/{shard}/0",
                array=f"{UNIT}/spatial",
                first_row=shard * 4,
                rows=4,
                bytes=1000 + shard,
                xxh3=f"{shard:032x}",
                chunks=bytes([shard, 0, 0, 1]) * 4,
                identity="cd" * 32,
            )
        ]
        for shard in shards
    }
    for shard, records in added.items():
        commit(store, ShardKey(unit=UNIT, shard=shard, identity="cd" * 32), records)
    return added


def half_sealed(store: Store) -> Commits:
    """Make a log of which a part is sealed: a full snapshot, one with a gap, a small last one, and newer records."""
    publish_group(store, "", {"format": FORMAT_VERSION, "recipe": "tests"})
    added = add(store, *(shard for shard in range(9) if shard != 5))
    seal_unit(store, UNIT)
    return added | add(store, 5, *range(9, SHARDS))


def without(commits: Commits) -> Commits:
    """Return the records of the shards that are not forgotten."""
    return {shard: records for shard, records in commits.items() if shard not in FORGOTTEN}


@pytest.mark.parametrize("action", ["seal", "forget"])
def test_sealing_that_is_killed_at_any_change_loses_and_doubles_no_record(tmp_path: Path, action: str) -> None:
    added = half_sealed(Store(uri=str(tmp_path / "cache")))
    command = [sys.executable, str(HERE / "killed_sealing.py"), str(tmp_path / "cache"), action]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    outcomes = [json.loads(line) for line in run.stdout.splitlines()]
    assert [outcome["killed"] for outcome in outcomes] == [True] * (len(outcomes) - 1) + [False]
    assert len(outcomes) >= 5
    digests = outcomes[0]["found"]
    assert sorted(map(int, digests)) == sorted(added)
    last = {shard: digest for shard, digest in digests.items() if action == "seal" or int(shard) not in FORGOTTEN}
    for outcome in outcomes:
        assert outcome["repeated"] == last, outcome["moment"]
        # forgetting changes one snapshot after the other to a head that lacks them all, then deletes records
        assert outcome["found"] in (digests, last) or action == "forget"
        assert last.items() <= outcome["found"].items() <= digests.items(), outcome["moment"]


def objects_of(store: Store) -> dict[str, bytes]:
    """Return every object of a cache."""
    names = [*store.listing("tables"), ROOT]
    return dict(zip(names, store.read_many(names), strict=True))


def put_back(store: Store, objects: dict[str, bytes]) -> None:
    """Make a cache hold these objects again, and no others."""
    there = set(store.listing("tables"))
    for name in there - objects.keys():
        store.remove(name)
    for name in {*(objects.keys() - there), ROOT, head_name(UNIT)}:
        publish_bytes(store, name, objects[name])


@pytest.mark.slow
def test_each_request_of_sealing_on_s3_may_fail(proxy: FaultProxy, bucket: str) -> None:
    store = Store(uri=bucket, retries=RetryPolicy(outage=30.0, silence=1.0, first_wait=0.01))
    added = half_sealed(store)
    objects, kinds = objects_of(store), get_args(FaultKind)
    moment, requests = 0, 1
    while moment < requests * len(kinds):
        number, kind = divmod(moment, len(kinds))
        moment += 1
        put_back(store, objects)
        proxy.arm(Fault(kind=kinds[kind], first=number + 1, last=number + 1, seconds=2.0))
        assert seal_unit(store, UNIT) == 6
        requests = max(requests, len(proxy.requests) - len(proxy.struck)) if number == 0 else requests
        proxy.arm()
        assert read_commits(store, UNIT) == added, (kinds[kind], number)
        listed = [snapshot_name(UNIT, snapshot) for snapshot in open_log(store, UNIT).snapshots]
        assert set(listed) <= set(store.listing(SNAPSHOTS))
        assert len(store.listing(HEADS)) == 1
    assert requests > 10


@pytest.mark.slow
@pytest.mark.parametrize("action", ["seal", "forget"])
def test_an_outage_may_begin_at_any_request_of_sealing_on_s3(proxy: FaultProxy, bucket: str, action: str) -> None:
    store = Store(uri=bucket, retries=RetryPolicy(outage=30.0, silence=5.0))
    impatient = replace(store, retries=RetryPolicy(outage=0.3, silence=0.3, first_wait=0.05))
    added = half_sealed(store)
    last, objects = added if action == "seal" else without(added), objects_of(store)
    ended, number = False, 0
    while not ended:
        number += 1
        put_back(store, objects)
        proxy.arm(Fault(kind="503", first=number))
        ended = _acted(impatient, action)
        proxy.arm()
        assert last.items() <= read_commits(store, UNIT).items() <= added.items(), number
        _act(store, action)
        assert read_commits(store, UNIT) == last, number
    assert number > 10


def _acted(store: Store, action: str) -> bool:
    """Carry the action out, and say whether it ended."""
    try:
        _act(store, action)
    except StorageError:
        return False
    return True


def _act(store: Store, action: str) -> None:
    if action == "seal":
        seal_unit(store, UNIT)
    elif left := [shard for shard in FORGOTTEN if shard in open_log(store, UNIT)]:
        forget_shards(store, UNIT, left)
