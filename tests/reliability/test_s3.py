"""Single objects over S3: whole or not at all; failed requests are tried again, and end in one message in an outage."""

import re
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import xxhash
from fault_proxy import Fault, FaultKind, FaultProxy
from swift_server import SECRET, Server

from storage_schemas.format.errors import CorruptionError, MissingError, Problem, StorageError
from storage_schemas.objects.file_systems import forget_file_systems
from storage_schemas.objects.publish import publish, publish_bytes
from storage_schemas.objects.retry_policy import RetryPolicy
from storage_schemas.objects.s3_upload import s3_upload
from storage_schemas.objects.store import Store
from storage_schemas.small_arrays import read_small_array, write_small_arrays

BODY = np.random.default_rng(0).bytes(4000)
QUICK = RetryPolicy(outage=6.0, silence=2.0, first_wait=0.02)
SECONDS = {"stall": 3.5, "slow": 1.0}
"""How long a stalled answer waits, which is longer than the client waits, and how long a slow one takes."""
KINDS: tuple[FaultKind, ...] = ("500", "503", "slowdown", "reset", "cut", "stall", "slow", "flip", "lost")
QUICKLY_TRIED = ("503", "reset", "flip", "lost")


def tried(*kinds: FaultKind | None) -> list[Any]:
    """Mark as slow the kinds that add little to the quick ones."""
    return [pytest.param(kind, marks=() if kind in (None, *QUICKLY_TRIED) else pytest.mark.slow) for kind in kinds]


every_kind = pytest.mark.parametrize("kind", tried(*KINDS))


@pytest.fixture
def store(bucket: str, proxy: FaultProxy) -> Store:
    """A store in a fresh bucket, with two objects; the proxy counts requests from then on."""
    patient = Store(uri=f"{bucket}/cache")
    publish_bytes(patient, "a/b.bin", BODY)
    publish_bytes(patient, "a/c.bin", b"")
    quick = replace(patient, retries=QUICK)
    assert quick.exists("a/b.bin"), "its client is made by now, which takes a busy machine as long as it waits"
    proxy.arm()
    return quick


def checked_body(body: bytes, name: str) -> bytes:
    """Refuse a body that is not BODY, as every reader of ours refuses what fails its check."""
    if body != BODY:
        raise CorruptionError("object", [Problem(place=name, found="is not as it was")])
    return body


def test_objects_are_written_read_and_listed(store: Store) -> None:
    assert store.read_many(["a/c.bin", "a/b.bin"]) == [b"", BODY]
    assert store.read_ranges("a/b.bin", [(3900, 4000), (0, 1), (7, 7)]) == [BODY[3900:], BODY[:1], b""]
    assert [store.size(name) for name in ("a/b.bin", "a/d.bin")] == [4000, None]
    assert [store.exists(name) for name in ("a/b.bin", "a", "a/d.bin")] == [True, True, False]
    assert (store.listing("a"), store.listing("none")) == (["a/b.bin", "a/c.bin"], [])
    assert (store.children(""), store.children("a"), store.children("none")) == (["a"], ["b.bin", "c.bin"], [])


def test_an_object_costs_one_request_to_write_and_one_to_read(store: Store, proxy: FaultProxy) -> None:
    publish_bytes(store, "x", BODY)
    store.read("x")
    store.read_ranges("x", [(0, 5)])
    assert [line.split()[0] for line in proxy.requests] == ["PUT", "GET", "GET"]


def test_what_is_missing_or_too_short_is_said_as_of_a_folder(store: Store) -> None:
    with pytest.raises(MissingError, match=r"s3://tests/\d+/cache/a/d.bin: is not there"):
        store.read("a/d.bin")
    for span in ((3999, 4001), (4000, 4001), (5000, 5001)):
        with pytest.raises(CorruptionError, match=f"a/b.bin: ends within bytes {span[0]} to {span[1]}"):
            store.read_ranges("a/b.bin", [span])


@every_kind
@pytest.mark.parametrize(
    "ask",
    [
        lambda store: store.read_parsed(["a/b.bin"], checked_body) == [BODY],
        lambda store: store.checked(lambda: checked_body(store.read_ranges("a/b.bin", [(0, 4000)])[0], "a")) == BODY,
        lambda store: store.size("a/b.bin") == 4000,
    ],
    ids=["whole", "range", "size"],
)
def test_a_read_outlives_a_fault(
    store: Store, proxy: FaultProxy, kind: FaultKind, ask: Callable[[Store], bool]
) -> None:
    proxy.arm(Fault(kind=kind, last=2 if kind in ("500", "503", "slowdown") else 1, seconds=SECONDS.get(kind, 0.0)))
    assert ask(store)
    assert proxy.struck


