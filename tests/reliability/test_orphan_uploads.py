"""`gc` finds unfinished uploads that a killed writer left in this cache on S3, and aborts them with --delete."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from disturbed_runs import HERE
from fault_proxy import Fault, FaultProxy

from pipeline.__main__ import main
from storage_schemas.objects.pending_uploads import abort_upload, pending_uploads
from storage_schemas.objects.store import Store

NAME = "features.zarr/views/low-128/pixels/c/9/0/0/0"
WRITER = """
import sys, time
from storage_schemas.objects.s3_upload import s3_upload
from storage_schemas.objects.store import Store
store = Store(uri=sys.argv[1])
with s3_upload(store.filesystem, store.path(sys.argv[2]), store.retries, 5 * 2**20) as upload:
    for _ in range(2):
        upload.writelines([bytes(5 * 2**20)])  # the second waits until the first has arrived
    print("sent", flush=True)
    time.sleep(600)
"""


def kill_writer(uri: str) -> None:
    """Write an object in a process that is killed when some of its parts have arrived."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, uri, NAME], stdout=subprocess.PIPE, cwd=HERE.parents[1])
    assert process.stdout is not None
    assert process.stdout.readline() == b"sent\n"
    process.kill()
    process.communicate()


def begin(uri: str, name: str = NAME) -> dict[str, str]:
    """Begin an upload, and return its identifier."""
    store = Store(uri=uri)
    bucket, _, key = store.path(name).partition("/")
    begun = store.filesystem.call_s3("create_multipart_upload", Bucket=bucket, Key=key)
    return {"Bucket": bucket, "Key": key, "UploadId": begun["UploadId"]}


@pytest.fixture
def orphaned(cached: tuple[str, list[str]], proxy: FaultProxy) -> Iterator[str]:
    """A cache with an upload of a killed writer, and one beside it whose name begins with this one's name."""
    kill_writer(cached[0])
    begin(f"{cached[0]}-too")
    yield cached[0]
    proxy.arm()
    for store in (Store(uri=uri) for uri in (cached[0], f"{cached[0]}-too")):
        for upload in pending_uploads(store):
            abort_upload(store, upload)


def gc(capsys: pytest.CaptureFixture[str], uri: str, *more: str) -> str:
    assert main(["gc", "--cache", uri, *more]) == 0
    return capsys.readouterr().out


def test_the_upload_of_a_killed_writer_is_found_when_it_is_old_and_taken_back_when_told(
    orphaned: str, capsys: pytest.CaptureFixture[str], proxy: FaultProxy
) -> None:
    [upload] = pending_uploads(Store(uri=orphaned))
    assert upload.name == NAME
    assert abs(datetime.now(UTC) - upload.begun) < timedelta(minutes=10)
    nothing = "gc: 0 objects, 0 B, can be deleted; nothing is deleted without --delete\n"
    assert gc(capsys, orphaned) == nothing, "it may be that of a running writer"
    found = f"  {NAME}: an upload that began at {upload.begun:%Y-%m-%d %H:%M} and never ended\n"
    counted = "gc: 0 objects, 0 B, and 1 unfinished uploads, "
    dry = gc(capsys, orphaned, "--uploads-older-than", "0")
    assert dry == f"{found}{counted}can be deleted; nothing is deleted without --delete\n"
    assert pending_uploads(Store(uri=orphaned)) == [upload]
    proxy.arm(*(Fault(kind="lost", first=n, last=n, matching="uploadId=") for n in (1, 2)))
    assert gc(capsys, orphaned, "--uploads-older-than", "0", "--delete") == f"{found}{counted}deleted\n"
    assert proxy.struck
    proxy.arm()
    assert pending_uploads(Store(uri=orphaned)) == []
    assert [upload.name for upload in pending_uploads(Store(uri=f"{orphaned}-too"))] == [NAME], (
        "another cache's is not ours"
    )
    assert not Store(uri=orphaned).exists(NAME)


def test_an_upload_outside_a_caches_own_folders_is_not_ours(bucket: str) -> None:
    begun = begin(bucket, "elsewhere/features.zarr/object")
    assert pending_uploads(Store(uri=bucket)) == []
    assert pending_uploads(Store(uri=bucket.rpartition("/")[0])) == []
    [inside] = pending_uploads(Store(uri=f"{bucket}/elsewhere"))
    assert inside.number == begun["UploadId"]
    abort_upload(Store(uri=f"{bucket}/elsewhere"), inside)


def test_pages_of_uploads_are_turned_until_the_last(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store, names = Store(uri=bucket), [f"features.zarr/{number}" for number in range(5)]
    for name in names:
        begin(bucket, name)
    plain = type(store.filesystem)._call_s3

    async def in_pages(self: object, method: str, *arguments: object, **settings: object) -> object:
        pages = {"MaxUploads": 2} if method == "list_multipart_uploads" else {}
        return await plain(self, method, *arguments, **settings, **pages)

    monkeypatch.setattr(type(store.filesystem), "_call_s3", in_pages)
    found = pending_uploads(store)
    assert [upload.name for upload in found] == names
    for upload in found:
        abort_upload(store, upload)
        abort_upload(store, upload)  # as where the first answer was lost
    assert pending_uploads(store) == []


def test_a_folder_has_no_uploads(tmp_path: object) -> None:
    assert pending_uploads(Store(uri=str(tmp_path))) == []
