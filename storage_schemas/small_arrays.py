"""The small arrays (PHI-S, latents, statistics): plain Zarr, float64 or int8, one chunk with CRC32C each."""

import hashlib
import json
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from storage_schemas.format.errors import ContractError, CorruptionError, MissingError, Problem
from storage_schemas.format.groups import group_metadata
from storage_schemas.format.layout import FEATURES
from storage_schemas.format.shard_format import CHECKSUM_BYTES, checked_body, with_checksum
from storage_schemas.objects.publish import publish_bytes
from storage_schemas.objects.store import Store

MOST_BYTES = 2**31
"""Size of a small array: a rotation of 16,384 channels."""


TYPES = (np.float64, np.int8)
"""Types of small arrays."""
SMALL = 2**20
"""A chunk of so many bytes is read whatever its metadata says, and then compared with it."""


def write_small_arrays(store: Store, group: str, arrays: Mapping[str, np.ndarray | np.float64]) -> None:
    """Publish arrays into a group, and the groups above them where there are none. Arrays that are there are replaced.

    Args:
        store: the cache.
        group: path of the group inside `features.zarr`.
        arrays: path inside the group → values, int8 or finite float64, of any shape.

    Raises:
        ContractError: an array is of another type, or holds NaN or infinity.
        StorageError: the store fails.
    """
    for name, values in arrays.items():
        if values.dtype not in TYPES or not np.isfinite(values).all():
            found = f"is {values.dtype}, or holds NaN or infinity; expected finite float64, or int8"
            raise ContractError("array", [Problem(place=f"{group}/{name}", found=found)])
    for name, values in arrays.items():
        place = f"{FEATURES}/{group}/{name}"
        body = _little(values).tobytes()
        publish_bytes(store, f"{place}/c" + "/0" * values.ndim, with_checksum(body))
        _publish_document(store, f"{place}/zarr.json", small_array_metadata(values.shape, values.dtype.name))
    for above in sorted({above for name in arrays for above in groups_above(f"{group}/{name}")}):
        if not store.exists(f"{FEATURES}/{above}/zarr.json"):
            _publish_document(store, f"{FEATURES}/{above}/zarr.json", group_metadata())


def _publish_document(store: Store, name: str, values: Mapping[str, Any]) -> None:
    # without the newline that `publish_json` appends: existing caches have these bytes
    publish_bytes(store, name, json.dumps(values, indent=1).encode())


def groups_above(path: str) -> list[str]:
    """Return the groups above an array or a group, the outermost first."""
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


def array_digest(values: np.ndarray | np.float64) -> str:
    """Return the SHA-256 (hexadecimal) of a small array's bytes."""
    return hashlib.sha256(_little(values).tobytes()).hexdigest()


def _little(values: np.ndarray | np.float64) -> np.ndarray:
    return np.asarray(values, dtype=values.dtype.newbyteorder("<"))


def read_small_arrays(store: Store, wanted: Mapping[str, str | None]) -> list[np.ndarray]:
    """Read whole small arrays; what fails a check over a network is read again.

    Args:
        store: the cache.
        wanted: path of each array inside `features.zarr` → the SHA-256 that it must have, or None where no group says.

    Raises:
        MissingError, CorruptionError: as for `read_small_array`.
    """
    return [store.checked(partial(read_small_array, store, path, sha256)) for path, sha256 in wanted.items()]


def read_small_array(store: Store, path: str, sha256: str | None = None) -> np.ndarray:
    """Read one whole small array, of float64 or int8.

    Args:
        store: the cache.
        path: the array, inside `features.zarr`.
        sha256: digest that its values must have; None where no group names one.

    Raises:
        MissingError: there is no such array.
        CorruptionError: its metadata or its chunk is damaged, its chunk was never written, or it has another digest.
    """
    place = f"{FEATURES}/{path}"
    try:
        metadata = store.read(f"{place}/zarr.json")
    except MissingError:
        raise MissingError("array", [Problem(place=path, found="is not there")]) from None
    shape, dtype = _parse(metadata, path)
    size = dtype.itemsize * math.prod(shape)
    try:
        chunk = store.read(f"{place}/c" + "/0" * len(shape), most=max(SMALL, size + CHECKSUM_BYTES))
    except MissingError:
        raise CorruptionError("array", [Problem(place=path, found="its chunk was never written")]) from None
    body = checked_body(memoryview(chunk), path)
    if len(body) != size:
        found = f"{len(body)} bytes do not fill the shape {shape}"
        raise CorruptionError("array", [Problem(place=path, found=found)])
    if sha256 not in (None, hashlib.sha256(body).hexdigest()):
        raise CorruptionError("array", [Problem(place=path, found="is sound, but not the array that its group names")])
    values = np.frombuffer(body, dtype=dtype.newbyteorder("<")).reshape(shape).astype(dtype)
    if not np.isfinite(values).all():
        raise CorruptionError("array", [Problem(place=path, found="holds NaN or infinity, which is never written")])
    return values


def require_shape(path: str, values: np.ndarray, shape: tuple[int, ...]) -> None:
    """Refuse a small array of another shape than the others of its group imply.

    Raises:
        CorruptionError: it has another shape.
    """
    if values.shape != shape:
        found = f"has the shape {values.shape}, expected {shape}"
        raise CorruptionError("array", [Problem(place=path, found=found)])


def small_array_metadata(shape: tuple[int, ...], dtype: str = "float64") -> dict[str, Any]:
    """Return the `zarr.json` of a small array, as the Zarr v3 specification has it."""
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(shape)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": "NaN" if dtype == "float64" else 0,
        "codecs": [
            {"name": "bytes", "configuration": {"endian": "little"}} if dtype == "float64" else {"name": "bytes"},
            {"name": "crc32c"},
        ],
        "attributes": {},
        "storage_transformers": [],
    }


def _parse(metadata: bytes, path: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    try:
        found = json.loads(metadata)
        shape, dtype = tuple(found["shape"]), np.dtype(np.float64 if found["data_type"] == "float64" else np.int8)
        understood = found == small_array_metadata(shape, dtype.name) and all(type(length) is int for length in shape)
        understood = (
            understood and all(length >= 0 for length in shape) and dtype.itemsize * math.prod(shape) <= MOST_BYTES
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        understood = False
    if not understood:
        raise CorruptionError(
            "array", [Problem(place=f"{path}/zarr.json", found="is not the metadata of a small array")]
        )
    return shape, dtype
