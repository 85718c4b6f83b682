"""File systems of fsspec: made with our settings, and asked with retries where they are behind a network."""

import os
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import fsspec
from fsspec.asyn import AsyncFileSystem
from fsspec.core import split_protocol

from storage_schemas.format.errors import Problem, SettingError
from storage_schemas.objects.retry_policy import RetryPolicy
from storage_schemas.objects.spans import Span

_NO_STALE_LISTINGS = {"use_listings_cache": False}  # objects that another worker has just published must be seen


def file_system(uri: str, retries: RetryPolicy) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the fsspec file system of a URI, and the path on it. Each process has one of each.

    Args:
        uri: of a folder of objects.
        retries: how long its requests may fail.

    Raises:
        SettingError: there is no such kind of URI.
    """
    return _opened(uri, retries.silence, os.getpid())


def file_system_of(uri: str, retries: RetryPolicy, tries: int = 1) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the fsspec file system of one object among many, and the path of the object on it.

    Each process has one file system for all objects of a kind.

    Args:
        uri: of the object. `#`, `?` and `::` have no special meaning in it.
        retries: how long its requests may fail.
        tries: how often the S3 client itself makes a request before the request counts as failed. A long listing needs
            many requests, and would start over if it failed.

    Raises:
        ValueError: there is no such kind of URI.
        ImportError: a package that it needs is not installed.
    """
    protocol = split_protocol(uri)[0] or "file"
    kind = fsspec.get_filesystem_class(protocol)
    named = tuple(sorted(kind._get_kwargs_from_urls(uri).items()))  # a host, a user
    return _made(protocol, named, retries.silence, tries, os.getpid()), kind._strip_protocol(uri)


def ask(
    filesystem: fsspec.AbstractFileSystem, question: str, path: str, place: str, retries: RetryPolicy, **settings: Any
) -> Any:
    """Call a method of a file system for a path; over a network, until it answers or has failed for too long.

    Args:
        filesystem: the file system.
        question: name of the method.
        path: first argument of the method.
        place: the object, for the message.
        retries: when to stop.
        settings: further arguments of the method.

    Raises:
        StorageError: it failed for too long, or access is refused.
        OSError: the file system answers with this error.
    """
    if not isinstance(filesystem, AsyncFileSystem):
        return getattr(filesystem, question)(path, **settings)
    from storage_schemas.objects import remote

    return remote.ask(filesystem, partial(getattr(filesystem, f"_{question}"), path, **settings), place, retries)


def read_spans(
    filesystem: fsspec.AbstractFileSystem, spans: Sequence[Span], places: Sequence[str], retries: RetryPolicy
) -> list[bytes | BaseException]:
    """Return the bytes of each span. Over a network several are read at a time; see `remote.read_spans`."""
    if not isinstance(filesystem, AsyncFileSystem):
        paths, starts, stops = ([span[part] for span in spans] for part in range(3))
        return filesystem.cat_ranges(paths, starts, stops, on_error="return")
    from storage_schemas.objects import remote

    return remote.read_spans(filesystem, spans, places, retries)


def is_unknown_host(error: BaseException) -> bool:
    """Return whether a request failed since a name server answered that there is no such host."""
    from storage_schemas.objects import persist  # imports botocore

    return persist.is_unknown_host(error)


def forget_file_systems() -> None:
    """Make new file systems from now on: the old ones keep the credentials and endpoint that they were made with."""
    _opened.cache_clear()
    _made.cache_clear()


@lru_cache
def _opened(uri: str, silence: float, _process: int) -> tuple[fsspec.AbstractFileSystem, str]:
    try:
        # fsspec would make one for each thread, each with its own connections
        filesystem, root = fsspec.url_to_fs(uri, skip_instance_cache=True, **_options(uri, silence))
    except (ValueError, ImportError) as error:
        raise SettingError(
            "CACHE", [Problem(place=uri, found=str(error), fix="give a folder or an s3:// URI")]
        ) from error
    return _without_own_retries(filesystem), root.rstrip("/")


@lru_cache
def _made(
    protocol: str, named: tuple[tuple[str, Any], ...], silence: float, tries: int, _process: int
) -> fsspec.AbstractFileSystem:
    options = _options(f"{protocol}://", silence, tries) if protocol != "file" else {}
    made = fsspec.filesystem(protocol, skip_instance_cache=True, **options, **dict(named))
    return _without_own_retries(made)


def _without_own_retries(filesystem: fsspec.AbstractFileSystem) -> fsspec.AbstractFileSystem:
    if "s3" in filesystem.protocol:
        filesystem.retries = 1  # s3fs retries besides its client
    return filesystem


def _options(uri: str, silence: float, tries: int = 1) -> dict[str, Any]:
    if "://" not in uri:
        return {}
    if not uri.startswith(("s3://", "s3a://")):
        return _NO_STALE_LISTINGS
    from storage_schemas.objects.remote import s3_options

    return _NO_STALE_LISTINGS | s3_options(silence, tries)
