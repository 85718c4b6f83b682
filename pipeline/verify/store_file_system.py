"""A store as a file system of fsspec, for zarr-python: its requests are made again by the same rule as ours."""

from typing import Any, final

from fsspec import AbstractFileSystem

from storage_schemas.format.errors import MissingError
from storage_schemas.objects.store import Store


@final
class StoreFileSystem(AbstractFileSystem):
    """The objects of one store, to be read. A path is an object's name in it."""

    cachable = False  # fsspec keeps no instance: it would live as long as the process

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """Return an object's bytes, or those of a range; negative numbers count from its end.

        Raises:
            FileNotFoundError: there is no such object.
            StorageError: it cannot be read.
        """
        if start is None and end is None:
            return self._read(path)
        size = self._store.size(path)
        if size is None:
            raise FileNotFoundError(path)
        first, stop, _step = slice(start, end).indices(size)
        [body] = self._store.read_ranges(path, [(first, max(first, stop))])
        return body

    def _read(self, path: str) -> bytes:
        try:
            return self._store.read(path)
        except MissingError as error:
            raise FileNotFoundError(path) from error
