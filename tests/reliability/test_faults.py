"""Small runs through faults at every request end in the same bytes, at once or resumed after one message."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from disturbed_runs import (
    FEW_RETRIES,
    HERE,
    RETRIES,
    SECONDS,
    Ended,
    Runner,
    Weathered,
    contents,
    faults,
    require_one_message,
    require_whole_commits,
    weather,
    weights,
)
from fault_proxy import Fault, FaultKind, FaultProxy
from swift_server import Server

from pipeline.config import RunConfig
from pipeline.export.options import ExportOptions
from pipeline.export.stage import export_cache, plan_export
from storage_schemas.cache import Cache
from storage_schemas.objects.retry_policy import RetryPolicy
from storage_schemas.objects.store import Store

KINDS: tuple[FaultKind, ...] = ("500", "503", "slowdown", "reset", "cut", "stall", "slow", "flip", "lost")
APART = 6
"""Requests from one fault to the next in the sweep, so that each fault meets a run that goes well."""
OUTAGES_APART = 10
"""Requests from the start of one outage to the start of the next."""


def test_a_cache_on_s3_has_the_bytes_of_one_in_a_folder_and_teaches_the_same_student(
    cached: tuple[str, list[str]], runner: Runner, proxy: FaultProxy, undisturbed: Path, expected: dict, tmp_path: Path
) -> None:
    uri, requests = cached
    assert contents(Store(uri=uri)) == expected
    by_the_clock = [request for request in requests if "/leases/" in request]  # heartbeats
    assert (
        len(requests) - len(by_the_clock) < 280
    )  # some 40 of them for heads of commit logs, as many for any number of shards
    proxy.arm()
    assert runner.run("train", uri, folder=str(tmp_path / "run"), retries=RETRIES).status == 0
    assert weights(tmp_path / "run") == weights(undisturbed / "run")


def check_extract(runner: Runner, proxy: FaultProxy, uri: str, plan: Sequence[Fault], expected: dict) -> Weathered:
    """Extract through passing faults: the run completes, or stops in one message and is resumed."""
    seen = weather(runner, proxy, "extract", uri, plan)
    assert contents(Store(uri=uri)) == expected
    return seen


def test_an_extract_outlives_faults_of_every_kind(
    runner: Runner, proxy: FaultProxy, bucket: str, expected: dict
) -> None:
    assert check_extract(runner, proxy, bucket, list(faults(range(3, 300, 9), KINDS)), expected).struck > 20


def test_lost_answers_to_every_commit_change_nothing(
    runner: Runner, proxy: FaultProxy, bucket: str, expected: dict
) -> None:
    committed = "PUT /" + bucket.removeprefix("s3://") + "/tables/shards/"
    # each commit's answer is lost twice: aiohttp itself repeats a PUT, once
    plan = [Fault(kind="lost", first=n, last=n + 1, matching=committed) for n in (1, 3, 5, 7)]
    proxy.arm(*plan)
    ended = runner.run("extract", bucket, retries=RETRIES)
    assert (ended.status, len(proxy.struck)) == (0, 8), ended.said
    looks = [line for line in proxy.requests if line.startswith("HEAD") and line.endswith(".parquet")]
    assert len(looks) == 4, "each was looked for, found, and not written again"
    proxy.arm()
    assert contents(Store(uri=bucket)) == expected


def test_an_export_from_s3_and_to_it_outlives_faults(
    cached: tuple[str, list[str]], proxy: FaultProxy, bucket: str, undisturbed: Path, tmp_path: Path
) -> None:
    retries, local = RetryPolicy(outage=60.0, silence=10.0, first_wait=0.02), undisturbed / "cache"
    ends = {
        "down": (cached[0], str(tmp_path / "down")),
        "up": (str(local), bucket),
        "beside": (str(local), str(tmp_path / "b")),
    }
    held = {}
    for name, (source, target) in ends.items():
        options = ExportOptions(cache=source, to=target, encoding="int8", rows_per_shard=2)
        caches = [Cache(store=Store(uri=uri, retries=retries)) for uri in (source, target)]
        proxy.arm(*faults(range(3, 300, 9), ("500", "slowdown", "reset", "cut", "lost")))
        export_cache(plan_export(*caches, options), RunConfig(executor="local"), str)
        assert len(proxy.struck) > 3 or name == "beside"
        proxy.arm()
        held[name] = contents(caches[1].store)
    assert held["down"] == held["up"] == held["beside"]


def check_outage(runner: Runner, proxy: FaultProxy, uri: str, kind: FaultKind, number: int, expected: dict) -> None:
    """Extract into an outage that begins at a request: one message, whole commits, and a second run completes."""
    proxy.arm(Fault(kind=kind, first=number))
    ended = runner.run("extract", uri, retries=FEW_RETRIES)
    require_one_message(ended)
    assert "run the same command again when this is fixed: it resumes" in ended.said
    proxy.arm()
    require_whole_commits(Store(uri=uri))
    again = runner.run("extract", uri, retries=RETRIES)
    assert again.status == 0, again.said
    assert contents(Store(uri=uri)) == expected


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "number"), [("reset", 130), ("503", 60)])
def test_an_extract_that_meets_an_outage_ends_in_one_message_and_is_taken_up_again(
    runner: Runner, proxy: FaultProxy, bucket: str, kind: FaultKind, number: int, expected: dict
) -> None:
    check_outage(runner, proxy, bucket, kind, number, expected)


def test_training_outlives_faults_of_every_kind(
    cached: tuple[str, list[str]], runner: Runner, proxy: FaultProxy, undisturbed: Path, tmp_path: Path
) -> None:
    plan = list(faults(range(2, 200, 9), KINDS))
    assert weather(runner, proxy, "train", cached[0], plan, folder=str(tmp_path / "run")).struck >= 9
    assert weights(tmp_path / "run") == weights(undisturbed / "run")


def test_training_that_meets_an_outage_ends_in_one_message_and_goes_on(
    cached: tuple[str, list[str]], runner: Runner, proxy: FaultProxy, undisturbed: Path, tmp_path: Path
) -> None:
    proxy.arm(Fault(kind="reset", first=70))
    ended = runner.run("train", cached[0], folder=str(tmp_path / "run"), retries=FEW_RETRIES)
    require_one_message(ended)
    proxy.arm()
    assert runner.run("train", cached[0], folder=str(tmp_path / "run"), retries=RETRIES).status == 0
    assert weights(tmp_path / "run") == weights(undisturbed / "run")


def plans(requests: Sequence[str], kind: FaultKind) -> Iterator[list[Fault]]:
    """Plan runs in which, all together, every request of an undisturbed one fails once: each by its line and count."""
    numbered = [(line, requests[: place + 1].count(line)) for place, line in enumerate(requests)]
    for first in range(APART):
        yield [
            Fault(kind=kind, first=count, last=count, exactly=line, seconds=SECONDS.get(kind, 0))
            for line, count in numbered[first::APART]
        ]


def told(kind: FaultKind, requests: int, seen: Sequence[Weathered]) -> None:
    """Check that no request was left out, and print what docs/reliability.md says (`pytest -rP`)."""
    struck, runs = sum(outcome.struck for outcome in seen), sum(outcome.runs for outcome in seen)
    print(f"{kind}: {struck} faults at {requests} requests, {len(seen)} runs, taken up again {runs - len(seen)} times")
    # a run that resumes need not make every request of the undisturbed run
    assert struck == requests or (runs > len(seen) and struck >= 0.95 * requests)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", KINDS)
def test_every_request_of_an_extract_may_fail(
    cached: tuple[str, list[str]], runner: Runner, proxy: FaultProxy, bucket: str, kind: FaultKind, expected: dict
) -> None:
    seen = []
    for number, plan in enumerate(plans(cached[1], kind)):
        uri = f"{bucket}-{number}"
        moved = [replace(fault, exactly=fault.exactly.replace("cached", uri.rpartition("/")[2])) for fault in plan]
        seen.append(check_extract(runner, proxy, uri, moved, expected))
    told(kind, len(cached[1]), seen)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", ["503", "reset", "stall"])
def test_an_outage_may_begin_anywhere(
    cached: tuple[str, list[str]], runner: Runner, proxy: FaultProxy, bucket: str, kind: FaultKind, expected: dict
) -> None:
    for number in range(1, len(cached[1]), OUTAGES_APART):
        check_outage(runner, proxy, f"{bucket}-{number}", kind, number, expected)
    print(f"{kind}: outages from {len(range(1, len(cached[1]), OUTAGES_APART))} of {len(cached[1])} requests on")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", KINDS)
def test_every_request_of_a_training_run_may_fail(
    cached: tuple[str, list[str]],
    runner: Runner,
    proxy: FaultProxy,
    undisturbed: Path,
    tmp_path: Path,
    kind: FaultKind,
) -> None:
    proxy.arm()
    assert runner.run("train", cached[0], folder=str(tmp_path / "peace"), retries=RETRIES).status == 0
    requests, seen = list(proxy.requests), []
    for number, plan in enumerate(plans(requests, kind)):
        folder = tmp_path / str(number)
        seen.append(weather(runner, proxy, "train", cached[0], plan, folder=str(folder)))
        assert weights(folder) == weights(undisturbed / "run")
    told(kind, len(requests), seen)


@pytest.mark.slow
def test_an_outage_ends_a_command_within_two_minutes(
    cached: tuple[str, list[str]], swift: Server, proxy: FaultProxy
) -> None:
    proxy.arm(Fault(kind="reset", first=5))
    environment = os.environ | swift.variables(proxy.endpoint) | {"PYTHONPATH": str(HERE.parents[1])}
    command = [sys.executable, "-m", "pipeline", "verify", "--cache", cached[0], "--run.executor", "local"]
    began = time.monotonic()
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert 55 < time.monotonic() - began < 115
    require_one_message(Ended(status=ended.returncode, said=ended.stderr))
