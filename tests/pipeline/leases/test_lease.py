"""Leases: one run at a time writes one thing; a second run is told who the first is; a dead run blocks nobody."""

import errno
import fcntl
import itertools
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.leases.claim import Owner, parse_owner, this_process
from pipeline.leases.lease import VIEWS_LEASE, WHOLE_LEASE, leased, list_claims, teacher_lease
from pipeline.leases.names import LEASES, claim_name, heartbeat_name
from pipeline.leases.object_claims import Timing
from storage_schemas.cache import Cache
from storage_schemas.format.errors import BusyError, CorruptionError, StorageError
from storage_schemas.objects.publish import publish_bytes, publish_group
from storage_schemas.objects.store import Store

NUMBERS = itertools.count()
ELSEWHERE = {"host": "node-3", "machine": "another"}
"""An owner on another machine."""


@pytest.fixture
def memory() -> Cache:
    """An empty cache that is no folder."""
    return Cache(store=Store(uri=f"memory://leased-{next(NUMBERS)}"))


@pytest.fixture
def folder(tmp_path: Path) -> Cache:
    """An empty cache in a folder that is not there yet."""
    return Cache(store=Store(uri=str(tmp_path / "new" / "cache")))


@pytest.fixture(params=["folder", "memory"])
def cache(request: pytest.FixtureRequest) -> Cache:
    """An empty cache of each kind."""
    return request.getfixturevalue(request.param)


def refusal(cache: Cache, lease: str) -> str:
    """The message of a run that is refused a lease."""
    with pytest.raises(BusyError) as caught, leased(cache, lease, "second"):
        pass
    return str(caught.value)


def claim(cache: Cache, owner: Owner) -> str:
    """Write an owner's claim as an object, and return its name."""
    name = claim_name(owner.lease)
    publish_bytes(cache.store, name, owner.body())
    return name


def test_a_lease_is_owned_until_its_block_ends_and_leaves_nothing(cache: Cache) -> None:
    for _ in range(2):
        with leased(cache, VIEWS_LEASE, "views") as lease:
            [only] = list_claims(cache.store)
            assert (only.lease, only.stale, only.name) == (VIEWS_LEASE, False, lease.cache.store.claim)
            publish_bytes(lease.cache.store, "a", b"1")
        assert list_claims(cache.store) == []
        assert cache.store.listing("") == ["a"]
    if cache.store.is_local:
        assert os.listdir(cache.store.path("")) == ["a"]


def test_a_lease_ends_with_an_error_too(cache: Cache) -> None:
    with pytest.raises(ZeroDivisionError), leased(cache, VIEWS_LEASE, "views"):
        raise ZeroDivisionError
    assert cache.store.listing("") == []


@pytest.mark.parametrize(("first", "second"), [("views", "views"), ("views", "cache"), ("cache", "teachers/a")])
def test_the_second_run_is_told_who_the_first_is_and_leaves_it_in_peace(cache: Cache, first: str, second: str) -> None:
    with leased(cache, first, "the first") as lease:
        message = refusal(cache, second)
        assert [claim.name for claim in list_claims(cache.store)] == [lease.cache.store.claim]
    when = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"
    alive, fix = "running now", "wait until it ends, or stop it: its lease ends with its process"
    if not cache.store.is_local:
        alive = f"last heartbeat {when} by the store's clock"
        fix = "wait until it ends, or stop it; if it was killed, its lease expires in 120 s"
    who = f"process {os.getpid()} on {re.escape(socket.gethostname())} \\(the first\\)"
    place = re.escape(cache.store.uri)
    assert re.fullmatch(
        rf"cache {place} is being written:\n  {first}: by {who}, since {when}, {alive} \({fix}\)", message
    ), message
    with leased(cache, second, "the second"):
        pass


def test_two_teachers_and_the_views_go_together_and_maps_of_one_forward_do_not(cache: Cache) -> None:
    with (
        leased(cache, VIEWS_LEASE, "views"),
        leased(cache, teacher_lease("dinov3"), "extract dinov3"),
        leased(cache, teacher_lease("sam3"), "extract sam3"),
    ):
        assert re.findall(r"\n  (\S+): by ", refusal(cache, teacher_lease("dinov3-block7"))) == ["teachers/dinov3"]
        named = re.findall(r"\n  (\S+): by ", refusal(cache, WHOLE_LEASE))
        assert sorted(named) == ["teachers/dinov3", "teachers/sam3", "views"]
        assert len(list_claims(cache.store)) == 3