# without flipped bits: a listing has no checksum, and an object that it hides counts as missing
@pytest.mark.parametrize("kind", tried(*(kind for kind in KINDS if kind != "flip")))
def test_a_listing_outlives_a_fault(store: Store, proxy: FaultProxy, kind: FaultKind) -> None:
    proxy.arm(Fault(kind=kind, last=1, seconds=SECONDS.get(kind, 0.0)))
    assert store.listing("a") == ["a/b.bin", "a/c.bin"]
    proxy.arm(Fault(kind=kind, last=1, seconds=SECONDS.get(kind, 0.0)))
    assert store.children("a") == ["b.bin", "c.bin"]
    assert proxy.struck


@every_kind
def test_a_write_outlives_a_fault_and_is_made_once(store: Store, proxy: FaultProxy, kind: FaultKind) -> None:
    struck = 2 if kind in ("reset", "lost") else 1  # aiohttp itself repeats a PUT that met a reset, once
    proxy.arm(Fault(kind=kind, last=struck, seconds=SECONDS.get(kind, 0.0)))
    publish_bytes(store, "x", BODY)
    methods = " ".join(line.split()[0] for line in proxy.requests)
    expected = {"reset": "PUT PUT HEAD PUT", "lost": "PUT PUT HEAD", "stall": "PUT HEAD"}
    expected |= dict.fromkeys(("500", "503", "slowdown"), "PUT HEAD PUT") | {"flip": "PUT PUT"}
    assert methods == expected.get(kind, "PUT")
    proxy.arm()
    assert store.read("x") == BODY


@pytest.mark.parametrize("kind", ["503", "reset", "lost"])
def test_a_deletion_outlives_a_fault(store: Store, proxy: FaultProxy, kind: FaultKind) -> None:
    proxy.arm(Fault(kind=kind, last=1))
    store.remove("a/b.bin")
    assert proxy.struck
    assert (store.size("a/b.bin"), store.listing("a")) == (None, ["a/c.bin"])
    store.remove("a/b.bin")


def test_an_upload_of_others_is_not_taken_for_ours(store: Store, proxy: FaultProxy) -> None:
    publish_bytes(store, "x", b"theirs")
    proxy.arm(Fault(kind="reset", last=2))
    publish_bytes(store, "x", BODY)
    assert [line.split()[0] for line in proxy.requests] == ["PUT", "PUT", "HEAD", "PUT"]
    assert store.read("x") == BODY


def write_large(store: Store, body: bytes) -> None:
    """Write an object in parts of 5 MiB, the smallest that S3 takes."""
    with s3_upload(store.filesystem, store.path("large"), store.retries, 5 * 2**20) as upload:
        for start in range(0, len(body), 3_000_000):
            upload.writelines([body[start : start + 3_000_000]])


LARGE = np.random.default_rng(1).bytes(12_000_000)
STEPS = {"begin": "POST", "first part": "partNumber=1", "last part": "partNumber=3", "complete": "POST"}


@pytest.mark.parametrize("kind", tried(None, "500", "slowdown", "lost"))
@pytest.mark.parametrize("step", STEPS)
def test_an_upload_in_parts_outlives_a_fault_at_each_step(
    store: Store, proxy: FaultProxy, kind: FaultKind | None, step: str
) -> None:
    number = 2 if step == "complete" else 1
    if kind is not None:
        proxy.arm(Fault(kind=kind, first=number, last=number, matching=STEPS[step]))
    write_large(store, LARGE)
    assert bool(proxy.struck) == (kind is not None)
    proxy.arm()
    assert store.read("large") == LARGE


@pytest.mark.slow
def test_a_large_object_is_sent_while_it_is_written(
    bucket: str, swift: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", swift.endpoint)  # the proxy would hold it in this process
    patient, piece, sent = Store(uri=f"{bucket}/cache"), np.random.default_rng(1).bytes(2**20), xxhash.xxh3_128()
    publish_bytes(patient, "small", piece)  # modules that the first upload loads are not counted
    tracemalloc.start()
    try:
        with publish(patient, "large") as sink:
            for _ in range(100):
                sink.write(piece)
                sent.update(piece)
        held = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    print(f"held {held / 2**20:.1f} MiB")
    assert held < 64 * 2**20
    assert patient.size("large") == 100 * 2**20
    assert sink.xxh3 == sent.hexdigest()


def test_an_upload_that_is_taken_away_ends_in_one_message(store: Store) -> None:
    def bereft() -> None:
        with s3_upload(store.filesystem, store.path("large"), store.retries, 5 * 2**20) as upload:
            upload.writelines([LARGE[: 6 * 2**20]])
            upload._settle()
            store.filesystem.call_s3("abort_multipart_upload", **uploads_of(store)[0])
            upload.writelines([LARGE[6 * 2**20 :]])

    with pytest.raises(StorageError, match="large: its multipart upload was aborted while it was in progress"):
        bereft()
    assert not store.exists("large")


def uploads_of(store: Store) -> list[dict[str, str]]:
    """Return the identifier of each unfinished upload of `large`."""
    bucket = store.path("").split("/")[0]
    found = store.filesystem.call_s3("list_multipart_uploads", Bucket=bucket).get("Uploads", [])
    uploads = [upload for upload in found if f"{bucket}/{upload['Key']}" == store.path("large")]
    return [{"Bucket": bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]} for upload in uploads]


