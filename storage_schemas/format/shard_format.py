"""The bytes of a shard: Zarr v3 `sharding_indexed`, one view per chunk, the index at the end, CRC32C on everything.

    chunk 0 | crc32c | chunk 1 | crc32c | … | (offset, length) of every chunk slot, uint64 little-endian | crc32c

A chunk is a view's entry in C order, little-endian, compressed where the array is, then four bytes of CRC32C
(Castagnoli, little-endian). A slot without a view has offset and length 2⁶⁴ − 1.

Entries of latents have their channels first in a chunk: one latent of all tokens, then the next one.

Source: the Zarr v3 specification, codecs `sharding_indexed`, `transpose`, `bytes`, `crc32c`, `zstd`.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, final, get_args

import google_crc32c
import numpy as np
import pyarrow as pa
from jaxtyping import UInt8, UInt64

from storage_schemas.format.compressor import zstd_codec
from storage_schemas.format.encodings import INT8_NOTHING, INT8_STEP, Coding
from storage_schemas.format.errors import ContractError, CorruptionError, Problem
from storage_schemas.format.layout import ATTRIBUTE
from storage_schemas.format.seal import sealed

Compression = Literal["none", "zstd"]
StoredType = Literal["uint8", "int8", "float16", "float32"]
FILL: Mapping[StoredType, int | str] = {"uint8": 0, "int8": INT8_NOTHING, "float16": "NaN", "float32": "NaN"}
"""Fill values: what other Zarr readers show for row slots that hold no view."""
Chunk = tuple[memoryview, bytes]
"""The bytes of a chunk, and the checksum that follows them."""
NO_CHUNK = 2**64 - 1
CHECKSUM_BYTES = 4
MOST_ENTRY_BYTES = 2**30
"""Size of one view's entry: 25 times that of the largest known teacher at 1152 pixels."""
OLD_LEVEL = 3
"""The zstd level of caches that do not record one."""
LEVELS = range(1, 20)
"""The zstd levels that an array may have."""
_ZSTD = pa.Codec("zstd")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ArraySpec:
    """An array of the cache: its path, its shape, and how its shards are written."""

    path: str
    """Path inside `features.zarr`."""
    shape: tuple[int, ...]
    """Number of row slots, then the shape of one view's entry."""
    dtype: StoredType
    """Stored type."""
    rows_per_shard: int
    """Row slots in one shard (views)."""
    compression: Compression = "none"
    """Codec of each chunk. Features are close to noise: on float16, zstd saves a few percent."""
    level: int = OLD_LEVEL
    """Level of zstd; no effect without compression. A reader needs it for nothing."""
    step: float = INT8_STEP
    """What a stored 1 stands for (PHI-S units); no effect on types other than `int8`, or on latents."""
    latents: str = ""
    """Digest of the latents that `pca8` entries are stored in; empty for other entries."""

    def __post_init__(self) -> None:
        problems = list(_problems(self))
        if problems:
            raise ContractError(f"array {self.path}", problems)

    @property
    def entry_shape(self) -> tuple[int, ...]:
        """Shape of one view's entry."""
        return self.shape[1:]

    @property
    def coding(self) -> Coding:
        """What the entries of an array of features stand for, where no latents are needed; else see `Cache.coding`.

        Raises:
            ContractError: it holds pixels, or latents.
        """
        if self.dtype == "uint8" or self.latents:
            found = f"holds {'latents' if self.latents else 'pixels'}, not features"
            raise ContractError("array", [Problem(place=self.path, found=found)])
        return Coding(encoding=self.dtype, step=self.step if self.dtype == "int8" else 0.0)

    @property
    def entry_bytes(self) -> int:
        """Size of one view's entry before compression and checksum (bytes)."""
        return math.prod(self.entry_shape) * np.dtype(self.dtype).itemsize

    @property
    def most_chunk_bytes(self) -> int:
        """Largest size of a chunk with its checksum: what zstd makes of an entry that it cannot compress."""
        return self.entry_bytes + self.entry_bytes // 128 + 1024 + CHECKSUM_BYTES

    @property
    def is_plain(self) -> bool:
        """Whether a chunk holds an entry byte for byte as it is in this machine's memory."""
        return (
            self.compression == "none"
            and not self.latents
            and np.dtype(self.dtype) == np.dtype(self.dtype).newbyteorder("<")
        )


def index_bytes(rows_per_shard: int) -> int:
    """Return the size of a shard's index with its checksum (bytes)."""
    return 16 * rows_per_shard + CHECKSUM_BYTES


def encode_chunk(entry: np.ndarray, spec: ArraySpec) -> Chunk:
    """Return one view's entry as the bytes of a chunk. An entry that has these bytes in memory already is not copied.

    Args:
        entry: `spec.entry_shape` of the array's dtype.
        spec: the array.

    Raises:
        ContractError: the entry has another shape or dtype than the array.
    """
    if entry.shape != spec.entry_shape or entry.dtype != np.dtype(spec.dtype):
        found = f"an entry is {entry.dtype} {entry.shape}, expected {spec.dtype} {spec.entry_shape}"
        raise ContractError("entry", [Problem(place=spec.path, found=found)])
    stored = np.moveaxis(entry, -1, 0) if spec.latents else entry
    little = np.ascontiguousarray(stored).astype(np.dtype(spec.dtype).newbyteorder("<"), copy=False)
    body = little.reshape(-1).view(np.uint8)
    if spec.compression == "zstd":
        body = np.frombuffer(zstd_codec()(level=spec.level).encode(little), dtype=np.uint8)
    return body.data, _checksum(body)


