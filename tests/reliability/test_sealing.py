"""A log that is being sealed is whole at every moment: in a folder under SIGKILL, on S3 through faults and outages."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fault_proxy import Fault, FaultKind, FaultProxy
from killed_sealing import FORGOTTEN, UNIT

from storage_schemas import seal_log
from storage_schemas.commits import Commits, ShardRecord, read_commits
from storage_schemas.format.errors import StorageError
from storage_schemas.format.layout import FORMAT_VERSION
from storage_schemas.format.snapshots import HEADS, SNAPSHOTS, snapshot_name
from storage_schemas.objects.publish import publish_group
from storage_schemas.objects.retry_policy import RetryPolicy
from storage_schemas.objects.store import Store
from storage_schemas.seal_log import forget_shards, seal_unit
from storage_schemas.shard_writer import ShardKey, commit
from storage_schemas.unit_log import open_log

SHARDS = 14
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


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["500", "503", "slowdown", "reset", "cut", "stall", "slow", "flip", "lost"])
def test_each_request_of_sealing_on_s3_may_fail(proxy: FaultProxy, bucket: str, kind: FaultKind) -> None:
    patient = RetryPolicy(outage=30.0, silence=1.0, first_wait=0.01)
    number, requests = 0, 1
    while number < requests:
        number += 1
        store = Store(uri=f"{bucket}/{kind}-{number}", retries=patient)
        added = half_sealed(store)
        proxy.arm(Fault(kind=kind, first=number, last=number, seconds=2.0))
        assert seal_unit(store, UNIT) == 6
        requests = len(proxy.requests)
        proxy.arm()
        assert read_commits(store, UNIT) == added
        listed = [snapshot_name(UNIT, snapshot) for snapshot in open_log(store, UNIT).snapshots]
        assert set(listed) <= set(store.listing(SNAPSHOTS))
        assert len(store.listing(HEADS)) == 1
    assert number > 10


@pytest.fixture
def impatient() -> RetryPolicy:
    """Ends after half a second of failures."""
    return RetryPolicy(outage=0.3, silence=0.3, first_wait=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("action", ["seal", "forget"])
def test_an_outage_may_begin_at_any_request_of_sealing_on_s3(
    proxy: FaultProxy, bucket: str, action: str, impatient: RetryPolicy
) -> None:
    ended, number = False, 0
    while not ended:
        number += 1
        store = Store(uri=f"{bucket}/{action}-{number}", retries=RetryPolicy(outage=30.0, silence=5.0))
        added = half_sealed(store)
        proxy.arm(Fault(kind="503", first=number))
        ended = _acted(replace(store, retries=impatient), action)
        proxy.arm()
        found, last = read_commits(store, UNIT), added if action == "seal" else without(added)
        assert last.items() <= found.items() <= added.items(), number
        for _ in _acts(store, action):
            pass
        assert read_commits(store, UNIT) == last
    assert number > 10


def _acted(store: Store, action: str) -> bool:
    """Carry the action out, and say whether it ended."""
    try:
        for _ in _acts(store, action):
            pass
    except StorageError:
        return False
    return True


def _acts(store: Store, action: str) -> Iterator[None]:
    if action == "seal":
        yield seal_unit(store, UNIT) and None
    elif left := [shard for shard in FORGOTTEN if shard in open_log(store, UNIT)]:
        yield forget_shards(store, UNIT, left)
