"""A folder of bounded size on this machine that keeps what was read over a network.

    FOLDER/stillhouse-read-cache.json                   what this folder is, and how many bytes it may take
    FOLDER/<set>/<digest>-<bytes>                       one kept range
    FOLDER/<set>/<digest>-<bytes>.<number>.partial      one that is being written

A range is named by the digest of everything that determines its bytes; see `RangeKey`. The digest also chooses its set,
and each set has an equal share of the bytes. File names hold their sizes, those of files that are being written too. So
a process that adds a range first creates its file under a temporary name, then lists that one set, twice, and deletes
the least recently read ranges in it until the set fits its share. Any number of processes keep to the bound, without
locks and without a shared counter.
"""

import hashlib
import json
import os
import re
import time
import uuid
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, final

from storage_schemas.format.errors import Problem, SettingError
from storage_schemas.format.identity import differences
from storage_schemas.format.plain_text import one_line
from storage_schemas.objects.publish import TEMPORARY
from storage_schemas.objects.store import Store

VERSION = 1
MARKER = "stillhouse-read-cache.json"
"""The file that marks a folder as a read cache: nothing is deleted in a folder without it."""
SET_BYTES = 256 * 2**20
"""Share of a set (bytes): room for several of the largest chunks, and not many files to list."""
MOST_SETS = 4096
HEAD_BYTES = 32
"""A kept range begins with its digest, so that a file in the place of another is noticed."""
ABANDONED = 600.0
"""A temporary file that is older than this (seconds) was left by a process that was killed."""
_NAME = re.compile(r"[0-9a-f]{64}-([0-9]+)(\.[0-9a-f]{32}\.partial)?")
_warned: set[str] = set()
"""Folders that this process has warned about."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RangeKey:
    """Everything that determines the bytes of a range."""

    uri: str
    """URI of the store."""
    path: str
    """The object, relative to the store."""
    xxh3: str
    """XXH3 of the whole object, from its commit record: an object that is written again has another."""
    start: int
    """First byte of the range."""
    stop: int
    """Byte after the last one of the range."""

    @property
    def digest(self) -> str:
        """SHA-256 (hexadecimal) of the key: the name of the file."""
        text = json.dumps([self.uri, self.path, self.xxh3, self.start, self.stop])
        return hashlib.sha256(text.encode()).hexdigest()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ReadCache:
    """Ranges of committed objects, kept on this machine. It holds nothing open and may be sent to other processes.

    The reader checks what it gets from here as it checks what comes from the store. What fails is dropped, and read
    from the store.
    """

    folder: str
    """The folder, made by `open_read_cache`."""
    limit: int
    """Bytes that it may take. Names, folders and what a file system rounds sizes up to are not counted."""
    sets: int
    """Number of sets that it is divided into."""

    def get(self, key: RangeKey) -> memoryview | None:
        """Return the bytes of a range, or None where they are not kept."""
        name, length = key.digest, HEAD_BYTES + key.stop - key.start
        try:
            with open(self._path(name, length), "rb", buffering=0) as file:
                body = file.read()
                with suppress(PermissionError):
                    os.utime(file.fileno())  # the most recently read range is deleted last
        except OSError:
            return None
        if len(body) != length or body[:HEAD_BYTES] != bytes.fromhex(name):
            self.drop(key)
            return None
        return memoryview(body)[HEAD_BYTES:]

    def put(self, key: RangeKey, body: bytes | memoryview) -> None:
        """Keep a range. Where that fails, as on a full disk, it is not kept, and the process warns once."""
        name, length = key.digest, HEAD_BYTES + len(body)
        if length > self._share:
            self._warn(f"a set has room for {self._share} bytes, and a range takes {length}")
            return
        try:
            self._write(self._path(name, length), bytes.fromhex(name), body)
        except OSError as error:
            self._warn(f"cannot be written: {error.strerror or error}")

    def drop(self, key: RangeKey) -> None:
        """Delete a range whose bytes are wrong."""
        with suppress(OSError):
            os.remove(self._path(key.digest, HEAD_BYTES + key.stop - key.start))

    @property
    def _share(self) -> int:
        return self.limit // self.sets

    def _path(self, name: str, length: int) -> str:
        return os.path.join(self.folder, f"{int(name[:8], 16) % self.sets:04d}", f"{name}-{length}")

    def _write(self, path: str, head: bytes, body: bytes | memoryview) -> None:
        folder, temporary = os.path.dirname(path), f"{path}.{uuid.uuid4().hex}{TEMPORARY}"
        with suppress(FileExistsError):
            os.mkdir(folder)
        try:
            with open(temporary, "xb") as file:
                if not self._make_room(folder):
                    return
                file.write(head)
                file.write(body)
            os.replace(temporary, path)
        finally:
            with suppress(FileNotFoundError):
                os.remove(temporary)

    def _make_room(self, folder: str) -> bool:
        """Delete the least recently read ranges until a set fits its share; return whether it does."""
        # a listing may miss a file that is renamed meanwhile; two listings do not both miss it
        names = {*os.listdir(folder), *os.listdir(folder)}
        sizes = {name: int(match[1]) for name in names if (match := _NAME.fullmatch(name))}
        written = {name for name in sizes if name.endswith(TEMPORARY)}
        deadline = time.time() - ABANDONED
        for name in [name for name in written if 0.0 < _last_read(folder, name) < deadline]:
            _remove(folder, name)
            del sizes[name]
        excess = sum(sizes.values()) - self._share
        if excess > 0:
            for name in sorted(sizes.keys() - written, key=lambda name: _last_read(folder, name)):
                _remove(folder, name)
                excess -= sizes[name]
                if excess <= 0:
                    break
        return excess <= 0

    def _warn(self, found: str) -> None:
        if self.folder not in _warned:
            _warned.add(self.folder)
            text = f"read cache {self.folder}: {found}; what it does not keep is read from the store again"
            warnings.warn(one_line(text), RuntimeWarning, stacklevel=2)


def open_read_cache(folder: str, limit: int, store: Store) -> ReadCache:
    """Open a folder as a read cache. It must be new or empty, or have been opened as a read cache before.

    Args:
        folder: on a disk of this machine. Several runs that read several stores may share it.
        limit: how many bytes it may take.
        store: the store that is read.

    Raises:
        SettingError: the store is local and needs none; or the folder holds something else, is a read cache with
            another limit, or cannot be written to.
    """
    if store.is_local:
        found, fix = f"{store.uri} is a folder and needs no read cache", "leave running.read_cache out"
        raise SettingError("running.read_cache", [Problem(place=folder, found=found, fix=fix)])
    sets = min(max(1, limit // SET_BYTES), MOST_SETS)
    opened = ReadCache(folder=os.path.abspath(os.path.expanduser(folder)), limit=limit, sets=sets)
    try:
        _mark(opened)
    except OSError as error:
        found = f"cannot be used: {error.strerror or error}"
        raise SettingError("running.read_cache", [Problem(place=opened.folder, found=found)]) from error
    return opened


def _mark(opened: ReadCache) -> None:
    """Mark an empty folder as this read cache, or check that it is marked so."""
    marker = os.path.join(opened.folder, MARKER)
    values = {"version": VERSION, "bytes": opened.limit, "sets": opened.sets}
    os.makedirs(opened.folder, exist_ok=True)
    if not os.path.exists(marker):
        if strange := sorted(name for name in os.listdir(opened.folder) if not name.startswith(MARKER)):
            found, fix = f"holds {strange[0]}, and is not a read cache", "name a folder that is empty or does not exist"
            raise SettingError("running.read_cache", [Problem(place=opened.folder, found=found, fix=fix)])
        temporary = f"{marker}.{uuid.uuid4().hex}{TEMPORARY}"
        with open(temporary, "x") as file:
            json.dump(values, file)
        with suppress(FileExistsError):
            os.link(temporary, marker)  # of several processes that start at once, one succeeds
        os.remove(temporary)
    _require_marker(marker, values)


def _require_marker(marker: str, expected: Mapping[str, Any]) -> None:
    fix = "name another folder, or delete this one while no run uses it"
    with open(marker) as file:
        text = file.read()
    try:
        found = dict(json.loads(text))
    except (ValueError, TypeError) as error:
        problem = Problem(place=marker, found="is damaged: it does not describe a read cache", fix=fix)
        raise SettingError("running.read_cache", [problem]) from error
    if unlike := differences(found, expected, marker):
        raise SettingError("running.read_cache", [*unlike, Problem(place="what to do", found=fix)])


def _last_read(folder: str, name: str) -> float:
    try:
        return os.stat(os.path.join(folder, name)).st_mtime
    except FileNotFoundError:
        return 0.0  # it was deleted or renamed meanwhile


def _remove(folder: str, name: str) -> None:
    with suppress(FileNotFoundError):
        os.remove(os.path.join(folder, name))
