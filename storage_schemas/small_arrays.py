"""The small arrays beside the shards (PHI-S, statistics): float64, one chunk with CRC32C each, in plain Zarr."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import zarr
from jaxtyping import Float64
from zarr.abc.store import Store as ZarrStore
from zarr.codecs import Crc32cCodec
from zarr.storage import FsspecStore, LocalStore

from storage_schemas.errors import ContractError, CorruptionError, MissingError, Problem
from storage_schemas.layout import FEATURES
from storage_schemas.shard_format import checked_body
from storage_schemas.store import Store


def zarr_store(store: Store, *, read_only: bool) -> ZarrStore:
    """Return the cache's `features.zarr` as zarr-python sees it."""
    if store.is_local:
        return LocalStore(store.path(FEATURES), read_only=read_only)
    return FsspecStore.from_url(f"{store.uri.rstrip('/')}/{FEATURES}", read_only=read_only)


def write_small_arrays(store: Store, group: str, arrays: Mapping[str, np.ndarray | np.float64]) -> None:
    """Write arrays into a group; what is there under their names is replaced.

    Raises:
        ContractError: an array is not float64, or holds NaN or infinity.
    """
    for name, values in arrays.items():
        if values.dtype != np.float64 or not np.isfinite(values).all():
            found = f"is {values.dtype}, or holds NaN or infinity; expected finite float64"
            raise ContractError("array", [Problem(place=f"{group}/{name}", found=found)])
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


def read_small_array(store: Store, path: str) -> Float64[np.ndarray, "..."]:
    """Read one whole small array.

    Raises:
        MissingError: there is no such array.
        CorruptionError: its metadata or its chunk is damaged, or its chunk was never written.
    """
    place = f"{FEATURES}/{path}"
    try:
        metadata = store.read(f"{place}/zarr.json")
    except MissingError:
        raise MissingError("array", [Problem(place=path, found="is not there")]) from None
    shape = _parse_shape(metadata, path)
    try:
        chunk = store.read(f"{place}/c" + "/0" * len(shape))
    except MissingError:
        raise CorruptionError("array", [Problem(place=path, found="its chunk was never written")]) from None
    body = checked_body(memoryview(chunk), path)
    if len(body) != 8 * int(np.prod(shape)):
        found = f"{len(body)} bytes do not fill the shape {shape}"
        raise CorruptionError("array", [Problem(place=path, found=found)])
    return np.frombuffer(body, dtype="<f8").reshape(shape).astype(np.float64)


def small_array_metadata(shape: tuple[int, ...]) -> dict[str, Any]:
    """Return the `zarr.json` of a small array, as the Zarr v3 specification writes it."""
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": "float64",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(shape)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": "NaN",
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
        "attributes": {},
        "storage_transformers": [],
    }


def _parse_shape(metadata: bytes, path: str) -> tuple[int, ...]:
    try:
        found = json.loads(metadata)
        shape = tuple(found["shape"])
        understood = found == small_array_metadata(shape) and all(type(length) is int for length in shape)
    except (ValueError, KeyError, TypeError):
        understood = False
    if not understood:
        raise CorruptionError("array", [Problem(place=f"{path}/zarr.json", found="is not that of a small array")])
    return shape
