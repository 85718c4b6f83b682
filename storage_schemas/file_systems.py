"""The file systems of fsspec, made as we need them; and ranges of local files, read without it."""

import os
from collections.abc import Sequence
from typing import Any

import fsspec

from storage_schemas.errors import Problem, SettingError
from storage_schemas.patience import Patience

_NO_STALE_LISTINGS = {"use_listings_cache": False}  # what another worker published a moment ago must be seen


def file_system(uri: str, patience: Patience) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the fsspec file system that a URI names, and the path that it names there.

    Raises:
        SettingError: there is no such kind of URI.
    """
    # fsspec keeps one instance per process and set of options, so this is a lookup after the first call
    try:
        filesystem, root = fsspec.url_to_fs(uri, **_options(uri, patience))
    except (ValueError, ImportError) as error:
        raise SettingError(
            "CACHE", [Problem(place=uri, found=str(error), fix="give a folder or an s3:// URI")]
        ) from error
    if "s3" in filesystem.protocol:
        filesystem.retries = 1  # s3fs's own, which are not ours to set
    return filesystem, root.rstrip("/")


def _options(uri: str, patience: Patience) -> dict[str, Any]:
    if "://" not in uri:
        return {}
    if not uri.startswith(("s3://", "s3a://")):
        return _NO_STALE_LISTINGS
    from storage_schemas.remote import s3_options

    return _NO_STALE_LISTINGS | s3_options(patience)


def read_local(path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes | BaseException]:
    """Return the bytes `start … stop` of each range of a file, fewer where it ends before."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError as error:
        return [error] * len(ranges)
    try:
        return [_read_range(descriptor, start, stop) for start, stop in ranges]
    finally:
        os.close(descriptor)


def _read_range(descriptor: int, start: int, stop: int) -> bytes:
    parts = []
    while start < stop and (part := os.pread(descriptor, stop - start, start)):  # one call gives at most 2 GiB
        parts.append(part)
        start += len(part)
    return b"".join(parts)
