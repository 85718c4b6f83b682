"""A shard is bytes that plain zarr-python reads and writes, and no other bytes pass for one."""

import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pytest
import zarr
from numcodecs.zstd import Zstd
from zarr.codecs import Crc32cCodec, ZstdCodec

from storage_schemas.format import seal
from storage_schemas.format.errors import ContractError, CorruptionError
from storage_schemas.format.shard_format import (
    NO_CHUNK,
    ArraySpec,
    Compression,
    StoredType,
    array_metadata,
    decode_chunk,
    decode_index,
    encode_chunk,
    encode_index,
    index_bytes,
    parse_array_metadata,
    require_whole_chunk,
)

SPECS = [
    ArraySpec(path="a/b", shape=(10, *entry), dtype=dtype, rows_per_shard=4, compression=compression)
    for entry in ((3, 3, 2), (7,))
    for dtype in get_args(StoredType)
    for compression in get_args(Compression)
]
every_spec = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.shape}-{spec.dtype}-{spec.compression}")
CHECKSUM_OF_123456789 = bytes.fromhex("839206e3")  # CRC32C's published check value, E3069283, little-endian


def entries_of(spec: ArraySpec, count: int) -> np.ndarray:
    """Return `count` entries without a value that the array fills with."""
    draws = np.random.default_rng(count).integers(1, 255, size=(count, *spec.entry_shape))
    return draws.astype(spec.dtype)


def shard_of(spec: ArraySpec, entries: np.ndarray) -> bytes:
    """Return the shard that holds `entries` in its first slots."""
    chunks = [b"".join(encode_chunk(entry, spec)) for entry in entries]
    starts = np.cumsum([0, *map(len, chunks)]).tolist()
    spans = [(start, len(chunk)) for start, chunk in zip(starts, chunks, strict=False)]
    return b"".join(chunks) + encode_index(spans, spec.rows_per_shard)


NOTHING = {"uint8": 0, "int8": -128, "float16": np.nan, "float32": np.nan}
"""What a reader finds where nothing is."""


def zarr_written(spec: ArraySpec, folder: Path) -> zarr.Array:
    """Let zarr-python create the array that `spec` describes."""
    compressors = [ZstdCodec(level=3), Crc32cCodec()] if spec.compression == "zstd" else [Crc32cCodec()]
    return zarr.create_array(
        folder,
        shape=spec.shape,
        chunks=(1, *spec.entry_shape),
        shards=(spec.rows_per_shard, *spec.entry_shape),
        dtype=spec.dtype,
        compressors=compressors,
        fill_value=NOTHING[spec.dtype],
        zarr_format=3,
        attributes={"stillhouse": {"step": 8 / 127}} if spec.dtype == "int8" else {},
    )


@every_spec
def test_zarr_reads_what_was_encoded_and_fills_the_slots_without_a_view(spec: ArraySpec, tmp_path: Path) -> None:
    entries = entries_of(spec, 9)
    (tmp_path / "zarr.json").write_text(json.dumps(array_metadata(spec)))
    for shard in range(3):
        place = tmp_path / "c" / str(shard) / "/".join("0" for _ in spec.entry_shape)
        place.parent.mkdir(parents=True)
        place.write_bytes(shard_of(spec, entries[4 * shard : 4 * shard + 4]))
    read = zarr.open_array(tmp_path, mode="r")[...]
    fill = np.full((1, *spec.entry_shape), NOTHING[spec.dtype], spec.dtype)
    assert read.dtype == np.dtype(spec.dtype)
    np.testing.assert_array_equal(read, np.concatenate([entries, fill]))


@every_spec
def test_what_zarr_wrote_is_decoded_wherever_its_index_puts_the_chunks(spec: ArraySpec, tmp_path: Path) -> None:
    entries = entries_of(spec, 10)
    zarr_written(spec, tmp_path)[...] = entries
    shard = (tmp_path / "c" / "2" / "/".join("0" for _ in spec.entry_shape)).read_bytes()
    index = decode_index(shard[-index_bytes(4) :], 4, "here")
    assert (index[2:] == NO_CHUNK).all()
    for (offset, length), entry in zip(index[:2].tolist(), entries[8:], strict=True):
        out = np.empty(spec.entry_shape, spec.dtype)
        decode_chunk(memoryview(shard)[offset : offset + length], spec, out, "here")
        np.testing.assert_array_equal(out, entry)


