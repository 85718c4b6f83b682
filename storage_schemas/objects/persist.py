"""Retries: which requests are made again, when, and when to give up."""

import asyncio
import random
import socket
from collections.abc import Awaitable, Callable
from typing import TypeVar

import aiohttp
from botocore.exceptions import (
    BotoCoreError,
    FlexibleChecksumError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
)
from botocore.exceptions import (
    ConnectionError as EndpointError,
)
from botocore.parsers import ResponseParserError

from storage_schemas.format.errors import Problem, StorageError
from storage_schemas.objects.retry_policy import RESUMES, RetryPolicy

Result = TypeVar("Result")
PASSING_CODES = frozenset(
    {
        "BadDigest",  # the request was damaged in transit, as for the next three
        "IncompleteBody",
        "InvalidDigest",
        "XAmzContentSHA256Mismatch",
        "OperationAborted",
        "RequestTimeout",
        "SlowDown",
        "Throttling",
        "TooManyRequests",
    }
)
"""Error codes of S3 after which the same request may succeed, whatever their status."""
PASSING = frozenset({429, 500, 502, 503, 504})
"""HTTP statuses after which the same request may succeed."""
DAMAGED = (ResponseParserError, FlexibleChecksumError, ValueError, LookupError, TypeError, AttributeError)
"""Errors of parsers over an answer that was damaged in transit."""
UNANSWERED = (
    HTTPClientError,
    EndpointError,
    aiohttp.ClientError,
    TimeoutError,
    ConnectionError,
    *DAMAGED,
)
"""No answer came, or the answer was damaged in transit."""
SLOWEST = 2**20
"""An upload may take a second longer for every so many bytes."""


async def persist(
    attempt: Callable[[], Awaitable[Result]], place: str, retries: RetryPolicy, upload: int | None = None
) -> Result:
    """Make a request again and again until it is answered, or has failed for too long.

    Args:
        attempt: makes the request once.
        place: the object, for the message.
        retries: when to stop.
        upload: bytes that it sends. They extend the time in which an answer must come. None for a download, whose
            pauses the client watches.

    Returns:
        The answer.

    Raises:
        StorageError: it failed for too long, or was refused for a reason that does not pass.
        FileNotFoundError: there is no such object.
        OSError: the request cannot be answered, such as one for bytes beyond the end of an object.
    """
    clock = asyncio.get_running_loop().time
    began, wait, attempts = clock(), retries.first_wait, 0
    limit = None if upload is None else retries.silence + upload / SLOWEST
    while True:
        attempts += 1
        try:
            return await asyncio.wait_for(attempt(), limit)
        except Exception as error:
            if (problem := _refusal(error, place)) is not None:
                raise StorageError("storage", [problem]) from error
            if not is_passing(error):
                raise
            if clock() - began + wait > retries.outage:
                found = f"failed {attempts} times in {clock() - began:.0f} seconds, at last with {describe(error)}"
                raise StorageError("storage", [Problem(place=place, found=found, fix=RESUMES)]) from error
        await asyncio.sleep(wait * random.uniform(0.5, 1.5))  # so that many workers do not retry at the same moment
        wait = min(2 * wait, retries.longest_wait)


def is_passing(error: BaseException) -> bool:
    """Return whether the same request may succeed later."""
    if is_unknown_host(error):
        return False
    if (answer := answer_of(error)) is not None:
        return answer[0] in PASSING or answer[1] in PASSING_CODES
    return isinstance(error, UNANSWERED)


def is_unknown_host(error: BaseException) -> bool:
    """Return whether a name server answered that there is no such host. Without an answer the host may exist."""
    cause = getattr(error, "os_error", None) if isinstance(error, aiohttp.ClientConnectorError) else None
    return cause is not None and socket.EAI_NONAME in (cause.errno, getattr(cause.__cause__, "errno", None))


def is_ambiguous(error: BaseException) -> bool:
    """Return whether the request may have been carried out although it failed."""
    answer = answer_of(error)
    return answer is None or answer[0] >= 500


def describe(error: BaseException) -> str:
    """Return what went wrong, without the request itself: its signature must not be shown."""
    if (answer := answer_of(error)) is not None:
        status, code = map(str, answer)
        return f"HTTP {status}" if code in ("", status) else f"HTTP {status} {code}"  # an answer to HEAD has no code
    if isinstance(error, DAMAGED):
        return "an answer that cannot be read"
    return "no answer in time" if "Timeout" in type(error).__name__ else "a broken connection"


def answer_of(error: BaseException) -> tuple[int, str] | None:
    """Return the status and the code of S3's answer, or None where there was no answer."""
    if isinstance(error, aiohttp.ClientResponseError):
        return error.status, ""
    for raised in (error, error.__cause__):  # s3fs raises Python's own errors from those of botocore
        response = getattr(raised, "response", None)
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            return int(status), str(response.get("Error", {}).get("Code", ""))
    return None


def _refusal(error: Exception, place: str) -> Problem | None:
    """Return what a user can fix, where trying again does not help."""
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        found = "there are no credentials"
        fix = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or AWS_NO_SIGN_REQUEST=YES if it is public"
    elif (answer_of(error) or (0, ""))[1] == "NoSuchBucket":
        found, fix = "there is no such bucket", "create it, or name another"
    elif isinstance(error, PermissionError):
        found = f"access is refused: {describe(error)}"
        fix = "check the credentials, AWS_ENDPOINT_URL and the bucket's policy"
    elif isinstance(error, BotoCoreError) and not is_passing(error):
        found, fix = f"no request can be made: {error}", "check the AWS variables and AWS_CONFIG_FILE"
    else:
        return None
    return Problem(place=place, found=found, fix=fix)
