"""PHI-S and statistics lie in plain Zarr arrays that come back bit for bit, or are refused."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.codecs import Crc32cCodec
from zarr.core.buffer import cpu
from zarr.storage import MemoryStore

from storage_schemas.format.errors import ContractError, CorruptionError, MissingError
from storage_schemas.objects.publish import publish_bytes
from storage_schemas.objects.store import Store
from storage_schemas.small_arrays import array_digest, read_small_array, small_array_metadata, write_small_arrays

ARRAYS = {
    "mean": np.random.default_rng(0).standard_normal(5),
    "rotation": np.random.default_rng(1).standard_normal((3, 4)),
    "scale": np.array(0.1),
    "low-256/mean": np.zeros(2),
}


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store of each kind with ARRAYS in the group `g`."""
    filled = Store(uri=str(tmp_path) if request.param == "local" else "memory://small")
    write_small_arrays(filled, "g", ARRAYS)
    yield filled
    filled.filesystem.rm(filled.path("features.zarr"), recursive=True)


def test_arrays_come_back_bit_for_bit(store: Store) -> None:
    for name, values in ARRAYS.items():
        read = read_small_array(store, f"g/{name}")
        assert (read.shape, read.dtype, read.tobytes()) == (values.shape, np.float64, values.tobytes())


def test_zarr_reads_them_too(store: Store) -> None:
    for name, values in ARRAYS.items():
        held = {key.removeprefix("features.zarr/"): store.read(key) for key in store.listing("features.zarr")}
        there = MemoryStore({key: cpu.Buffer.from_bytes(body) for key, body in held.items()}, read_only=True)
        read = zarr.open_array(there, path=f"g/{name}", mode="r")[...]
        np.testing.assert_array_equal(read, values)


def test_the_metadata_is_what_zarr_writes(store: Store, tmp_path: Path) -> None:
    for name, values in ARRAYS.items():
        shape = {"shape": values.shape, "chunks": values.shape, "dtype": "float64", "fill_value": np.nan}
        zarr.create_array(tmp_path / "zarr", name=name, compressors=[Crc32cCodec()], **shape)[...] = values
        for part in ("zarr.json", "c" + "/0" * values.ndim):
            theirs, ours = (tmp_path / "zarr" / name / part).read_bytes(), store.read(f"features.zarr/g/{name}/{part}")
            assert ours == theirs or json.loads(ours) == json.loads(theirs) == small_array_metadata(values.shape)


def test_the_groups_above_are_made_where_there_are_none(store: Store) -> None:
    groups = [name for name in store.listing("") if b'"group"' in store.read(name)]
    assert groups == ["features.zarr/g/low-256/zarr.json", "features.zarr/g/zarr.json"]
    plain = b'{\n "zarr_format": 3,\n "node_type": "group",\n "attributes": {}\n}'
    assert [store.read(name) for name in groups] == [plain] * 2, "the bytes that caches have always had"
    ours = b'{"zarr_format": 3, "node_type": "group", "attributes": {"stillhouse": {}}}'
    publish_bytes(store, "features.zarr/g/zarr.json", ours)
    write_small_arrays(store, "g", ARRAYS)
    assert store.read("features.zarr/g/zarr.json") == ours


def test_writing_again_replaces_what_was_there(store: Store) -> None:
    write_small_arrays(store, "g", {"mean": np.ones(7)})
    np.testing.assert_array_equal(read_small_array(store, "g/mean"), np.ones(7))
    np.testing.assert_array_equal(read_small_array(store, "g/rotation"), ARRAYS["rotation"])


def test_an_array_that_is_not_there_is_missing(store: Store) -> None:
    with pytest.raises(MissingError) as refusal:
        read_small_array(store, "g/variance")
    assert str(refusal.value) == "array is missing:\n  g/variance: is not there"


