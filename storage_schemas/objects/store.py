"""Reading objects from wherever fsspec reaches.

Over a network, requests that fail are made again; see `RetryPolicy`. What fails a check is read again too, before it is
called damaged: the network may have damaged it.
"""

import errno
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar, final

import fsspec
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.local import LocalFileSystem

from storage_schemas.format.errors import ContractError, CorruptionError, Problem, SettingError, StorageError
from storage_schemas.objects.file_systems import ask, file_system, read_spans
from storage_schemas.objects.local_files import OpenFile, open_file, read_local, read_whole
from storage_schemas.objects.local_tree import names_below, names_in, remove_file, require_no_links, size_of
from storage_schemas.objects.refusals import refused
from storage_schemas.objects.retry_policy import RetryPolicy
from storage_schemas.objects.spans import Span

Result = TypeVar("Result")
READ_AGAIN = 3
"""How often an object that came over a network is read again where it fails a check."""
MOST_WHOLE = 2**32
"""Largest local object that is read whole (bytes): metadata, tables, small arrays. A sparse file may claim any size."""
TIMES = ("LastModified", "last_modified", "updated", "mtime", "created")
"""Names that file systems of fsspec have for the time when an object was written."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """A folder of objects: a local path, `s3://bucket/prefix`, `memory://…`. It holds nothing open; it pickles."""

    uri: str
    """Where it is. A local path is made absolute at once: workers may run in other folders."""
    retries: RetryPolicy = field(default_factory=RetryPolicy)
    """How long requests over a network may fail."""
    claim: str = ""
    """An object that says that this run writes here. Once it is gone, nothing that counts is written; see
    `publish.require_claim`. Empty for no such object."""

    def __post_init__(self) -> None:
        if not self.uri:
            fix = "give a folder or an s3:// URI"
            raise SettingError("CACHE", [Problem(place="CACHE", found="is empty", fix=fix)])
        if "://" not in self.uri:
            object.__setattr__(self, "uri", os.path.abspath(os.path.expanduser(self.uri)))

    @property
    def filesystem(self) -> fsspec.AbstractFileSystem:
        """The fsspec file system of the calling process."""
        return file_system(self.uri, self.retries)[0]

    @property
    def is_local(self) -> bool:
        """Whether it is a folder on a file system of this machine."""
        return self._is_folder or isinstance(self.filesystem, LocalFileSystem)

    def path(self, name: str) -> str:
        """Return an object's path on the file system.

        Raises:
            CorruptionError: the name leads out of the store.
        """
        return f"{self._root}/{self._checked_name(name)}".rstrip("/")

    def require_no_links(self, name: str) -> None:
        """Refuse to write or delete a local object that a symbolic link is on the way to.

        Raises:
            StorageError: it, or a folder above it in this store, is a link.
        """
        if self.is_local:
            require_no_links(self._root, self._checked_name(name))

    @staticmethod
    def _checked_name(name: str) -> str:
        """Return a name, after checking that it does not lead out of the store."""
        if name.startswith("/") or "\\" in name or "\0" in name or ".." in name.split("/") or "://" in name:
            raise CorruptionError("object name", [Problem(place=repr(name), found="leads out of the cache")])
        return name

    def read(self, name: str, most: int = MOST_WHOLE) -> bytes:
        """Return a whole object.

        Args:
            name: of the object, relative to the store.
            most: bytes that a local object may have: a larger one is not read.

        Raises:
            MissingError: there is no such object.
            StorageError: it cannot be read.
            CorruptionError: it is too large.
        """
        return self.read_many([name], most)[0]

    def read_many(self, names: Sequence[str], most: int = MOST_WHOLE) -> list[bytes]:
        """Return whole objects, in the order given. Over a network many are read at a time.

        Args:
            names: of the objects, relative to the store.
            most: bytes that a local object may have: a larger one is not read.

        Raises:
            MissingError: one of the objects is not there.
            StorageError: one of them cannot be read.
            CorruptionError: one of them is too large.
        """
        if self.is_local:
            bodies = [read_whole(self.path(name), most) for name in names]
        else:
            bodies = self._bodies([(name, None, None) for name in names])
        return [self._received(name, body) for name, body in zip(names, bodies, strict=True)]

    def read_parsed(self, names: Sequence[str], parse: Callable[[bytes, str], Result]) -> list[Result]:
        """Read whole objects and parse them, in the order given.

        Args:
            names: of the objects, relative to the store.
            parse: takes an object's bytes and its name, checks them, and returns the result.

        Raises:
            MissingError: one of the objects is not there.
            CorruptionError, ContractError: an object fails its check every time it is read.
        """
        return [self._parsed(name, body, parse) for name, body in zip(names, self.read_many(names), strict=True)]

    def checked(self, read: Callable[[], Result]) -> Result:
        """Return what a function reads and checks. Over a network, call it again where the check fails.

        Args:
            read: reads from this store, and checks.

        Raises:
            CorruptionError, ContractError: the check fails every time.
        """
        for _ in range(READ_AGAIN if self._is_networked else 0):
            try:
                return read()
            except (CorruptionError, ContractError):
                continue
        return read()

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return ranges of an object's bytes.

        Args:
            name: of the object, relative to the store.
            ranges: start and stop of each range (bytes).

        Raises:
            MissingError: there is no such object.
            CorruptionError: the object ends before a range does.
            StorageError: it cannot be read.
        """
        if self.is_local:
            parts = read_local(self.path(name), ranges)
        else:
            parts = self._bodies([(name, start, stop) for start, stop in ranges])
        for part, (start, stop) in zip(parts, ranges, strict=True):
            if self._is_short(name, part, start, stop):
                found = f"ends within bytes {start} to {stop}"
                raise CorruptionError("object", [Problem(place=f"{self.uri}/{name}", found=found)])
        return [self._received(name, part) for part in parts]

    def open(self, name: str, reader: object) -> OpenFile:
        """Open a local object for reading. It is kept open for the same reader.

        Args:
            name: of the object, relative to the store.
            reader: who reads; each reader opens the object for itself.

        Raises:
            MissingError: there is no such object.
            StorageError: it cannot be read.
        """
        return open_file(self.path(name), reader)

    def size(self, name: str) -> int | None:
        """Return the size of an object (bytes), or None where there is no such object.

        Raises:
            StorageError: the store does not tell.
        """
        if self.is_local:
            return size_of(self.path(name))
        try:
            return int(self._ask("info", name)["size"])
        except FileNotFoundError:
            return None

    def exists(self, name: str) -> bool:
        """Return whether there is an object or a folder of that name.

        Raises:
            StorageError: the store does not tell.
        """
        if self.is_local:
            return size_of(self.path(name)) is not None
        return bool(self._ask("exists", name))

    def listing(self, prefix: str) -> list[str]:
        """Return the names of all objects below a prefix, sorted.

        Raises:
            StorageError: the store cannot be listed; in a folder also where there is a link, which is named.
        """
        if self.is_local:
            return sorted(names_below(self._root, self._checked_name(prefix)))
        return sorted(self._below(self._ask("find", prefix)))

    def sizes(self, prefix: str) -> dict[str, int]:
        """Return the size of each object below a prefix (bytes), from one listing.

        Raises:
            StorageError: the store cannot be listed, or does not tell the sizes.
        """
        if self.is_local:
            sizes = ((name, self.size(name)) for name in self.listing(prefix))
            return {name: size for name, size in sizes if size is not None}  # None: it was just deleted
        found = self._ask("find", prefix, detail=True)
        return {name: int(info["size"]) for name, info in zip(self._below(found), found.values(), strict=True)}

    def times(self, prefix: str) -> dict[str, float]:
        """Return when each object below a prefix was written (seconds since 1970), by the clock of the store.

        Raises:
            StorageError: the store does not tell the time.
        """
        found = self._ask("find", prefix, detail=True)
        return dict(zip(self._below(found), map(self._time, found.values()), strict=True))

    def children(self, folder: str) -> list[str]:
        """Return the names of the objects and folders in a folder, sorted, without its own; none where it is absent.

        Raises:
            StorageError: the store cannot be listed; in a folder also where there is a link, which is named.
        """
        if self.is_local:
            return sorted(names_in(self._root, self._checked_name(folder)))
        path = self.path(folder)
        try:
            found = self._ask("ls", folder, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        inside = (name.rstrip("/") for name in found)
        return sorted(name.removeprefix(f"{path}/") for name in inside if name != path)

    def remove(self, name: str) -> None:
        """Delete an object. It is not an error where it is gone: an earlier request may have been answered too late.

        Raises:
            StorageError: the store refuses; or a link is on the way to a local object, which then belongs to others.
        """
        if self.is_local:
            remove_file(self._root, self._checked_name(name))
            return
        with suppress(FileNotFoundError):
            self._ask("rm_file", name)

    @property
    def _is_folder(self) -> bool:
        return "://" not in self.uri  # evaluated at every read: looking up the file system would cost more

    @property
    def _root(self) -> str:
        return self.uri.rstrip("/") if self._is_folder else file_system(self.uri, self.retries)[1]

    @property
    def _is_networked(self) -> bool:
        return not self._is_folder and isinstance(self.filesystem, AsyncFileSystem)

    def _ask(self, question: str, name: str, **settings: Any) -> Any:
        return ask(self.filesystem, question, self.path(name), f"{self.uri}/{name}", self.retries, **settings)

    def _bodies(self, spans: Sequence[Span]) -> list[bytes | BaseException]:
        there = [(self.path(name), start, stop) for name, start, stop in spans]
        return read_spans(self.filesystem, there, [f"{self.uri}/{name}" for name, _, _ in spans], self.retries)

    def _parsed(self, name: str, body: bytes, parse: Callable[[bytes, str], Result]) -> Result:
        try:
            return parse(body, name)
        except (CorruptionError, ContractError):
            if not self._is_networked:
                raise
        return self.checked(lambda: parse(self.read(name), name))

    def _time(self, info: Mapping[str, Any]) -> float:
        """Return when an object was written, by whatever name the file system has for it."""
        for name in TIMES:
            if isinstance(time := info.get(name), datetime):
                return time.timestamp()
            if isinstance(time, int | float):
                return float(time)
        found, fix = "does not say when an object was written", "point CACHE at another kind of store"
        raise StorageError("storage", [Problem(place=self.uri, found=found, fix=fix)])

    def _below(self, paths: Iterable[str]) -> list[str]:
        return [path.removeprefix(f"{self._root}/") for path in paths]

    def _is_short(self, name: str, part: bytes | BaseException, start: int, stop: int) -> bool:
        if isinstance(part, OSError) and part.errno == errno.EINVAL:
            # S3 answers a range that starts beyond an object's end with an error, not with fewer bytes
            size = self.size(name)
            return size is not None and size <= start
        return isinstance(part, bytes) and len(part) != stop - start

    def _received(self, name: str, body: bytes | BaseException) -> bytes:
        if isinstance(body, OSError):
            raise refused(f"{self.uri}/{name}", body) from body
        if isinstance(body, BaseException):
            raise body
        return body
