"""Leases on a real S3 server on which several conditional writes can succeed at once; and through network faults."""

import json
import os
import re
import signal
import socket
import time
from dataclasses import replace

import pytest
from disturbed_runs import RETRIES, Ended, Runner, contents, require_one_message
from fault_proxy import Fault, FaultKind, FaultProxy

from pipeline.leases.claim import this_process
from pipeline.leases.lease import VIEWS_LEASE, leased, list_claims, teacher_lease
from pipeline.leases.names import claim_name, heartbeat_name
from pipeline.leases.object_claims import Timing
from storage_schemas.cache import Cache
from storage_schemas.format.errors import BusyError, StorageError
from storage_schemas.objects.publish import publish_bytes, publish_group
from storage_schemas.objects.retry_policy import RetryPolicy
from storage_schemas.objects.store import Store

QUICKLY_TRIED = (("PUT ", "lost"), ("GET ", "503"), ("DELETE ", "reset"))
QUICK = RetryPolicy(outage=30.0, silence=5.0, first_wait=0.02)
"""Patient enough for a busy machine; no outage is tried with it."""


@pytest.fixture
def cache(bucket: str) -> Cache:
    """An empty cache."""
    return Cache(store=Store(uri=f"{bucket}/cache", retries=QUICK))


def claims_left(uri: str) -> list[str]:
    """The objects of leases in a cache."""
    return Store(uri=uri).listing("leases")


def refused_by(ended: Ended) -> str:
    """Check that a run was refused in one message, and return the lease and the owner that it names."""
    require_one_message(ended)
    found = re.search(r"^error: cache s3://\S+ is being written:\n  (\S+: by process \d+ on \S+) ", ended.said, re.M)
    assert found is not None, ended.said
    return found[1]


def test_two_runs_that_begin_at_once_on_s3_give_the_bytes_of_one(
    runner: Runner,
    bucket: str,
    expected: dict,
) -> None:
    told = runner.run("extract", bucket, retries=RETRIES, at_once=2)
    runs = [Ended(**ended) for ended in json.loads(told.said)]
    assert sorted(run.status for run in runs) in ([0, 0], [0, 2]), runs
    for run in runs:
        if run.status:
            assert f" on {socket.gethostname()}" in refused_by(run)
    assert runner.run("extract", bucket, retries=RETRIES).status == 0
    assert contents(Store(uri=bucket)) == expected


@pytest.mark.parametrize(
    "step", ["extract", *(pytest.param(step, marks=pytest.mark.slow) for step in ("cut", "observe", "measure"))]
)
def test_the_next_run_on_the_same_machine_goes_on_at_once_after_a_kill(
    runner: Runner,
    bucket: str,
    step: str,
    expected: dict,
) -> None:
    killed = runner.run("extract", bucket, retries=RETRIES, dies_at=step)
    assert killed.status == -signal.SIGKILL
    assert len(claims_left(bucket)) == 1
    assert runner.run("extract", bucket, retries=RETRIES).status == 0
    assert contents(Store(uri=bucket)) == expected


def test_a_run_elsewhere_blocks_until_it_has_been_silent_for_its_term(
    runner: Runner,
    bucket: str,
    expected: dict,
) -> None:
    store, there = Store(uri=bucket), {"host": "node-3", "machine": "another"}
    elsewhere = replace(this_process(VIEWS_LEASE, "views", term=3600.0), **there)
    names = [claim_name(VIEWS_LEASE) for _ in range(2)]
    publish_bytes(store, names[0], elsewhere.body())
    publish_bytes(store, heartbeat_name(names[0]), b"")
    refused = runner.run("extract", bucket, retries=RETRIES)
    assert refused_by(refused) == f"views: by process {os.getpid()} on node-3"
    assert "if it was killed, its lease expires in " in refused.said
    assert store.listing("") == sorted([names[0], heartbeat_name(names[0])])
    publish_bytes(store, names[1], replace(elsewhere, term=0.5).body())
    for name in (names[0], heartbeat_name(names[0])):
        store.remove(name)
    time.sleep(1.5)
    assert runner.run("extract", bucket, retries=RETRIES).status == 0
    assert contents(store) == expected


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        pytest.param(line, kind, marks=() if (line, kind) in QUICKLY_TRIED else pytest.mark.slow)
        for line in ("PUT ", "GET ", "DELETE ")
        for kind in ("lost", "503", "reset")
    ],
)
def test_a_fault_at_a_claim_makes_neither_a_second_one_nor_leaves_it(
    cache: Cache, proxy: FaultProxy, kind: FaultKind, line: str
) -> None:
    proxy.arm(Fault(kind=kind, last=2, matching=line))
    with leased(cache, VIEWS_LEASE, "views") as lease:
        assert [claim.name for claim in list_claims(cache.store)] == [lease.cache.store.claim]
        with pytest.raises(BusyError), leased(cache, VIEWS_LEASE, "views"):
            pass
    assert proxy.struck
    proxy.arm()
    assert cache.store.listing("") == []


def test_a_listing_with_a_flipped_bit_ends_nobodys_claim(cache: Cache, proxy: FaultProxy) -> None:
    there = replace(this_process(VIEWS_LEASE, "views"), host="node-3", machine="another")
    name = claim_name(VIEWS_LEASE)
    publish_bytes(cache.store, name, there.body())
    for _ in range(3):
        proxy.arm(Fault(kind="flip", last=1, matching="prefix="))
        with pytest.raises((BusyError, StorageError)), leased(cache, VIEWS_LEASE, "views"):
            pass
    proxy.arm()
    assert cache.store.listing("") == [name]


def test_heartbeats_go_on_through_an_outage_and_a_lease_that_was_lost_is_told(cache: Cache, proxy: FaultProxy) -> None:
    with leased(cache, teacher_lease("a"), "extract a", Timing(interval=0.1)) as lease:
        proxy.arm(Fault(kind="reset", last=12, matching=".alive"))
        until = time.monotonic() + 60
        while not cache.store.exists(heartbeat_name(lease.cache.store.claim)):
            assert time.monotonic() < until
            time.sleep(0.05)
        publish_group(lease.cache.store, "views", {"a": 1})
        cache.store.remove(lease.cache.store.claim)
        with pytest.raises(StorageError, match="is gone: the lease of this run expired"):
            publish_group(lease.cache.store, "views", {"a": 2})
    proxy.arm()
    assert cache.attributes("views") == {"a": 1}
    assert claims_left(cache.store.uri) == []
