"""The small arrays beside the shards (PHI-S, statistics): plain Zarr, through zarr-python."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import Store as ZarrStore
from zarr.codecs import Crc32cCodec
from zarr.storage import FsspecStore, LocalStore

from storage_schemas.errors import CorruptionError, MissingError, Problem
from storage_schemas.layout import FEATURES
from storage_schemas.store import Store


def zarr_store(store: Store, *, read_only: bool) -> ZarrStore:
    """Return the cache's `features.zarr` as zarr-python sees it."""
    if store.is_local:
        return LocalStore(store.path(FEATURES), read_only=read_only)
    return FsspecStore.from_url(f"{store.uri.rstrip('/')}/{FEATURES}", read_only=read_only)


def write_small_arrays(store: Store, group: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays of one chunk each, with CRC32C, into a group; what is there under their names is replaced."""
    target = zarr_store(store, read_only=False)
    for name, values in arrays.items():
        array = zarr.create_array(
            target,
            name=f"{group}/{name}",
            shape=values.shape,
            dtype=values.dtype,
            chunks=values.shape,
            compressors=[Crc32cCodec()],
            fill_value=np.nan,
            overwrite=True,
        )
        array[...] = values


def read_small_array(store: Store, path: str) -> Any:
    """Read one whole small array.

    Raises:
        MissingError: there is no such array.
        CorruptionError: it fails its checksum, or holds NaN: a chunk that was never written.
    """
    try:
        values = np.asarray(zarr.open_array(zarr_store(store, read_only=True), path=path, mode="r", zarr_format=3)[...])
    except (FileNotFoundError, KeyError):
        raise MissingError("array", [Problem(place=path, found="is not there")]) from None
    except ValueError as error:
        raise CorruptionError("array", [Problem(place=path, found=str(error))]) from error
    if np.isnan(values).any():
        raise CorruptionError("array", [Problem(place=path, found="holds NaN: its chunk was never written")])
    return values
