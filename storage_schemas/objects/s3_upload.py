"""Writing one object to S3: one PUT, or a multipart upload where it is large.

Requests are made again until they succeed. Each upload has a number of its own, which is stored with the object. Where
an answer was lost, the object itself shows whether the upload was carried out.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, final

from fsspec.asyn import AsyncFileSystem

from storage_schemas.format.errors import Problem, StorageError
from storage_schemas.objects.local_files import Piece
from storage_schemas.objects.persist import is_ambiguous, persist
from storage_schemas.objects.retry_policy import RESUMES, RetryPolicy

PART_BYTES = 16 * 2**20
"""Size of every part of a multipart upload but the last (bytes). S3 takes parts of 5 MiB or more, and 10,000 of
them."""
MARK = "stillhouse-upload"
"""Name of the object's metadata that holds the number of the upload."""
GONE = "its multipart upload was aborted while it was in progress"
GIVE_UP = RetryPolicy(outage=5.0, silence=5.0)
"""A failed upload is aborted, but only for a short while: `gc` finds what is left of it."""


@contextmanager
def s3_upload(
    filesystem: AsyncFileSystem, path: str, retries: RetryPolicy, part_bytes: int = PART_BYTES
) -> Iterator["S3Upload"]:
    """Upload what is written in the block. Where the block raises, nothing appears.

    Args:
        filesystem: of s3fs.
        path: bucket and key.
        retries: when to stop trying.
        part_bytes: an object of fewer bytes is sent by one PUT. A larger one is sent in parts of this size, one while
            the next is gathered.
    """
    upload = S3Upload(filesystem, path, retries, part_bytes)
    try:
        yield upload
        upload.finish()
    except BaseException:
        upload.abort()
        raise


@final
class S3Upload:
    """An object that is being uploaded."""

    def __init__(self, filesystem: AsyncFileSystem, path: str, retries: RetryPolicy, part_bytes: int) -> None:
        self._filesystem, self._retries, self._part_bytes = filesystem, retries, part_bytes
        self._bucket, _, self._key = path.partition("/")
        self._place = f"s3://{path}"
        self._mark = uuid.uuid4().hex
        self._held = bytearray()
        self._upload = ""
        self._parts: list[dict[str, Any]] = []
        self._sending: Future[Any] | None = None

    def writelines(self, pieces: Sequence[Piece]) -> None:
        """Append a copy of pieces, one after the other."""
        for piece in pieces:
            self._held += piece
        while len(self._held) >= self._part_bytes:
            self._settle()  # before the next part is made: no more than two are in memory
            with memoryview(self._held) as held:
                part = bytes(held[: self._part_bytes])
            del self._held[: self._part_bytes]
            self._send(part)

    def finish(self) -> None:
        """Send the rest, and make the object appear."""
        if not self._upload and self._sending is None:
            self._wait(self._put(bytes(self._held)))
            return
        if self._held:
            self._send(bytes(self._held))
        self._settle()
        self._wait(self._complete())

    def abort(self) -> None:
        """Delete the parts that were sent."""
        if self._sending is not None:
            self._sending.cancel()
        if self._upload:
            with suppress(StorageError, OSError):
                self._wait(persist(self._request("abort_multipart_upload", UploadId=self._upload), "", GIVE_UP, 0))

    def _send(self, part: bytes) -> None:
        self._settle()
        self._sending = asyncio.run_coroutine_threadsafe(self._put_part(part), self._filesystem.loop)

    def _settle(self) -> None:
        if self._sending is not None:
            self._sending.result()
            self._sending = None

    async def _put(self, body: bytes) -> None:
        await self._once(self._request("put_object", Body=body, Metadata={MARK: self._mark}), len(body))

    async def _put_part(self, part: bytes) -> None:
        number = len(self._parts) + 1
        if number == 1:
            begin = self._request("create_multipart_upload", Metadata={MARK: self._mark})
            self._upload = (await persist(begin, self._place, self._retries, 0))["UploadId"]
        send = self._request("upload_part", UploadId=self._upload, PartNumber=number, Body=part)
        try:
            answer = await persist(send, self._place, self._retries, len(part))
        except FileNotFoundError as error:
            raise StorageError("storage", [Problem(place=self._place, found=GONE, fix=RESUMES)]) from error
        self._parts.append({"PartNumber": number, "ETag": answer["ETag"]})

    async def _complete(self) -> None:
        parts = {"Parts": self._parts}
        complete = self._request("complete_multipart_upload", UploadId=self._upload, MultipartUpload=parts)
        await self._once(complete, self._part_bytes * len(self._parts))  # S3 may need time to join the parts
        self._upload = ""

    async def _once(self, request: Callable[[], Awaitable[Any]], size: int) -> None:
        """Make a request that publishes the object; where its answer was lost, check whether it was carried out."""
        doubtful = False

        async def attempt() -> None:
            nonlocal doubtful
            if doubtful and await self._is_there():
                return
            try:
                await request()
            except BaseException as error:
                doubtful = is_ambiguous(error)
                raise

        await persist(attempt, self._place, self._retries, size)

    async def _is_there(self) -> bool:
        try:
            found = await self._request("head_object")()
        except FileNotFoundError:
            return False
        return found.get("Metadata", {}).get(MARK) == self._mark

    def _request(self, method: str, **settings: Any) -> Callable[[], Awaitable[Any]]:
        return partial(self._filesystem._call_s3, method, Bucket=self._bucket, Key=self._key, **settings)

    def _wait(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._filesystem.loop).result()
