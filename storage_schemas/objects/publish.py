"""Publishing objects: they appear whole or not at all, and are durable before anything refers to them.

On a file system an object is written under a temporary name beside its place, flushed to the disk, and renamed; then
its folder is flushed, and every folder above it that is new. On an object store it is one PUT or one multipart upload,
which becomes visible only when it is complete. `memory://` would show objects in part, so they are put together
first.
"""

import io
import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, Protocol, final

import xxhash
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractBufferedFile

from storage_schemas.format.errors import ContractError, Problem, StorageError
from storage_schemas.format.groups import group_metadata
from storage_schemas.format.layout import FEATURES
from storage_schemas.objects.local_files import Piece, write_pieces
from storage_schemas.objects.retry_policy import RESUMES
from storage_schemas.objects.store import Store

TEMPORARY = ".partial"
"""Suffix of temporary names. Only a killed process leaves such files, and nothing reads them."""
ON_ITS_WAY = 16 * 2**20
"""After so many bytes the disk begins to write, while the next are computed. Otherwise all of them wait for the end."""
AGAIN = "run the same command again: it resumes"


@final
class Sink:
    """What the bytes of an object are written to: it counts and hashes them on the way."""

    def __init__(self, write: Callable[[Sequence[Piece]], object]) -> None:
        self._write = write
        self._hash = xxhash.xxh3_128()
        self._broken = False
        self.size = 0

    def write(self, piece: Piece) -> None:
        """Append bytes. The caller may change them afterwards."""
        self.write_all([piece])

    def write_all(self, pieces: Iterable[Piece]) -> None:
        """Append pieces with one write. The caller may change them afterwards.

        Each piece is hashed when it is produced, while it is in the processor's cache. Where producing one raises, none
        is written.

        Raises:
            ContractError: an earlier call raised, so size and hash are no longer those of the bytes written.
        """
        if self._broken:
            found, fix = "is written to after a write that failed", "let the exception end the block"
            raise ContractError("object", [Problem(place="sink", found=found, fix=fix)])
        self._broken, written = True, []
        for piece in pieces:
            self._hash.update(piece)
            self.size += len(piece)
            written.append(piece)
        self._write(written)
        self._broken = False

    @property
    def xxh3(self) -> str:
        """XXH3 (128 bits, hexadecimal) of the bytes written so far."""
        return self._hash.hexdigest()


class AbstractTarget(Protocol):
    """A file or an upload that bytes are written to."""

    def writelines(self, pieces: Sequence[Piece], /) -> object:
        """Append pieces, or copies of them, one after the other."""


@contextmanager
def publish(store: Store, name: str) -> Iterator[Sink]:
    """Write an object that appears whole when the block ends, and not at all where the block raises.

    Args:
        store: the cache.
        name: the object, relative to the cache.

    Yields:
        What to write the bytes to. Its size and its hash are those of the object.

    Raises:
        StorageError: the disk is full, cannot be written to, or fails; a link is on the way to a local object; or the
            object store fails for too long.
    """
    store.require_no_links(name)
    with _opened(store, store.path(name)) as target:
        yield Sink(target.writelines)


def publish_bytes(store: Store, name: str, body: bytes) -> Sink:
    """Publish an object whose bytes are in memory, and return its size and hash."""
    with publish(store, name) as sink:
        sink.write(body)
    return sink


def require_claim(store: Store) -> None:
    """Refuse to go on once the claim of this run on the store is gone.

    It is checked before a shard, a commit record, a PHI-S map or a group's attributes get their name: these count, and
    another run on a GPU may compute other bits.

    Raises:
        StorageError: the claim is gone: another run may have begun.
    """
    if store.claim and not store.exists(store.claim):
        found = "is gone: the lease of this run expired, and another run may have begun; this run stops here"
        raise StorageError("lease", [Problem(place=f"{store.uri}/{store.claim}", found=found, fix=AGAIN)])


def _opened(store: Store, path: str) -> AbstractContextManager[AbstractTarget]:
    filesystem = store.filesystem
    if store.is_local:
        return _publish_local(path)
    if isinstance(filesystem, MemoryFileSystem):
        return _publish_in_memory(store, path)
    if isinstance(filesystem, AsyncFileSystem) and "s3" in filesystem.protocol:
        from storage_schemas.objects.s3_upload import s3_upload

        return s3_upload(filesystem, path, store.retries)
    return _publish_remote(store, path)


@contextmanager
def _publish_local(path: str) -> Iterator[AbstractTarget]:
    temporary = f"{path}.{uuid.uuid4().hex}{TEMPORARY}"
    with as_storage_error(path):
        made = make_folder(os.path.dirname(path))
        file = open(temporary, "xb", buffering=0)  # noqa: SIM115 (closed below, where closing may fail as writing may)
    target = _LocalFile(file.fileno(), path)
    try:
        yield target
        with as_storage_error(path):
            target.settle()
            file.close()
            _give_name(temporary, path, made)
    except BaseException:
        with suppress(OSError):  # its buffered bytes cannot be written, and are not needed
            file.close()
        with suppress(OSError):
            os.remove(temporary)
        raise


