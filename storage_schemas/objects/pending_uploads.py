"""Multipart uploads to S3 that were begun and never ended.

A killed writer leaves them, no listing of objects shows them, and their parts are paid for. A file system has nothing
like them but temporary files, which are objects.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, final

from botocore.exceptions import BotoCoreError, ClientError
from fsspec.asyn import AsyncFileSystem

from storage_schemas.format.errors import StorageError
from storage_schemas.format.layout import FEATURES
from storage_schemas.objects.persist import answer_of
from storage_schemas.objects.store import Store

UNKNOWN = frozenset({405, 501})
"""HTTP statuses of a server that does not know a request."""
UNKNOWN_CODES = frozenset({"MethodNotAllowed", "NotImplemented"})
"""The same, as error codes of S3."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PendingUpload:
    """One upload that is in progress, or was left."""

    name: str
    """The object that it was to become, relative to the cache."""
    number: str
    """The upload's number in the store."""
    begun: datetime
    """When it was begun, by the clock of the store."""


def pending_uploads(store: Store) -> list[PendingUpload] | None:
    """Return unfinished uploads to a cache's own folders, sorted by name; none where the store is not S3.

    Returns:
        The uploads; None where the server does not list them, as some that speak S3 do not.

    Raises:
        StorageError: the store fails, or refuses access.
    """
    filesystem = store.filesystem
    if not isinstance(filesystem, AsyncFileSystem) or "s3" not in filesystem.protocol:
        return []
    try:
        found = [upload for folder in (FEATURES, "tables") for upload in _below(store, folder)]
    except (OSError, StorageError, BotoCoreError, ClientError) as error:
        if not _is_unknown_request(error):
            raise
        return None
    return sorted(found, key=lambda upload: (upload.name, upload.number))


def abort_upload(store: Store, upload: PendingUpload) -> None:
    """Abort an upload and delete the parts that were sent. An upload that has ended meanwhile is not an error."""
    with suppress(FileNotFoundError):
        _asked(store, upload.name, "abort_multipart_upload", Key=_key(store, upload.name), UploadId=upload.number)


def _is_unknown_request(error: BaseException) -> bool:
    """Say whether a server answered that it does not know the request, whatever s3fs made of the answer."""
    raised: BaseException | None = error
    while raised is not None:
        status, code = answer_of(raised) or (0, "")
        if status in UNKNOWN or code in UNKNOWN_CODES:
            return True
        raised = raised.__cause__
    return False


def _below(store: Store, folder: str) -> Iterator[PendingUpload]:
    prefix, more = _key(store, folder) + "/", True
    marks: dict[str, str] = {}
    while more:
        page = _asked(store, folder, "list_multipart_uploads", Prefix=prefix, **marks)
        for upload in page.get("Uploads", []):
            name = f"{folder}/{upload['Key'].removeprefix(prefix)}"
            yield PendingUpload(name=name, number=upload["UploadId"], begun=upload["Initiated"])
        more = page.get("IsTruncated", False)
        marks = {"KeyMarker": page.get("NextKeyMarker", ""), "UploadIdMarker": page.get("NextUploadIdMarker", "")}


def _asked(store: Store, name: str, method: str, **settings: Any) -> Any:
    from storage_schemas.objects.remote import ask

    filesystem, bucket = store.filesystem, store.path(name).partition("/")[0]
    assert isinstance(filesystem, AsyncFileSystem)
    request = partial(filesystem._call_s3, method, Bucket=bucket, **settings)
    return ask(filesystem, request, f"{store.uri}/{name}", store.retries)


def _key(store: Store, name: str) -> str:
    return store.path(name).partition("/")[2]
