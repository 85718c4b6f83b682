"""A bounded folder on this machine that keeps what was read from a store behind a network.

    FOLDER/stillhouse-read-cache.json                   what this folder is, and how many bytes it may take
    FOLDER/<set>/<digest>-<bytes>                       one kept range
    FOLDER/<set>/<digest>-<bytes>.<number>.partial      one that is being written

A range is known by the digest of all that says what its bytes are, see `RangeKey`; it lies in the set that its digest
gives, and each set has an equal share of the bytes. What a set takes stands in the names of its files, those that are
being written too. So whoever adds one first says so by a name, then lists that one set, twice, and deletes there what
was longest not read: any number of processes keep to the bound, with no lock to wait for and no count to go wrong.
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
from storage_schemas.objects.publish import TEMPORARY
from storage_schemas.objects.store import Store

VERSION = 1
MARKER = "stillhouse-read-cache.json"
"""What tells a folder of ours from any other: nothing is deleted in a folder that was not found with it."""
SET_BYTES = 256 * 2**20
"""Share of a set (bytes): several of the largest chunks there are, and not many files to list."""
MOST_SETS = 4096
HEAD_BYTES = 32
"""A kept range begins with its digest: in another's place it is of no use."""
ABANDONED = 600.0
"""What has been written for so long (seconds) is that of a process that was killed."""
_NAME = re.compile(r"[0-9a-f]{64}-([0-9]+)(\.[0-9a-f]{32}\.partial)?")
_warned: set[str] = set()
"""Folders of which this process has said that they do not keep what they should."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RangeKey:
    """All that says what the bytes of a range are."""

    uri: str
    """The store."""
    path: str
    """The object, relative to the store."""
    xxh3: str
    """Of the whole object, as its commit record has it: one that was written anew is another."""
    start: int
    stop: int

    @property
    def digest(self) -> str:
        """What the range is kept as: SHA-256, hexadecimal."""
        told = json.dumps([self.uri, self.path, self.xxh3, self.start, self.stop])
        return hashlib.sha256(told.encode()).hexdigest()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ReadCache:
    """Ranges of committed objects, kept on this machine. It holds nothing open and may be sent to other processes.

    What it gives is checked by who asks, as what the store gives is; what fails is dropped and read from the store.
    """

    folder: str
    """Made by `open_read_cache`."""
    limit: int
    """How many bytes it may take; names, folders and what a file system rounds up to are not counted."""
    sets: int
    """Parts that it is divided into."""

    def get(self, key: RangeKey) -> memoryview | None:
        """Return a range's bytes, or None where they are not kept."""
        name, length = key.digest, HEAD_BYTES + key.stop - key.start
        try:
            with open(self._path(name, length), "rb", buffering=0) as file:
                body = file.read()
                with suppress(PermissionError):
                    os.utime(file.fileno())  # what was read last is deleted last
        except OSError:
            return None
        if len(body) != length or body[:HEAD_BYTES] != bytes.fromhex(name):
            self.drop(key)
            return None
        return memoryview(body)[HEAD_BYTES:]

    def put(self, key: RangeKey, body: bytes | memoryview) -> None:
        """Keep a range. Where that fails, as on a full disk, it is not kept, and the process says so once."""
        name, length = key.digest, HEAD_BYTES + len(body)
        if length > self._share:
            self._warn(f"has room for {self._share} bytes at a time, and a range takes {length}")
            return
        try:
            self._write(self._path(name, length), bytes.fromhex(name), body)
        except OSError as error:
            self._warn(f"cannot be written: {error.strerror or error}")

    def drop(self, key: RangeKey) -> None:
        """Forget a range that is not what it should be."""
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
        """Delete what was longest not read until a set keeps to its share; say whether it does."""
        # a listing may miss a file that is renamed while it is made; no file misses two
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
            said = f"read cache {self.folder}: {found}; going on without what it does not keep"
            warnings.warn(said, RuntimeWarning, stacklevel=2)


def open_read_cache(folder: str, limit: int, store: Store) -> ReadCache:
    """Take a folder for a read cache: one that is new or empty, or was made as such.

    Args:
        folder: on this machine's disks. Several runs, of several stores, may share it.
        limit: how many bytes it may take.
        store: what is read.

    Raises:
        SettingError: the store needs none; the folder holds something else, or a read cache of another limit; it cannot
            be written.
    """
    if store.is_local:
        found, fix = f"keeps nothing of {store.uri}, which is a folder itself", "leave running.read_cache out"
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
    """Write into a folder what it is, where it is empty; else check that it says the same."""
    marker, told = os.path.join(opened.folder, MARKER), {"version": VERSION, "bytes": opened.limit, "sets": opened.sets}
    os.makedirs(opened.folder, exist_ok=True)
    if not os.path.exists(marker):
        if strange := sorted(name for name in os.listdir(opened.folder) if not name.startswith(MARKER)):
            found, fix = f"holds {strange[0]}, and is no read cache", "give a folder that is empty, or not there yet"
            raise SettingError("running.read_cache", [Problem(place=opened.folder, found=found, fix=fix)])
        temporary = f"{marker}.{uuid.uuid4().hex}{TEMPORARY}"
        with open(temporary, "x") as file:
            json.dump(told, file)
        with suppress(FileExistsError):
            os.link(temporary, marker)  # of several that start at once, one makes it
        os.remove(temporary)
    _require_told(marker, told)


def _require_told(marker: str, told: Mapping[str, Any]) -> None:
    fix = "give another folder; or delete this one while no run uses it"
    with open(marker) as file:
        text = file.read()
    try:
        said = dict(json.loads(text))
    except (ValueError, TypeError) as error:
        problem = Problem(place=marker, found="does not say what this folder is", fix=fix)
        raise SettingError("running.read_cache", [problem]) from error
    if unlike := differences(said, told, marker):
        raise SettingError("running.read_cache", [*unlike, Problem(place="what to do", found=fix)])


def _last_read(folder: str, name: str) -> float:
    try:
        return os.stat(os.path.join(folder, name)).st_mtime
    except FileNotFoundError:
        return 0.0  # deleted meanwhile, or it got its last name


def _remove(folder: str, name: str) -> None:
    with suppress(FileNotFoundError):
        os.remove(os.path.join(folder, name))