def test_an_array_whose_chunk_was_never_written_is_refused_where_zarr_would_fill_it(tmp_path: Path) -> None:
    store = Store(uri=str(tmp_path))
    write_small_arrays(store, "g", ARRAYS)
    (tmp_path / "features.zarr/g/mean/c/0").unlink()
    with pytest.raises(CorruptionError) as refusal:
        read_small_array(store, "g/mean")
    assert str(refusal.value) == "array is damaged:\n  g/mean: its chunk was never written"


@pytest.mark.parametrize(
    "values", [np.ones(3, np.float32), np.arange(3), np.array([1.0, np.nan]), np.array([np.inf])], ids=str
)
def test_what_is_not_finite_float64_is_refused_before_anything_is_written(values: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(ContractError) as refusal:
        write_small_arrays(Store(uri=str(tmp_path)), "g", {"mean": np.ones(3), "variance": values})
    assert str(refusal.value) == (
        "array breaks the storage contract:\n"
        f"  g/variance: is {values.dtype}, or holds NaN or infinity; expected finite float64, or int8"
    )
    assert not (tmp_path / "features.zarr").exists()


@pytest.mark.parametrize("name", ["rotation/zarr.json", "rotation/c/0/0", "scale/zarr.json", "scale/c"])
def test_every_flipped_bit_and_every_cut_is_found(name: str, tmp_path: Path) -> None:
    store, array = Store(uri=str(tmp_path)), name.split("/", 1)[0]
    write_small_arrays(store, "g", ARRAYS)
    place = tmp_path / "features.zarr/g" / name
    body = place.read_bytes()
    bits = np.random.default_rng(0).integers(0, 8, size=len(body)).tolist()
    flipped = (bytes([*body[:i], body[i] ^ 1 << bit, *body[i + 1 :]]) for i, bit in enumerate(bits))
    what = f"array is damaged:\n  g/{array}/zarr.json: is not the metadata of a small array"
    if "zarr.json" not in name:
        what = f"chunk is damaged:\n  g/{array}: its CRC32C does not match its bytes"
    for torn in [*flipped, *(body[:length] for length in range(len(body)))]:
        place.write_bytes(torn)
        with pytest.raises(CorruptionError) as refusal:
            read_small_array(store, f"g/{array}")
        assert str(refusal.value) == what


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("shape", [[5.0], [True], "5", None, {}])
def test_a_shape_that_is_not_of_whole_numbers_is_refused(shape: Any, tmp_path: Path) -> None:
    store = Store(uri=str(tmp_path))
    write_small_arrays(store, "g", ARRAYS)
    metadata = small_array_metadata((5,)) | {"shape": shape}
    metadata["chunk_grid"]["configuration"]["chunk_shape"] = shape
    (tmp_path / "features.zarr/g/mean/zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(CorruptionError) as refusal:
        read_small_array(store, "g/mean")
    assert str(refusal.value) == "array is damaged:\n  g/mean/zarr.json: is not the metadata of a small array"


def test_metadata_of_another_shape_does_not_cut_an_array_short(tmp_path: Path) -> None:
    store = Store(uri=str(tmp_path))
    write_small_arrays(store, "g", ARRAYS)
    (tmp_path / "features.zarr/g/mean/zarr.json").write_text(json.dumps(small_array_metadata((4,))))
    with pytest.raises(CorruptionError) as refusal:
        read_small_array(store, "g/mean")
    assert str(refusal.value) == "array is damaged:\n  g/mean: 40 bytes do not fill the shape (4,)"


def test_a_sound_array_in_anothers_place_is_refused_where_its_digest_is_told(tmp_path: Path) -> None:
    store, values = Store(uri=str(tmp_path)), np.arange(3.0)
    write_small_arrays(store, "g", {"mean": values, "variance": values + 1})
    np.testing.assert_array_equal(read_small_array(store, "g/mean", array_digest(values)), values)
    with pytest.raises(CorruptionError, match=r"g/variance: is sound, but not the array that its group names"):
        read_small_array(store, "g/variance", array_digest(values))
