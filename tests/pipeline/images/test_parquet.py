"""Parquet files as people have them: every type of bytes, any column, keys of text and of bytes."""

import itertools
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from packaging.version import Version

from pipeline.config import ViewsConfig
from pipeline.images.listing import list_images
from pipeline.images.parquet import IMAGE_COLUMNS, MORE_IMAGE_COLUMNS
from pipeline.images.reader import ImageReader
from storage_schemas.format.errors import SettingError

BODIES = [b"first", b"other", b"third"]
"""All of one length, for the type of fixed size."""
TYPES = {
    "binary": pa.binary(),
    "large": pa.large_binary(),
    "fixed": pa.binary(5),
    "view": pa.binary_view(),
    "dictionary": pa.dictionary(pa.int32(), pa.binary()),
    "large dictionary": pa.dictionary(pa.int64(), pa.large_binary()),
}


def column_of(kind: str) -> pa.Array:
    """The bytes as an array of a type."""
    plain = pa.array(BODIES, pa.binary())
    return plain.dictionary_encode().cast(TYPES[kind]) if "dictionary" in kind else pa.array(BODIES, TYPES[kind])


WRITES_VIEWS = Version(pa.__version__) >= Version("21")
"""Whether this pyarrow writes views to Parquet. One that does not has none to read."""


def read(path: Path, **settings: str) -> dict[str, bytes]:
    """The bytes of every image of a file, by key."""
    reader = ImageReader()
    return {image.key: reader.read(image.uri) for image in list_images(str(path), ViewsConfig(**settings))}


@pytest.mark.parametrize("schema", [True, False], ids=["Arrow's schema stored", "Parquet's types alone"])
@pytest.mark.parametrize("dictionary", [True, False], ids=["dictionary pages", "plain pages"])
@pytest.mark.parametrize("struct", [True, False], ids=["in a struct", "as a column"])
@pytest.mark.parametrize("kind", [kind for kind in TYPES if kind != "view" or WRITES_VIEWS])
def test_bytes_of_every_type_are_images(
    kind: str, *, struct: bool, dictionary: bool, schema: bool, tmp_path: Path
) -> None:
    values = column_of(kind)
    column = pa.StructArray.from_arrays([values, pa.array("abc")], ["bytes", "path"]) if struct else values
    table = pa.table({"image": column, "key": list("xyz")})
    path = tmp_path / "a.parquet"
    rows = 3 if kind == "view" else 2  # the writer cannot divide structs of views
    pq.write_table(table, path, use_dictionary=dictionary, store_schema=schema, row_group_size=rows)
    assert read(path) == dict(zip("xyz", BODIES, strict=True))


@pytest.mark.parametrize("name", [*IMAGE_COLUMNS, *MORE_IMAGE_COLUMNS, "anything", "any.bytes"])
def test_a_column_is_found_by_its_name_or_named_by_a_setting(name: str, tmp_path: Path) -> None:
    column, _, inner = name.partition(".")
    values = pa.StructArray.from_arrays([pa.array(BODIES)], [inner]) if inner else pa.array(BODIES)
    pq.write_table(pa.table({"thumbnail": [b"x"] * 3, column: values, "key": list("xyz")}), tmp_path / "a.parquet")
    if name.startswith("any"):
        with pytest.raises(SettingError, match=rf"its columns of bytes are thumbnail, {name} \(name it with --views"):
            read(tmp_path)
        found = read(tmp_path, image_column=column)
    else:
        found = read(tmp_path)
    assert list(found.values()) == BODIES


def test_a_setting_decides_between_columns_of_images_and_of_keys(tmp_path: Path) -> None:
    columns = {"jpg": BODIES, "png": BODIES[::-1], "key": list("abc"), "other": [3, 4, 5]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    expected = dict(zip(("a.png", "b.png", "c.png"), BODIES[::-1], strict=True))
    assert read(tmp_path, image_column="png") == expected
    assert list(read(tmp_path, image_column="jpg", key_column="other")) == ["3.jpg", "4.jpg", "5.jpg"]
    with pytest.raises(SettingError, match="has no column none; its columns are jpg, png, key, other"):
        read(tmp_path, image_column="jpg", key_column="none")
    with pytest.raises(SettingError, match="its columns of bytes are jpg, png"):
        read(tmp_path, image_column="key")


def test_keys_of_bytes_are_text(tmp_path: Path) -> None:
    pq.write_table(pa.table({"jpg": BODIES, "key": ["é".encode(), b"b", None]}), tmp_path / "a.parquet")
    assert list(read(tmp_path)) == ["a.parquet/2.jpg", "b.jpg", "é.jpg"]
    pq.write_table(pa.table({"jpg": BODIES, "key": [b"\xff", b"b", b"c"]}), tmp_path / "a.parquet")
    with pytest.raises(SettingError, match=r"has a key that is not UTF-8: b'\\xff' \(name another column with"):
        read(tmp_path)
    assert list(read(tmp_path, keys="numbers")) == ["a.parquet/0.jpg", "a.parquet/1.jpg", "a.parquet/2.jpg"]


def test_the_views_of_a_dataset_that_was_written_in_parts_have_keys_of_their_own(tmp_path: Path) -> None:
    places = [f"split={split}/part-{part}.parquet" for split, part in itertools.product(("train", "val"), range(2))]
    for place in places:
        (tmp_path / place).parent.mkdir(exist_ok=True)
        pq.write_table(pa.table({"jpg": BODIES}), tmp_path / place)
    assert list(read(tmp_path)) == [f"{place}/{row}.jpg" for place in places for row in range(3)]