def test_what_counts_is_not_written_once_the_claim_is_gone(cache: Cache) -> None:
    with leased(cache, VIEWS_LEASE, "views") as lease:
        publish_group(lease.cache.store, "views", {"a": 1})
        cache.store.remove(lease.cache.store.claim)
        with pytest.raises(StorageError) as caught:
            publish_group(lease.cache.store, "views", {"a": 2})
    found = "is gone: the lease of this run expired, and another run may have begun; this run stops here"
    place = f"{cache.store.uri}/{lease.cache.store.claim}"
    assert str(caught.value) == f"lease failed:\n  {place}: {found} (run the same command again: it resumes)"
    assert cache.attributes("views") == {"a": 1}


def of_a_dead_process(lease: str) -> Owner:
    """An owner on this machine that has ended."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    owner = replace(this_process(lease, "extract dinov3"), process=child)
    assert owner.is_gone, "it counts as ended before anyone asked how it ended"
    os.waitpid(child, 0)
    return owner


def test_a_process_is_known_by_its_number_and_its_start_on_its_machine_alone() -> None:
    here = this_process("views", "views")
    assert not here.is_gone
    assert replace(here, started=here.started - 1).is_gone, "its number was given to another"
    gone = of_a_dead_process("views")
    assert gone.is_gone
    assert not replace(gone, machine="another").is_gone
    assert not replace(gone, machine="").is_gone


def test_a_process_that_the_system_hides_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    here = this_process("views", "views")
    gone = of_a_dead_process("views")
    real = open

    def hidden(path: str, *more: str) -> object:
        if path.endswith("/stat"):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return real(path, *more)

    monkeypatch.setattr("builtins.open", hidden)
    assert not here.is_gone
    assert gone.is_gone


def test_the_claim_of_a_killed_run_in_a_folder_blocks_nobody(folder: Cache) -> None:
    child = os.fork()
    if child == 0:
        with leased(folder, VIEWS_LEASE, "views"):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    [left] = list_claims(folder.store)
    assert left.stale
    assert left.owner is not None
    assert left.owner.process == child
    with leased(folder, WHOLE_LEASE, "gc") as lease:
        assert lease.cleared == (left.name,)
    assert folder.store.listing("") == []


def test_a_claim_on_objects_whose_process_has_ended_on_this_machine_is_cleared_at_once(memory: Cache) -> None:
    left = claim(memory, of_a_dead_process("views"))
    publish_bytes(memory.store, heartbeat_name(left), b"")
    orphan = heartbeat_name(claim_name("views"))
    publish_bytes(memory.store, orphan, b"")
    with leased(memory, VIEWS_LEASE, "views") as lease:
        assert sorted(lease.cleared) == sorted([left, orphan])
        assert memory.store.listing("") == [lease.cache.store.claim]


def test_a_stale_claim_on_another_lease_is_cleared_too(memory: Cache) -> None:
    left = claim(memory, of_a_dead_process("views"))
    held = claim(memory, this_process("views", "views"))
    with leased(memory, teacher_lease("a"), "extract a") as lease:
        assert lease.cleared == (left,)
    assert memory.store.listing("") == [held]


def age(cache: Cache, name: str, seconds: float) -> None:
    """Have an object in memory written so much earlier."""
    cache.store.filesystem.store[cache.store.path(name)].created -= timedelta(seconds=seconds)


def test_an_owner_elsewhere_blocks_until_its_last_heartbeat_is_too_old(memory: Cache) -> None:
    name = claim(memory, replace(this_process("views", "views"), **ELSEWHERE))
    age(memory, name, 500)
    publish_bytes(memory.store, heartbeat_name(name), b"")
    age(memory, heartbeat_name(name), 90)
    message = refusal(memory, "views")
    assert "on node-3 (views), since " in message
    assert "its lease expires in 30 s" in message
    age(memory, heartbeat_name(name), 40)
    with leased(memory, VIEWS_LEASE, "views") as lease:
        assert lease.cleared == (name,)


def test_heartbeats_are_sent_until_the_end(memory: Cache) -> None:
    with leased(memory, VIEWS_LEASE, "views", Timing(interval=0.05)) as lease:
        name = lease.cache.store.claim
        age(memory, name, 500)
        until = time.monotonic() + 60
        while not memory.store.exists(heartbeat_name(name)):
            assert time.monotonic() < until
            time.sleep(0.01)
        assert "its lease expires in 1" in refusal(memory, VIEWS_LEASE)
    assert memory.store.listing("") == []


def test_a_run_whose_claim_expired_is_cleared_and_writes_nothing_more(memory: Cache) -> None:
    with leased(memory, VIEWS_LEASE, "views") as first:
        age(memory, first.cache.store.claim, 121)
        with leased(memory, VIEWS_LEASE, "views") as second:
            publish_group(second.cache.store, "views", {"a": 1})
            with pytest.raises(StorageError, match="is gone: the lease of this run expired"):
                publish_group(first.cache.store, "views", {"a": 2})
    assert memory.attributes("views") == {"a": 1}


def owners_at_once(cache: Cache, threads: int) -> int:
    """Begin many runs at once, and return how many got the lease; none of them ends before all have tried."""
    start, tried, owned = threading.Barrier(threads), threading.Barrier(threads), list[int]()

    def run() -> None:
        start.wait()
        try:
            with leased(cache, VIEWS_LEASE, "views"):
                owned.append(1)
                tried.wait()
        except BusyError:
            tried.wait()

    runs = [threading.Thread(target=run) for _ in range(threads)]
    for thread in runs:
        thread.start()
    for thread in runs:
        thread.join()
    return len(owned)


def test_of_many_that_begin_at_once_one_gets_the_lease(cache: Cache) -> None:
    assert [owners_at_once(cache, 4) for _ in range(5)] == [1] * 5
    assert cache.store.listing("") == []


def younger_rival(cache: Cache) -> str:
    """Write the claim of a living rival that is younger than any claim of the next minute."""
    name = claim(cache, this_process(VIEWS_LEASE, "views"))
    age(cache, name, -60)
    return name


def test_the_older_of_two_waits_until_the_younger_withdraws(memory: Cache) -> None:
    rival = younger_rival(memory)
    threading.Timer(0.5, memory.store.remove, [rival]).start()
    with leased(memory, VIEWS_LEASE, "views") as lease:
        assert memory.store.listing("") == [lease.cache.store.claim]


def test_the_older_of_two_is_refused_when_the_younger_never_withdraws(
    memory: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    rival = younger_rival(memory)
    monkeypatch.setattr("pipeline.leases.object_claims.SETTLE_SECONDS", 0.3)
    assert f"views: by process {os.getpid()} on " in refusal(memory, VIEWS_LEASE)
    assert memory.store.listing("") == [rival]


def test_many_runs_begin_and_end_under_one_mutex(folder: Cache) -> None:
    failed: list[BaseException] = []

    def run(number: int) -> None:
        try:
            for _ in range(15):
                with leased(folder, teacher_lease(f"t{number}"), "extract"):
                    pass
        except BaseException as error:
            failed.append(error)

    runs = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in runs:
        thread.start()
    for thread in runs:
        thread.join()
    assert failed == []
    assert folder.store.listing("") == []


def test_a_folder_that_goes_as_it_is_made_is_made_again(folder: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    made, makedirs, leases = list[str](), os.makedirs, folder.store.path(LEASES)

    def there_then_gone(path: str, exist_ok: bool = False) -> None:
        made.append(path)
        if made == [leases]:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)  # as makedirs does in that case
        makedirs(path, exist_ok=exist_ok)

    monkeypatch.setattr(os, "makedirs", there_then_gone)
    with leased(folder, VIEWS_LEASE, "views"):
        assert made.count(leases) == 2
    assert folder.store.listing("") == []


def test_a_file_where_leases_belong_is_refused_at_once(folder: Cache) -> None:
    publish_bytes(folder.store, LEASES, b"not a folder")
    message = "leases/door: cannot be written: File exists"
    with pytest.raises(StorageError, match=message), leased(folder, VIEWS_LEASE, "views"):
        pass


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "spoil", [lambda body: body[:-9], lambda body: body.replace(b"views", b"viewz"), lambda _: b"[]"]
)
def test_a_claim_that_cannot_be_read_is_refused_by_its_name(memory: Cache, spoil: Callable[[bytes], bytes]) -> None:
    body = spoil(replace(this_process("views", "views"), **ELSEWHERE).body())
    name = claim_name("views")
    publish_bytes(memory.store, name, body)
    with pytest.raises(CorruptionError, match=re.escape(name)), leased(memory, "views", "views"):
        pass
    with pytest.raises(CorruptionError, match=re.escape(name)):
        parse_owner(body, name)


def test_a_file_system_without_locks_is_refused(folder: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    def lockless(*_: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", lockless)
    with pytest.raises(StorageError, match="door: cannot be locked: No locks available"), leased(folder, "views", "v"):
        pass


def test_a_store_that_does_not_list_what_was_written_is_refused(memory: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "times", lambda *_: {})
    monkeypatch.setattr("pipeline.leases.object_claims.SETTLE_SECONDS", 0.1)
    with pytest.raises(StorageError, match=r"\.claim: was written and is not listed"), leased(memory, "views", "v"):
        pass
    assert memory.store.listing("") == []