def _give_name(temporary: str, path: str, changed: list[str]) -> None:
    os.replace(temporary, path)
    for folder in changed:
        flush_folder(folder)


def write_whole(path: str | os.PathLike[str], body: bytes) -> None:
    """Write a local file that is there whole and durable, or not at all. Folders above it are made.

    Args:
        path: the file. One that is there is replaced.
        body: all of its bytes.

    Raises:
        StorageError: the disk is full, may not be written, or fails.
    """
    with _publish_local(os.path.abspath(path)) as target:
        target.writelines([body])


@contextmanager
def open_whole(path: str | os.PathLike[str]) -> Iterator[AbstractTarget]:
    """Write a local file, piece by piece, that is there whole and durable when the block ends.

    Where the block raises, what was there before stays. Folders above it are made.

    Args:
        path: the file. One that is there is replaced.

    Yields:
        What to write the bytes to.

    Raises:
        StorageError: the disk is full, may not be written, or fails.
    """
    with _publish_local(os.path.abspath(path)) as target:
        yield target


def replace_whole(temporary: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Give a local file that another library has written its final name, once all of it is on the disk.

    Args:
        temporary: the file, in the folder of `path` or in one below it.
        path: its final name. A file that has this name already is replaced.

    Raises:
        StorageError: the disk fails.
    """
    path = os.path.abspath(path)
    with as_storage_error(path):
        _flush(os.fspath(temporary))
        _give_name(os.fspath(temporary), path, [os.path.dirname(path)])


@final
class _LocalFile:
    def __init__(self, descriptor: int, path: str) -> None:
        self._descriptor, self._path = descriptor, path
        self._size = self._on_its_way = 0

    def writelines(self, pieces: Sequence[Piece]) -> None:
        with as_storage_error(self._path):
            write_pieces(self._descriptor, pieces)
            self._size += sum(map(len, pieces))
            if self._size - self._on_its_way >= ON_ITS_WAY:
                self._let_go()

    def settle(self) -> None:
        """Wait until all of it is on the disk."""
        os.fsync(self._descriptor)
        if self._on_its_way:
            self._let_go()

    def _let_go(self) -> None:
        """Tell Linux that the written pages are not needed again.

        The disk begins to write those that it has not, and memory keeps none of those that it has.

        A cache is larger than memory, so its pages would displace others that are read again. Also, a new page costs
        more than one that was just released; under a hypervisor, many times as much.
        """
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._descriptor, 0, self._size, os.POSIX_FADV_DONTNEED)
        self._on_its_way = self._size


@contextmanager
def as_storage_error(path: str) -> Iterator[None]:
    """Turn errors of the file system into one message.

    Args:
        path: what is written, for the message.

    Raises:
        StorageError: the file system refused or failed.
    """
    try:
        yield
    except OSError as error:
        found = f"cannot be written: {error.strerror or error}"
        raise StorageError("storage", [Problem(place=path, found=found, fix=RESUMES)]) from error


@contextmanager
def _publish_in_memory(store: Store, path: str) -> Iterator[AbstractTarget]:
    file = io.BytesIO()
    yield file
    store.filesystem.pipe_file(path, file.getvalue())


@contextmanager
def _publish_remote(store: Store, path: str) -> Iterator[AbstractTarget]:
    file: AbstractBufferedFile = store.filesystem.open(path, "wb")
    try:
        yield file
    except BaseException:
        file.discard()  # aborts the upload
        file.closed = True  # else it would publish what it holds when it is garbage-collected
        raise
    file.close()


def make_folder(path: str) -> list[str]:
    """Make a folder, and return the folders to flush once a file in it has its name.

    These are the folder itself, and the parents of new folders.
    """
    changed = [path]
    while not os.path.isdir(path):
        path = os.path.dirname(path)
        changed.append(path)
    os.makedirs(changed[0], exist_ok=True)
    return changed


def flush_folder(folder: str) -> None:
    """Wait until the names in a folder are on the disk."""
    _flush(folder)


def _flush(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish_json(store: Store, name: str, values: Any) -> None:
    """Publish a JSON object. Its keys keep their order."""
    publish_bytes(store, name, (json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def publish_group(store: Store, group: str, attributes: dict[str, Any] | None = None) -> None:
    """Publish the `zarr.json` of a group.

    Args:
        store: the cache.
        group: path of the group inside `features.zarr`; `""` for the root.
        attributes: what the group says of itself, stored with a seal; None for a group that only holds others.

    Raises:
        StorageError: the store fails; or the run's claim is gone, which is checked where there are attributes.
    """
    name = "/".join(part for part in (FEATURES, group, "zarr.json") if part)
    if attributes is not None:
        require_claim(store)
    publish_json(store, name, group_metadata(attributes))
