"""Importing numcodecs, which compresses chunks. It can fail because of a package beside it that it does not need."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from storage_schemas.format.errors import MissingError, Problem


@cache
def zstd_codec() -> Any:
    """Return the class of the zstd codec that zarr-python writes with too: the bytes are the same.

    It is imported here, because readers need not load it.

    Raises:
        MissingError: as `numcodecs_imported`.
    """
    with numcodecs_imported():
        from numcodecs.zstd import Zstd
    return Zstd


@contextmanager
def numcodecs_imported() -> Iterator[None]:
    """Turn the failure of an import of numcodecs into one message.

    numcodecs reads the version of zfpy as numbers when it is imported, so a release like 1.0.1.post0 breaks it.

    Raises:
        MissingError: numcodecs cannot be imported; with the package that is the cause, where it is known.
    """
    try:
        yield
    except ValueError as error:
        if "int()" not in str(error):
            raise
        found = f"numcodecs cannot be imported beside it: {error}"
        fix = "pip uninstall zfpy (Stillhouse does not use it), or install a release without a suffix"
        raise MissingError("numcodecs", [Problem(place=_installed("zfpy"), found=found, fix=fix)]) from error


def _installed(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return "a package"
