"""Publishing objects: whole or not at all, durable before anyone is told.

On a file system an object is written under a temporary name beside its place, flushed to the disk, renamed, and the
folder flushed. On an object store it is one PUT or one multipart upload, which becomes visible only when it is
complete. `memory://` shows what is being written, so there it is written elsewhere first."""

import hashlib
import io
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, final

from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractBufferedFile

from storage_schemas.layout import ATTRIBUTE, FEATURES
from storage_schemas.store import Store

TEMPORARY = ".partial"
"""Ending of a name that was never published. Such files are left only by a killed process, and nobody reads them."""


@final
@dataclass(slots=True, eq=False)
class Sink:
    """Where an object's bytes go: it counts and hashes them on the way."""

    file: io.IOBase
    size: int = 0
    """Bytes written so far."""
    _hash: Any = None

    def __post_init__(self) -> None:
        self._hash = hashlib.sha256()

    def write(self, body: bytes) -> None:
        """Append bytes."""
        self.file.write(body)
        self._hash.update(body)
        self.size += len(body)

    @property
    def sha256(self) -> str:
        """SHA-256 (hexadecimal) of the bytes written so far."""
        return self._hash.hexdigest()


@contextmanager
def publish(store: Store, name: str) -> Iterator[Sink]:
    """Write an object that appears whole when the block ends, and not at all when it raises.

    Args:
        store: the cache.
        name: the object, relative to the cache.

    Yields:
        A sink. Its size and SHA-256 are those of the object.
    """
    with _opened(store, store.path(name)) as file:
        yield Sink(file)


def publish_bytes(store: Store, name: str, body: bytes) -> Sink:
    """Publish an object that is in memory already."""
    with publish(store, name) as sink:
        sink.write(body)
    return sink


def publish_json(store: Store, name: str, values: Any) -> None:
    """Publish a JSON object, keys in the order given."""
    publish_bytes(store, name, (json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def publish_group(store: Store, group: str, attributes: dict[str, Any] | None = None) -> None:
    """Publish the `zarr.json` of a Zarr group (`""` for the root), with our attribute when there is one."""
    name = "/".join(part for part in (FEATURES, group, "zarr.json") if part)
    held = {} if attributes is None else {ATTRIBUTE: attributes}
    publish_json(store, name, {"zarr_format": 3, "node_type": "group", "attributes": held})


def _opened(store: Store, path: str) -> AbstractContextManager[io.IOBase]:
    if store.is_local:
        return _publish_local(path)
    if isinstance(store.filesystem, MemoryFileSystem):
        return _publish_in_memory(store, path)
    return _publish_remote(store, path)


@contextmanager
def _publish_local(path: str) -> Iterator[io.IOBase]:
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    temporary = f"{path}.{uuid.uuid4().hex}{TEMPORARY}"
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.remove(temporary)
        raise
    _flush_folder(folder)


@contextmanager
def _publish_in_memory(store: Store, path: str) -> Iterator[io.IOBase]:
    file = io.BytesIO()
    yield file
    store.filesystem.pipe_file(path, file.getvalue())


@contextmanager
def _publish_remote(store: Store, path: str) -> Iterator[io.IOBase]:
    file: AbstractBufferedFile = store.filesystem.open(path, "wb")
    try:
        yield file
    except BaseException:
        file.discard()  # aborts the upload
        file.closed = True  # else it would publish what it holds when it is collected
        raise
    file.close()


def _flush_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
