"""The file systems of fsspec, made as we need them, and asked: again and again where they are behind a network."""

import os
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import fsspec
from fsspec.asyn import AsyncFileSystem
from fsspec.core import split_protocol

from storage_schemas.format.errors import Problem, SettingError
from storage_schemas.objects.patience import Patience
from storage_schemas.objects.spans import Span

_NO_STALE_LISTINGS = {"use_listings_cache": False}  # what another worker published a moment ago must be seen


def file_system(uri: str, patience: Patience) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the fsspec file system that a URI names, and the path that it names there; one for each process.

    Raises:
        SettingError: there is no such kind of URI.
    """
    return _opened(uri, patience.silence, os.getpid())


def file_system_of(uri: str, patience: Patience, tries: int = 1) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the fsspec file system of one object among many, and the object's path there; one for each process.

    Args:
        uri: of the object. `#`, `?` and `::` stand for themselves.
        patience: with its requests.
        tries: how often S3's own client makes a request, before it counts as failed. A long listing is made of many,
            and would begin again.

    Raises:
        ValueError: there is no such kind of URI.
        ImportError: what it takes is not installed.
    """
    protocol = split_protocol(uri)[0] or "file"
    kind = fsspec.get_filesystem_class(protocol)
    named = tuple(sorted(kind._get_kwargs_from_urls(uri).items()))  # a host, a user
    return _made(protocol, named, patience.silence, tries, os.getpid()), kind._strip_protocol(uri)


def ask(
    filesystem: fsspec.AbstractFileSystem, question: str, path: str, place: str, patience: Patience, **settings: Any
) -> Any:
    """Ask a file system about a path, until it answers or has failed for too long.

    Args:
        filesystem: which.
        question: a method of it.
        path: its first argument.
        place: what the question is about, for the message.
        patience: when to stop.
        settings: more arguments.

    Raises:
        StorageError: it failed for too long, or refuses.
        OSError: that is its answer.
    """
    if not isinstance(filesystem, AsyncFileSystem):
        return getattr(filesystem, question)(path, **settings)
    from storage_schemas.objects import remote

    return remote.ask(filesystem, partial(getattr(filesystem, f"_{question}"), path, **settings), place, patience)


def read_spans(
    filesystem: fsspec.AbstractFileSystem, spans: Sequence[Span], places: Sequence[str], patience: Patience
) -> list[bytes | BaseException]:
    """Return the bytes of each span, several read at a time from a store behind a network; see `remote.read_spans`."""
    if not isinstance(filesystem, AsyncFileSystem):
        paths, starts, stops = ([span[part] for span in spans] for part in range(3))
        return filesystem.cat_ranges(paths, starts, stops, on_error="return")
    from storage_schemas.objects import remote

    return remote.read_spans(filesystem, spans, places, patience)


def forget_file_systems() -> None:
    """Make file systems anew from here on: they hold the credentials and the endpoint that they were made with."""
    _opened.cache_clear()
    _made.cache_clear()


@lru_cache
def _opened(uri: str, silence: float, _process: int) -> tuple[fsspec.AbstractFileSystem, str]:
    try:
        # fsspec would make one for each thread, with connections of its own
        filesystem, root = fsspec.url_to_fs(uri, skip_instance_cache=True, **_options(uri, silence))
    except (ValueError, ImportError) as error:
        raise SettingError(
            "CACHE", [Problem(place=uri, found=str(error), fix="give a folder or an s3:// URI")]
        ) from error
    return _without_tries_of_its_own(filesystem), root.rstrip("/")


@lru_cache
def _made(
    protocol: str, named: tuple[tuple[str, Any], ...], silence: float, tries: int, _process: int
) -> fsspec.AbstractFileSystem:
    options = _options(f"{protocol}://", silence, tries) if protocol != "file" else {}
    made = fsspec.filesystem(protocol, skip_instance_cache=True, **options, **dict(named))
    return _without_tries_of_its_own(made)


def _without_tries_of_its_own(filesystem: fsspec.AbstractFileSystem) -> fsspec.AbstractFileSystem:
    if "s3" in filesystem.protocol:
        filesystem.retries = 1  # s3fs's, beside those of its client
    return filesystem


def _options(uri: str, silence: float, tries: int = 1) -> dict[str, Any]:
    if "://" not in uri:
        return {}
    if not uri.startswith(("s3://", "s3a://")):
        return _NO_STALE_LISTINGS
    from storage_schemas.objects.remote import s3_options

    return _NO_STALE_LISTINGS | s3_options(silence, tries)
