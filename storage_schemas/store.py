"""Reading objects from wherever fsspec goes. It holds nothing open, so it may be pickled, and used in any process."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import fsspec
from fsspec.implementations.local import LocalFileSystem

from storage_schemas.errors import CorruptionError, MissingError, Problem, SettingError

_NO_STALE_LISTINGS = {"use_listings_cache": False}  # what another worker published a moment ago must be seen


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """A folder of objects behind a URI: a local path, `s3://bucket/prefix`, `memory://…`."""

    uri: str

    @property
    def filesystem(self) -> fsspec.AbstractFileSystem:
        """The fsspec file system, made in the calling process."""
        return _filesystem(self.uri)[0]

    @property
    def is_local(self) -> bool:
        """True for a folder of this machine's file systems."""
        return isinstance(self.filesystem, LocalFileSystem)

    def path(self, name: str) -> str:
        """Return an object's path on the file system.

        Raises:
            CorruptionError: the name leads out of the store.
        """
        if name.startswith("/") or "\\" in name or "\0" in name or ".." in name.split("/") or "://" in name:
            raise CorruptionError("object name", [Problem(place=repr(name), found="leads out of the cache")])
        return f"{_filesystem(self.uri)[1]}/{name}".rstrip("/")

    def read(self, name: str) -> bytes:
        """Return a whole object.

        Raises:
            MissingError: there is none of that name.
        """
        try:
            return self.filesystem.cat_file(self.path(name))
        except FileNotFoundError:
            raise MissingError("object", [Problem(place=f"{self.uri}/{name}", found="is not there")]) from None

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes `start … stop` of each range of an object.

        Raises:
            MissingError: there is no object of that name.
            CorruptionError: it ends before a range does.
        """
        path = self.path(name)
        try:
            parts = _read_local(path, ranges) if self.is_local else self._read_remote(path, ranges)
        except FileNotFoundError:
            raise MissingError("object", [Problem(place=f"{self.uri}/{name}", found="is not there")]) from None
        for part, (start, stop) in zip(parts, ranges, strict=True):
            if len(part) != stop - start:
                found = f"ends within bytes {start} to {stop}"
                raise CorruptionError("object", [Problem(place=f"{self.uri}/{name}", found=found)])
        return parts

    def size(self, name: str) -> int | None:
        """Return an object's size (bytes), or None when there is none of that name."""
        try:
            return int(self.filesystem.info(self.path(name))["size"])
        except FileNotFoundError:
            return None

    def exists(self, name: str) -> bool:
        """Say whether there is an object or a folder of that name."""
        return bool(self.filesystem.exists(self.path(name)))

    def listing(self, prefix: str) -> list[str]:
        """Return the names of all objects below a prefix, sorted; empty when there are none."""
        root = f"{_filesystem(self.uri)[1]}/"
        return sorted(found.removeprefix(root) for found in self.filesystem.find(self.path(prefix)))

    def _read_remote(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        starts, stops = zip(*ranges, strict=True)
        return self.filesystem.cat_ranges([path] * len(ranges), list(starts), list(stops), on_error="raise")


def _filesystem(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    # fsspec keeps one instance per process and set of options, so this is a lookup after the first call
    try:
        filesystem, root = fsspec.url_to_fs(uri, **({} if "://" not in uri else _NO_STALE_LISTINGS))
    except (ValueError, ImportError) as error:
        raise SettingError(
            "CACHE", [Problem(place=uri, found=str(error), fix="give a folder or an s3:// URI")]
        ) from error
    return filesystem, root.rstrip("/")


def _read_local(path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return [os.pread(descriptor, stop - start, start) for start, stop in ranges]
    finally:
        os.close(descriptor)