def test_a_block_that_raises_leaves_neither_object_nor_parts(store: Store) -> None:
    def interrupted() -> None:
        with s3_upload(store.filesystem, store.path("large"), store.retries, 5 * 2**20) as upload:
            upload.writelines([LARGE])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (store.exists("large"), uploads_of(store)) == (False, [])


@pytest.mark.parametrize(
    ("kind", "last_words"),
    [
        pytest.param("500", "HTTP 500( InternalError)?", marks=pytest.mark.slow),
        pytest.param("503", "HTTP 503( ServiceUnavailable)?", marks=pytest.mark.slow),
        ("slowdown", "HTTP 503( SlowDown)?"),
        pytest.param("reset", "a broken connection", marks=pytest.mark.slow),
        pytest.param("stall", "no answer in time", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("write", [False, True], ids=["read", "write"])
def test_an_outage_ends_in_one_message_in_time(
    store: Store, proxy: FaultProxy, kind: FaultKind, last_words: str, write: bool
) -> None:
    proxy.arm(Fault(kind=kind))
    began = time.monotonic()
    ask = (lambda: publish_bytes(store, "x", BODY)) if write else (lambda: store.read_many(["a/b.bin"] * 40))
    with pytest.raises(StorageError) as refusal:
        ask()
    assert time.monotonic() - began < QUICK.outage + QUICK.silence + 2
    fix = r" \(run the same command again when this is fixed: it resumes\)"
    said = rf"storage failed:\n  {store.uri}/\S+: failed \d+ times in \d+ seconds, at last with ({last_words}){fix}"
    assert re.fullmatch(said, str(refusal.value)), refusal.value
    proxy.arm()
    assert not store.exists("x") or store.read("x") == BODY


def test_what_is_damaged_where_it_lies_is_read_again_and_refused(store: Store, proxy: FaultProxy) -> None:
    publish_bytes(store, "a/b.bin", b"rotten")
    proxy.arm()
    with pytest.raises(CorruptionError, match=r"a/b\.bin: is not as it was"):
        store.read_parsed(["a/b.bin"], checked_body)
    assert len(proxy.requests) > 3


def test_small_arrays_travel_too(store: Store) -> None:
    values = np.random.default_rng(0).standard_normal((3, 2))
    write_small_arrays(store, "g", {"rotation": values})
    np.testing.assert_array_equal(read_small_array(store, "g/rotation"), values)


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong-5e1f"}, "access is refused: HTTP 403 "),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, "access is refused: HTTP 403 "),
        ({"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, "there are no credentials"),
    ],
    ids=["wrong secret", "wrong name", "none"],
)
@pytest.mark.parametrize("write", [False, True], ids=["read", "write"])
def test_credentials_that_do_not_do_are_refused_at_once_and_never_shown(
    store: Store, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str | None], found: str, write: bool
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name, value in variables.items():
        monkeypatch.delenv(name)
        if value is not None:
            monkeypatch.setenv(name, value)
    forget_file_systems()  # they hold the credentials that they were made with
    with pytest.raises(StorageError) as refusal:
        publish_bytes(store, "x", BODY) if write else store.read("a/b.bin")
    forget_file_systems()
    said = str(refusal.value)
    assert found in said
    assert "AWS_" in said
    assert not any(secret in said for secret in (SECRET, "wrong-5e1f", "nobody", "AWS4-HMAC", "Credential="))


@pytest.mark.usefixtures("proxy")
def test_a_bucket_that_is_not_there_is_named() -> None:
    nowhere = Store(uri="s3://no-such-bucket/cache", retries=QUICK)
    for ask in (lambda: publish_bytes(nowhere, "x", BODY), lambda: nowhere.read("x"), lambda: nowhere.listing("")):
        with pytest.raises(StorageError, match=r"s3://no-such-bucket/cache\S*: there is no such bucket"):
            ask()


def test_a_write_is_not_seen_before_it_is_whole(store: Store) -> None:
    with publish(store, "x") as sink:
        sink.write(BODY)
        assert not store.exists("x")
    assert store.read("x") == BODY
