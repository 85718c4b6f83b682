"""Reading objects from wherever fsspec goes. It holds nothing open, so it may be pickled, and used in any process."""

import errno
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
    """Where it is. A local path is made absolute where the store is made: workers may run in other folders."""

    def __post_init__(self) -> None:
        if not self.uri:
            fix = "give a folder or an s3:// URI"
            raise SettingError("CACHE", [Problem(place="CACHE", found="is empty", fix=fix)])
        if "://" not in self.uri:
            object.__setattr__(self, "uri", os.path.abspath(os.path.expanduser(self.uri)))

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
        return self.read_many([name])[0]

    def read_many(self, names: Sequence[str]) -> list[bytes]:
        """Return whole objects, in the order of their names; a remote store is asked for many at a time.

        Raises:
            MissingError: there is none of one of the names.
        """
        paths = [self.path(name) for name in names]
        bodies = self.filesystem.cat_ranges(paths, None, None, on_error="return")
        return [self._received(name, body) for name, body in zip(names, bodies, strict=True)]

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes `start … stop` of each range of an object.

        Raises:
            MissingError: there is no object of that name.
            CorruptionError: it ends before a range does.
        """
        path = self.path(name)
        if self.is_local:
            parts = _read_local(path, ranges)
        else:
            starts, stops = [start for start, _ in ranges], [stop for _, stop in ranges]
            parts = self.filesystem.cat_ranges([path] * len(ranges), starts, stops, on_error="return")
        for part, (start, stop) in zip(parts, ranges, strict=True):
            if self._is_short(name, part, start, stop):
                found = f"ends within bytes {start} to {stop}"
                raise CorruptionError("object", [Problem(place=f"{self.uri}/{name}", found=found)])
        return [self._received(name, part) for part in parts]

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

    def _is_short(self, name: str, part: bytes | BaseException, start: int, stop: int) -> bool:
        if isinstance(part, OSError) and part.errno == errno.EINVAL:
            # S3 answers a range that starts beyond an object's end with an error, not with fewer bytes
            size = self.size(name)
            return size is not None and size <= start
        return isinstance(part, bytes) and len(part) != stop - start

    def _received(self, name: str, body: bytes | BaseException) -> bytes:
        if isinstance(body, FileNotFoundError):
            raise MissingError("object", [Problem(place=f"{self.uri}/{name}", found="is not there")]) from None
        if isinstance(body, BaseException):
            raise body
        return body


def _filesystem(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    # fsspec keeps one instance per process and set of options, so this is a lookup after the first call
    try:
        filesystem, root = fsspec.url_to_fs(uri, **(_NO_STALE_LISTINGS if "://" in uri else {}))
    except (ValueError, ImportError) as error:
        raise SettingError(
            "CACHE", [Problem(place=uri, found=str(error), fix="give a folder or an s3:// URI")]
        ) from error
    return filesystem, root.rstrip("/")


def _read_local(path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes | BaseException]:
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
