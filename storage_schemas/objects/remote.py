"""Requests to a store behind a network. Only our own rule makes them again; its client and s3fs do not."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from fsspec.asyn import AsyncFileSystem, sync

from storage_schemas.format.errors import Problem, SettingError
from storage_schemas.objects.persist import persist
from storage_schemas.objects.retry_policy import RetryPolicy
from storage_schemas.objects.spans import Span

Result = TypeVar("Result")
UNSIGNED = "AWS_NO_SIGN_REQUEST"
"""Environment variable: `YES` sends requests without credentials."""
AT_ONCE = 16
"""Requests at a time."""


def s3_options(silence: float, tries: int = 1) -> dict[str, Any]:
    """Return options of s3fs that leave retries to us.

    Args:
        silence: a request without an answer for this long counts as failed (seconds).
        tries: how often its client makes a request.
    """
    config = {
        "connect_timeout": silence,
        "read_timeout": silence,
        "retries": {"total_max_attempts": tries, "mode": "standard"},
        "max_pool_connections": 2 * AT_ONCE,
    }
    return {"config_kwargs": config} | ({"anon": True} if _is_anonymous() else {})


def _is_anonymous() -> bool:
    """Say whether requests are to go without credentials, as public buckets allow.

    Raises:
        SettingError: the variable has a value that says neither.
    """
    value = os.environ.get(UNSIGNED, "")
    if value.lower() not in ("", "yes", "no", "true", "false", "1", "0"):
        raise SettingError("environment", [Problem(place=UNSIGNED, found=f"is {value!r}", fix="set it to YES or NO")])
    return value.lower() in ("yes", "true", "1")


def ask(
    filesystem: AsyncFileSystem, request: Callable[[], Awaitable[Result]], place: str, retries: RetryPolicy
) -> Result:
    """Make one request, with retries; see `persist`."""
    return sync(filesystem.loop, persist, request, place, retries)


def read_spans(
    filesystem: AsyncFileSystem, spans: Sequence[Span], places: Sequence[str], retries: RetryPolicy
) -> list[bytes | BaseException]:
    """Return the bytes of each span, several read at a time.

    Returns:
        For each, in their order: its bytes, or FileNotFoundError, or an OSError where the span lies beyond the object.

    Raises:
        StorageError: the store failed for too long, or refuses access.
    """
    return sync(filesystem.loop, _read_spans, filesystem, spans, places, retries)


async def _read_spans(
    filesystem: AsyncFileSystem, spans: Sequence[Span], places: Sequence[str], retries: RetryPolicy
) -> list[bytes | BaseException]:
    room = asyncio.Semaphore(AT_ONCE)

    async def read(span: Span, place: str) -> bytes | BaseException:
        async with room:
            try:
                return await persist(partial(_read, filesystem, *span), place, retries)
            except OSError as error:
                return error

    tasks = [asyncio.ensure_future(read(span, place)) for span, place in zip(spans, places, strict=True)]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


async def _read(filesystem: AsyncFileSystem, path: str, start: int | None, stop: int | None) -> bytes:
    if start is not None and start == stop:
        return b""  # HTTP has no empty range
    # with one request at a time for an object, s3fs does not ask for its size first
    alone = {"max_concurrency": 1} if "s3" in filesystem.protocol else {}
    return await filesystem._cat_file(path, start=start, end=stop, **alone)
