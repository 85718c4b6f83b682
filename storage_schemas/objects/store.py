"""Reading objects from wherever fsspec goes. It holds nothing open, so it may be pickled, and used in any process.

A store behind a network is asked again where it fails, see `Patience`; and what comes over a network is read again
where it fails a check, before it is called damaged.
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
from storage_schemas.objects.local_files import OpenFile, open_file, read_local, refused
from storage_schemas.objects.patience import Patience
from storage_schemas.objects.spans import Span

Result = TypeVar("Result")
READ_AGAIN = 3
"""How often what came over a network is read again where it fails a check."""
TIMES = ("LastModified", "last_modified", "updated", "mtime", "created")
"""What the file systems of fsspec call the time when an object was written."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """A folder of objects behind a URI: a local path, `s3://bucket/prefix`, `memory://…`."""

    uri: str
    """Where it is. A local path is made absolute where the store is made: workers may run in other folders."""
    patience: Patience = field(default_factory=Patience)
    """How long it may fail, where it is behind a network."""
    claim: str = ""
    """An object of its own: once that is gone, nothing that counts is written through this value; see
    `publish.require_claim`. Empty for no such object."""

    def __post_init__(self) -> None:
        if not self.uri:
            fix = "give a folder or an s3:// URI"
            raise SettingError("CACHE", [Problem(place="CACHE", found="is empty", fix=fix)])
        if "://" not in self.uri:
            object.__setattr__(self, "uri", os.path.abspath(os.path.expanduser(self.uri)))

    @property
    def filesystem(self) -> fsspec.AbstractFileSystem:
        """The fsspec file system, made in the calling process."""
        return file_system(self.uri, self.patience)[0]

    @property
    def is_local(self) -> bool:
        """True for a folder of this machine's file systems."""
        return self._is_folder or isinstance(self.filesystem, LocalFileSystem)

    def path(self, name: str) -> str:
        """Return an object's path on the file system.

        Raises:
            CorruptionError: the name leads out of the store.
        """
        if name.startswith("/") or "\\" in name or "\0" in name or ".." in name.split("/") or "://" in name:
            raise CorruptionError("object name", [Problem(place=repr(name), found="leads out of the cache")])
        return f"{self._root}/{name}".rstrip("/")

    def read(self, name: str) -> bytes:
        """Return a whole object.

        Raises:
            MissingError: there is none of that name.
            StorageError: it cannot be read.
        """
        return self.read_many([name])[0]

    def read_many(self, names: Sequence[str]) -> list[bytes]:
        """Return whole objects, in the order of their names; a remote store is asked for many at a time.

        Raises:
            MissingError: there is none of one of the names.
            StorageError: one of them cannot be read.
        """
        bodies = self._bodies([(name, None, None) for name in names])
        return [self._received(name, body) for name, body in zip(names, bodies, strict=True)]

    def read_parsed(self, names: Sequence[str], parse: Callable[[bytes, str], Result]) -> list[Result]:
        """Return what is made of whole objects, in the order of their names.

        Args:
            names: the objects.
            parse: makes something of an object's bytes and its name, and checks them.

        Raises:
            MissingError: there is none of one of the names.
            CorruptionError, ContractError: an object fails its check, every time it is read.
        """
        return [self._parsed(*one, parse) for one in zip(names, self.read_many(names), strict=True)]

    def checked(self, read: Callable[[], Result]) -> Result:
        """Return what a function reads and checks; over a network, call it again where the check fails.

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
        """Return the bytes `start … stop` of each range of an object.

        Raises:
            MissingError: there is no object of that name.
            CorruptionError: it ends before a range does.
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
        """Return a local object to read from; it is kept open for the same reader.

        Raises:
            MissingError: there is no object of that name.
            StorageError: it cannot be read.
        """
        return open_file(self.path(name), reader)

    def size(self, name: str) -> int | None:
        """Return an object's size (bytes), or None when there is none of that name."""
        try:
            return int(self._ask("info", name)["size"])
        except FileNotFoundError:
            return None

    def exists(self, name: str) -> bool:
        """Say whether there is an object or a folder of that name."""
        return bool(self._ask("exists", name))

    def listing(self, prefix: str) -> list[str]:
        """Return the names of all objects below a prefix, sorted; empty when there are none."""
        return sorted(self._below(self._ask("find", prefix)))

    def times(self, prefix: str) -> dict[str, float]:
        """Return when each object below a prefix was written (seconds since 1970), by the store's own clock.

        Raises:
            StorageError: the store does not say.
        """
        found = self._ask("find", prefix, detail=True)
        return dict(zip(self._below(found), map(self._time, found.values()), strict=True))

    def children(self, folder: str) -> list[str]:
        """Return the names of what lies directly in a folder, without the folder's, sorted; empty when it is none."""
        path = self.path(folder)
        try:
            found = self._ask("ls", folder, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(one.rstrip("/").removeprefix(f"{path}/") for one in found if one.rstrip("/") != path)

    def remove(self, name: str) -> None:
        """Delete an object. One that is gone is no error: an earlier request may have been answered too late."""
        with suppress(FileNotFoundError):
            self._ask("rm_file", name)

    @property
    def _is_folder(self) -> bool:
        return "://" not in self.uri  # asked at every read: it costs less than finding the file system

    @property
    def _root(self) -> str:
        return self.uri.rstrip("/") if self._is_folder else file_system(self.uri, self.patience)[1]

    @property
    def _is_networked(self) -> bool:
        return not self._is_folder and isinstance(self.filesystem, AsyncFileSystem)

    def _ask(self, question: str, name: str, **settings: Any) -> Any:
        return ask(self.filesystem, question, self.path(name), f"{self.uri}/{name}", self.patience, **settings)

    def _bodies(self, spans: Sequence[Span]) -> list[bytes | BaseException]:
        there = [(self.path(name), start, stop) for name, start, stop in spans]
        return read_spans(self.filesystem, there, [f"{self.uri}/{name}" for name, _, _ in spans], self.patience)

    def _parsed(self, name: str, body: bytes, parse: Callable[[bytes, str], Result]) -> Result:
        try:
            return parse(body, name)
        except (CorruptionError, ContractError):
            if not self._is_networked:
                raise
        return self.checked(lambda: parse(self.read(name), name))

    def _time(self, info: Mapping[str, Any]) -> float:
        """Return when an object was written, whatever the file system calls that."""
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