@every_spec
def test_the_metadata_is_what_zarr_writes_for_such_an_array(spec: ArraySpec, tmp_path: Path) -> None:
    zarr_written(spec, tmp_path)
    assert array_metadata(spec) == json.loads((tmp_path / "zarr.json").read_text())


@every_spec
def test_a_spec_comes_back_from_its_metadata(spec: ArraySpec) -> None:
    assert parse_array_metadata("a/b", json.loads(json.dumps(array_metadata(spec)))) == spec


def test_metadata_is_understood_whatever_the_order_of_its_keys() -> None:
    turned = json.loads(json.dumps(array_metadata(SPECS[0])), object_pairs_hook=lambda pairs: dict(reversed(pairs)))
    assert list(turned) != list(array_metadata(SPECS[0]))
    assert parse_array_metadata("a/b", turned) == SPECS[0]


def test_a_chunk_is_its_entry_in_little_endian_and_its_crc32c() -> None:
    letters = ArraySpec(path="a", shape=(1, 9), dtype="uint8", rows_per_shard=1)
    body, checksum = map(bytes, encode_chunk(np.frombuffer(b"123456789", np.uint8), letters))
    assert (body, checksum) == (b"123456789", CHECKSUM_OF_123456789)
    halves = ArraySpec(path="a", shape=(1, 2), dtype="float16", rows_per_shard=1)
    assert bytes(encode_chunk(np.array([1, -2], np.float16), halves)[0]) == b"\x00\x3c\x00\xc0"


def test_an_index_is_one_pair_of_eight_bytes_for_each_slot_and_its_crc32c() -> None:
    index = encode_index([(0, 7), (7, 2**33)], 3)
    assert index[:-4] == bytes([0] * 8 + [7] + [0] * 7 + [7] + [0] * 7 + [0] * 4 + [2] + [0] * 3 + [255] * 16)
    assert len(index) == index_bytes(3) == 52
    assert decode_index(index, 3, "here").tolist() == [[0, 7], [7, 2**33], [2**64 - 1, 2**64 - 1]]
    assert (decode_index(encode_index([], 2), 2, "here") == NO_CHUNK).all()


def test_sizes_follow_from_the_shape() -> None:
    spec = ArraySpec(path="a", shape=(10, 3, 5), dtype="float16", rows_per_shard=4)
    assert (spec.entry_shape, spec.entry_bytes) == ((3, 5), 30)


def test_a_chunk_is_written_through_to_a_buffer_that_is_not_contiguous() -> None:
    spec = ArraySpec(path="a", shape=(1, 3, 2), dtype="float16", rows_per_shard=1)
    entry = np.arange(6, dtype=np.float16).reshape(3, 2)
    out = np.zeros((3, 4), np.float16)
    decode_chunk(memoryview(b"".join(encode_chunk(entry, spec))), spec, out[:, ::2], "here")
    np.testing.assert_array_equal(out[:, ::2], entry)


@pytest.mark.parametrize(
    "entry", [np.zeros((2, 3), np.float16), np.zeros((3, 2), np.float32), np.zeros((3, 2), np.dtype(">f2"))]
)
def test_an_entry_of_another_shape_or_type_is_refused(entry: np.ndarray) -> None:
    spec = ArraySpec(path="a", shape=(1, 3, 2), dtype="float16", rows_per_shard=1)
    with pytest.raises(ContractError) as refusal:
        encode_chunk(entry, spec)
    assert str(refusal.value) == (
        f"entry breaks the storage contract:\n  a: an entry is {entry.dtype} {entry.shape}, expected float16 (3, 2)"
    )


def sealed(body: bytes) -> memoryview:
    """Return a chunk with a right checksum around any body."""
    letters = ArraySpec(path="a", shape=(1, max(len(body), 1)), dtype="uint8", rows_per_shard=1)
    return memoryview(b"".join(encode_chunk(np.frombuffer(body, np.uint8), letters)) if body else bytes(4))


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_chunk_of_another_length_is_refused_though_its_checksum_is_right(length: int) -> None:
    spec = ArraySpec(path="a", shape=(1, 8), dtype="float32", rows_per_shard=1)
    with pytest.raises(CorruptionError) as refusal:
        decode_chunk(sealed(bytes(length)), spec, np.empty(8, np.float32), "a shard 0 row 3")
    assert str(refusal.value) == f"chunk is damaged:\n  a shard 0 row 3: {length} bytes, expected 32"