def with_checksum(body: bytes | memoryview) -> bytes:
    """Return bytes followed by their CRC32C."""
    return b"".join((body, _checksum(np.frombuffer(body, dtype=np.uint8))))


def checked_body(chunk: memoryview, place: str) -> memoryview:
    """Return a chunk's bytes without their checksum, after checking it.

    Args:
        chunk: bytes and checksum.
        place: array, shard and row, for the error.

    Raises:
        CorruptionError: the checksum is wrong.
    """
    body, stored = chunk[:-CHECKSUM_BYTES], chunk[-CHECKSUM_BYTES:]
    require_checksum(np.frombuffer(body, dtype=np.uint8), bytes(stored), place)
    return body


def require_checksum(body: UInt8[np.ndarray, " _"], stored: bytes, place: str) -> None:
    """Check a chunk's bytes against the checksum that is stored after them.

    Args:
        body: the bytes.
        stored: the checksum.
        place: array, shard and row, for the error.

    Raises:
        CorruptionError: they do not match.
    """
    if _checksum(body) != stored:
        raise CorruptionError("chunk", [Problem(place=place, found="its CRC32C does not match its bytes")])


def decode_chunk(chunk: memoryview, spec: ArraySpec, out: np.ndarray, place: str) -> None:
    """Check a chunk and write its entry into `out`.

    Args:
        chunk: the chunk's bytes, checksum included.
        spec: the array.
        out: buffer to write into, `spec.entry_shape` of the array's dtype.
        place: array, shard and row, for the error.

    Raises:
        CorruptionError: checksum or length is wrong.
    """
    body = checked_body(chunk, place)
    if spec.compression == "zstd":
        body = _inflate(body, spec, place)
    if len(body) != spec.entry_bytes:
        found = f"{len(body)} bytes, expected {spec.entry_bytes}"
        raise CorruptionError("chunk", [Problem(place=place, found=found)])
    numbers, shape = np.frombuffer(body, dtype=np.dtype(spec.dtype).newbyteorder("<")), spec.entry_shape
    if spec.latents:
        out[...] = np.moveaxis(numbers.reshape(shape[-1], *shape[:-1]), 0, -1)
    else:
        out[...] = numbers.reshape(shape)


def require_whole_chunk(chunk: memoryview, spec: ArraySpec, place: str) -> None:
    """Check a chunk without decoding it: its checksum, and its length where it is not compressed.

    Args:
        chunk: bytes and checksum.
        spec: the array.
        place: array, shard and row, for the error.

    Raises:
        CorruptionError: checksum or length is wrong.
    """
    body = checked_body(chunk, place)
    if spec.compression == "none" and len(body) != spec.entry_bytes:
        found = f"{len(body)} bytes, expected {spec.entry_bytes}"
        raise CorruptionError("chunk", [Problem(place=place, found=found)])


def encode_index(spans: list[tuple[int, int]], rows_per_shard: int) -> bytes:
    """Return a shard's index: offset and length of each chunk, then empty slots.

    Args:
        spans: start and length of each chunk, in order of slot (bytes).
        rows_per_shard: slots of the shard.
    """
    index = np.full((rows_per_shard, 2), NO_CHUNK, dtype="<u8")
    index[: len(spans)] = np.array(spans, dtype="<u8").reshape(-1, 2)
    return with_checksum(index.tobytes())


def decode_index(index: bytes, rows_per_shard: int, place: str) -> UInt64[np.ndarray, "slots 2"]:
    """Check a shard's index and return offset and length of every slot.

    Args:
        index: its bytes, checksum included.
        rows_per_shard: slots of the shard.
        place: array and shard, for the error.

    Raises:
        CorruptionError: length or checksum is wrong.
    """
    body, checksum = index[:-CHECKSUM_BYTES], index[-CHECKSUM_BYTES:]
    if len(index) != index_bytes(rows_per_shard) or _checksum(body) != checksum:
        raise CorruptionError("shard index", [Problem(place=place, found="its CRC32C does not match its bytes")])
    return np.frombuffer(body, dtype="<u8").reshape(rows_per_shard, 2).astype(np.uint64, copy=False)


