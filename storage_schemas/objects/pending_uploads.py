"""Multipart uploads to S3 that were begun and never ended.

A killed writer leaves them, no listing of objects shows them, and their parts are paid for. A file system has nothing
like them but temporary files, which are objects.
"""

from collections.abc import Awaitable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, final

from fsspec.asyn import AsyncFileSystem

from storage_schemas.format.layout import FEATURES
from storage_schemas.objects.store import Store


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PendingUpload:
    """One upload under way, or left."""

    name: str
    """The object that it would become, relative to the cache."""
    number: str
    """The store's number of the upload."""
    begun: datetime
    """When, by the store's clock."""


def pending_uploads(store: Store) -> list[PendingUpload]:
    """Return the uploads under way to a cache's own folders, sorted by name; none where the store is no S3."""
    filesystem = store.filesystem
    if not isinstance(filesystem, AsyncFileSystem) or "s3" not in filesystem.protocol:
        return []
    found = [one for folder in (FEATURES, "tables") for one in _below(store, folder)]
    return sorted(found, key=lambda one: (one.name, one.number))


def abort_upload(store: Store, upload: PendingUpload) -> None:
    """Take an upload back, and the parts that were sent. One that has ended meanwhile is no error."""
    with suppress(FileNotFoundError):
        _asked(store, upload.name, "abort_multipart_upload", Key=_key(store, upload.name), UploadId=upload.number)


def _below(store: Store, folder: str) -> Iterator[PendingUpload]:
    prefix, more = _key(store, folder) + "/", True
    marks: dict[str, str] = {}
    while more:
        page = _asked(store, folder, "list_multipart_uploads", Prefix=prefix, **marks)
        for one in page.get("Uploads", []):
            name = f"{folder}/{one['Key'].removeprefix(prefix)}"
            yield PendingUpload(name=name, number=one["UploadId"], begun=one["Initiated"])
        more = page.get("IsTruncated", False)
        marks = {"KeyMarker": page.get("NextKeyMarker", ""), "UploadIdMarker": page.get("NextUploadIdMarker", "")}


def _asked(store: Store, name: str, method: str, **settings: Any) -> Any:
    from storage_schemas.objects.remote import ask

    filesystem, bucket = store.filesystem, store.path(name).partition("/")[0]
    assert isinstance(filesystem, AsyncFileSystem)

    def request() -> Awaitable[Any]:
        return filesystem._call_s3(method, Bucket=bucket, **settings)

    return ask(filesystem, request, f"{store.uri}/{name}", store.patience)


def _key(store: Store, name: str) -> str:
    return store.path(name).partition("/")[2]