@every_spec
def test_a_chunk_that_is_copied_undecoded_is_checked(spec: ArraySpec) -> None:
    [entry] = entries_of(spec, 1)
    chunk = b"".join(encode_chunk(entry, spec))
    require_whole_chunk(memoryview(chunk), spec, "a/b shard 0 row 0")
    flipped = bytes([chunk[0] ^ 1]) + chunk[1:]
    with pytest.raises(CorruptionError, match=r"^chunk is damaged:\n  a/b shard 0 row 0: "):
        require_whole_chunk(memoryview(flipped), spec, "a/b shard 0 row 0")


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_chunk_of_another_length_is_not_copied_undecoded(length: int) -> None:
    spec = ArraySpec(path="a", shape=(1, 16), dtype="float16", rows_per_shard=1)
    with pytest.raises(CorruptionError) as refusal:
        require_whole_chunk(sealed(bytes(length)), spec, "a shard 0 row 0")
    assert str(refusal.value).endswith(f"a shard 0 row 0: {length} bytes, expected 32")


@pytest.mark.parametrize(
    "inflated", [b"\0" * 31, b"\0" * 33, b"\0" * 2**26, None], ids=["a byte less", "a byte more", "64 MiB", "no zstd"]
)
def test_a_chunk_that_inflates_to_another_size_is_refused_and_not_followed(inflated: bytes | None) -> None:
    spec = ArraySpec(path="a", shape=(1, 8), dtype="float32", rows_per_shard=1, compression="zstd")
    chunk = sealed(b"not zstd" if inflated is None else bytes(Zstd(level=3).encode(inflated)))
    most = pa.default_memory_pool().max_memory()
    with pytest.raises(CorruptionError) as refusal:
        decode_chunk(chunk, spec, np.empty(8, np.float32), "a shard 0 row 3")
    assert str(refusal.value).startswith("chunk is damaged:\n  a shard 0 row 3: does not inflate to 32 bytes: ")
    assert pa.default_memory_pool().max_memory() - most < 2**20


@pytest.mark.parametrize("length", range(4))
def test_a_chunk_too_short_to_hold_a_checksum_is_refused(length: int) -> None:
    with pytest.raises(CorruptionError) as refusal:
        decode_chunk(memoryview(bytes(length)), SPECS[0], np.empty(SPECS[0].entry_shape, np.uint8), "here")
    assert str(refusal.value) == "chunk is damaged:\n  here: its CRC32C does not match its bytes"


@pytest.mark.parametrize("slots", [2, 4])
def test_an_index_of_another_length_is_refused(slots: int) -> None:
    with pytest.raises(CorruptionError) as refusal:
        decode_index(encode_index([], slots), 3, "a shard 0")
    assert str(refusal.value) == "shard index is damaged:\n  a shard 0: its CRC32C does not match its bytes"