def array_metadata(spec: ArraySpec) -> dict[str, Any]:
    """Return the `zarr.json` of an array, as the Zarr v3 specification has it."""
    byte_order = {"name": "bytes", "configuration": {"endian": "little"}}
    one_byte = {"name": "bytes"}  # single bytes have no byte order
    zstd = {"name": "zstd", "configuration": {"level": spec.level, "checksum": False}}
    channels_first = {
        "name": "transpose",
        "configuration": {"order": [0, len(spec.shape) - 1, *range(1, len(spec.shape) - 1)]},
    }
    sharding = {
        "chunk_shape": [1, *spec.entry_shape],
        "codecs": [
            *([channels_first] if spec.latents else []),
            one_byte if spec.dtype in ("uint8", "int8") else byte_order,
            *([zstd] if spec.compression == "zstd" else []),
            {"name": "crc32c"},
        ],
        "index_codecs": [byte_order, {"name": "crc32c"}],
        "index_location": "end",
    }
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(spec.shape),
        "data_type": spec.dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [spec.rows_per_shard, *spec.entry_shape]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": FILL[spec.dtype],
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "attributes": _attributes(spec),
        "storage_transformers": [],
    }


def parse_array_metadata(path: str, metadata: dict[str, Any]) -> ArraySpec:
    """Read an array's `zarr.json`.

    Args:
        path: the array, inside `features.zarr`.
        metadata: its `zarr.json`.

    Raises:
        ContractError: it describes another layout than `array_metadata` writes.
    """
    try:
        chunk_codecs = metadata["codecs"][0]["configuration"]["codecs"]
        spec = ArraySpec(
            path=path,
            shape=tuple(metadata["shape"]),
            dtype=metadata["data_type"],
            rows_per_shard=metadata["chunk_grid"]["configuration"]["chunk_shape"][0],
            **_chosen(metadata["data_type"], metadata["attributes"], chunk_codecs),
        )
        understood = _as_json(array_metadata(spec)) == _as_json(metadata)
    except (KeyError, IndexError, TypeError, ContractError):
        understood = False
    if not understood:
        found, fix = "describes a layout that this version does not read", "another program or version wrote it"
        raise ContractError("array", [Problem(place=f"{path}/zarr.json", found=found, fix=fix)])
    return spec


def _attributes(spec: ArraySpec) -> dict[str, Any]:
    """Return what an array says of itself. A step that was chosen is sealed, with the array that it belongs to."""
    if spec.dtype != "int8":
        return {}
    if spec.latents:
        return {ATTRIBUTE: sealed({"array": spec.path, "latents": spec.latents})}
    step = {"step": spec.step}
    return {ATTRIBUTE: step if spec.step == INT8_STEP else sealed({"array": spec.path, **step})}


def _chosen(dtype: StoredType, attributes: dict[str, Any], chunk_codecs: list[Any]) -> dict[str, Any]:
    """Return the settings of an array that its type does not imply."""
    chosen: dict[str, Any] = {}
    if dtype == "int8":
        ours = attributes[ATTRIBUTE]
        chosen |= {"latents": ours["latents"]} if "latents" in ours else {"step": ours["step"]}
    for codec in chunk_codecs:
        if codec["name"] == "zstd":
            chosen |= {"compression": "zstd", "level": codec["configuration"]["level"]}
    return chosen


def _problems(spec: ArraySpec) -> Iterator[Problem]:
    # exactly int: 4.0 and true from JSON, and NumPy integers, would fail later and elsewhere
    if len(spec.shape) < 2 or not all(type(length) is int and length > 0 for length in spec.shape):
        yield Problem(place="shape", found=f"{spec.shape} is not two or more positive whole numbers")
    elif math.prod(spec.shape[1:]) * 4 > MOST_ENTRY_BYTES:
        yield Problem(place="shape", found=f"an entry of {spec.shape[1:]} takes more than {MOST_ENTRY_BYTES} bytes")
    if type(spec.rows_per_shard) is not int or spec.rows_per_shard < 1:
        yield Problem(place="rows_per_shard", found=f"{spec.rows_per_shard!r} is not a positive whole number")
    if type(spec.level) is not int or spec.level not in LEVELS:
        yield Problem(place="level", found=f"{spec.level!r} is not a whole number from 1 to {LEVELS[-1]}")
    if type(spec.step) is not float or not 0 < spec.step < math.inf:
        yield Problem(place="step", found=f"{spec.step!r} is not a positive number")
    if spec.latents and (spec.dtype != "int8" or not re.fullmatch("[0-9a-f]{64}", str(spec.latents))):
        yield Problem(place="latents", found=f"{spec.latents!r} is not the digest of latents of an array of int8")
    for field, allowed in (("dtype", get_args(StoredType)), ("compression", get_args(Compression))):
        if getattr(spec, field) not in allowed:
            yield Problem(place=field, found=f"{getattr(spec, field)!r} is none of {', '.join(allowed)}")


def _as_json(metadata: dict[str, Any]) -> str:
    return json.dumps(metadata, sort_keys=True)  # Python takes 1 and True for equal; as text they differ


def _inflate(body: memoryview, spec: ArraySpec, place: str) -> memoryview:
    # the array's own shape gives the size of the buffer: a chunk that inflates to more or to less is refused
    try:
        return memoryview(_ZSTD.decompress(body, spec.entry_bytes))
    except OSError as error:
        found = f"does not inflate to {spec.entry_bytes} bytes: {error}"
        raise CorruptionError("chunk", [Problem(place=place, found=found)]) from error


def _checksum(body: bytes | UInt8[np.ndarray, " _"]) -> bytes:
    return google_crc32c.value(body).to_bytes(CHECKSUM_BYTES, "little")
