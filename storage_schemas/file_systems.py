"""The file systems of fsspec, made as we need them."""

import os
from functools import lru_cache
from typing import Any

import fsspec

from storage_schemas.errors import Problem, SettingError
from storage_schemas.patience import Patience

_NO_STALE_LISTINGS = {"use_listings_cache": False}  # what another worker published a moment ago must be seen


def file_system(uri: str, patience: Patience) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the fsspec file system that a URI names, and the path that it names there; one for each process.

    Raises:
        SettingError: there is no such kind of URI.
    """
    return _opened(uri, patience.silence, os.getpid())


@lru_cache
def _opened(uri: str, silence: float, _process: int) -> tuple[fsspec.AbstractFileSystem, str]:
    try:
        # fsspec would make one for each thread, with connections of its own
        filesystem, root = fsspec.url_to_fs(uri, skip_instance_cache=True, **_options(uri, silence))
    except (ValueError, ImportError) as error:
        raise SettingError(
            "CACHE", [Problem(place=uri, found=str(error), fix="give a folder or an s3:// URI")]
        ) from error
    if "s3" in filesystem.protocol:
        filesystem.retries = 1  # s3fs's own, which are not ours to set
    return filesystem, root.rstrip("/")


def forget_file_systems() -> None:
    """Make file systems anew from here on: they hold the credentials and the endpoint that they were made with."""
    _opened.cache_clear()


def _options(uri: str, silence: float) -> dict[str, Any]:
    if "://" not in uri:
        return {}
    if not uri.startswith(("s3://", "s3a://")):
        return _NO_STALE_LISTINGS
    from storage_schemas.remote import s3_options

    return _NO_STALE_LISTINGS | s3_options(silence)