def leaves(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Return the place of every value in a JSON tree."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in inner:
        yield (*place, key)
        yield from leaves(below, (*place, key))


def changed(metadata: dict[str, Any], place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """Return metadata with the value at one place replaced."""
    copy = deepcopy(metadata)
    node = copy
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = value
    return copy


def refusal_of(metadata: Any) -> str:
    """Return what is said of metadata that must be refused."""
    with pytest.raises(ContractError) as refusal:
        parse_array_metadata("a/b", metadata)
    return str(refusal.value)


COARSE = ArraySpec(path="a/b", shape=(8, 2), dtype="int8", rows_per_shard=4, compression="zstd", step=0.25, level=1)
"""An array whose step and level were chosen."""
FOREIGN = (
    "array breaks the storage contract:\n"
    "  a/b/zarr.json: describes a layout that this version does not read (another program or version wrote it)"
)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("spec", [SPECS[0], SPECS[3], COARSE], ids=["plain", "zstd", "coarse"])
@pytest.mark.parametrize("value", ["other", None, [], {}, 2.5, -1, 0, True])
def test_metadata_with_any_one_value_changed_is_refused(spec: ArraySpec, value: Any) -> None:
    metadata = array_metadata(spec)
    for place in leaves(metadata):
        other = changed(metadata, place, value)
        if json.dumps(other) != json.dumps(metadata):
            assert refusal_of(other) == FOREIGN, place


@pytest.mark.parametrize(("step", "level"), [(8 / 127, 3), (0.25, 1), (1e-3, 19)])
def test_step_and_level_are_read_from_the_metadata(step: float, level: int) -> None:
    spec = ArraySpec(
        path="a", shape=(8, 50), dtype="int8", rows_per_shard=4, compression="zstd", step=step, level=level
    )
    metadata = json.loads(json.dumps(array_metadata(spec)))
    said = metadata["attributes"]["stillhouse"]
    assert said == ({"step": step} if step == 8 / 127 else seal.sealed({"array": "a", "step": step}))
    assert metadata["codecs"][0]["configuration"]["codecs"][1]["configuration"]["level"] == level
    read = parse_array_metadata("a", metadata)
    assert (read, read.coding.step) == (spec, step)
    if step != 8 / 127:
        with pytest.raises(ContractError, match="describes a layout"):
            parse_array_metadata("another", metadata)
    entry = np.random.default_rng(0).integers(-9, 10, 50).astype(np.int8)
    body, _ = encode_chunk(entry, spec)
    assert bytes(body) == Zstd(level=level).encode(entry)


def test_pixels_stand_for_no_features() -> None:
    with pytest.raises(ContractError, match="holds pixels, not features"):
        _ = ArraySpec(path="a", shape=(1, 9), dtype="uint8", rows_per_shard=1).coding


SHARDING = ("codecs", 0, "configuration")
HALVES = ArraySpec(path="a/b", shape=(10, 3, 2), dtype="float16", rows_per_shard=4)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("place", "value"),
    [
        ((*SHARDING, "codecs"), [{"name": "crc32c"}, {"name": "bytes", "configuration": {"endian": "little"}}]),
        ((*SHARDING, "codecs"), [{"name": "bytes", "configuration": {"endian": "little"}}]),
        ((*SHARDING, "codecs", 0, "configuration", "endian"), "big"),
        ((*SHARDING, "index_location"), "start"),
        ((*SHARDING, "index_codecs"), [{"name": "bytes", "configuration": {"endian": "little"}}]),
        ((*SHARDING, "chunk_shape", 0), 2),
        (("data_type",), "float64"),
        (("data_type",), "uint8"),
        (("shape", 0), 10.0),
        (("shape", 1), 4),
        (("fill_value",), 0),
        (("attributes",), {"units": "cm"}),
        (("zarr_format",), 2),
        (("chunk_grid", "configuration", "chunk_shape", 0), 4.0),
        (("dimension_names",), ["a", "b", "c"]),
    ],
)
def test_a_layout_that_zarr_knows_and_we_do_not_write_is_refused(place: tuple[Any, ...], value: Any) -> None:
    assert refusal_of(changed(array_metadata(HALVES), place, value)) == FOREIGN


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("metadata", [None, [], "", {}, 3])
def test_what_is_no_array_metadata_at_all_is_refused(metadata: Any) -> None:
    assert refusal_of(metadata) == FOREIGN


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"shape": (10,)}, "shape: (10,) is not two or more positive whole numbers"),
        ({"shape": (10, 0)}, "shape: (10, 0) is not two or more positive whole numbers"),
        ({"shape": (10, 2.0)}, "shape: (10, 2.0) is not two or more positive whole numbers"),
        ({"rows_per_shard": 0}, "rows_per_shard: 0 is not a positive whole number"),
        ({"rows_per_shard": True}, "rows_per_shard: True is not a positive whole number"),
        ({"dtype": "int16"}, "dtype: 'int16' is none of uint8, int8, float16, float32"),
        ({"step": 0.0}, "step: 0.0 is not a positive number"),
        ({"step": 1}, "step: 1 is not a positive number"),
        ({"level": 0}, "level: 0 is not a whole number from 1 to 19"),
        ({"compression": "gzip"}, "compression: 'gzip' is none of none, zstd"),
    ],
)
def test_an_array_that_cannot_be_is_refused(change: dict[str, Any], problem: str) -> None:
    settings: dict[str, Any] = {"path": "a/b", "shape": (10, 2), "dtype": "uint8", "rows_per_shard": 4}
    with pytest.raises(ContractError) as refusal:
        ArraySpec(**settings | change)
    assert str(refusal.value) == f"array a/b breaks the storage contract:\n  {problem}"
