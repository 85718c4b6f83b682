"""Parquet files with a column of image bytes, such as those of img2dataset and Hugging Face."""

from collections.abc import Iterator, Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import OLD_RULES
from pipeline.images.archives import Archive
from pipeline.images.file_system import LISTING_TRIES, source_of
from pipeline.images.names import is_image
from pipeline.images.passed_over import NOT_DOWNLOADED
from pipeline.images.reader import cell_locator
from storage_schemas.format.errors import Problem, SettingError

IMAGE_COLUMNS = ("jpg", "jpeg", "png", "webp", "avif", "jp2", "image", "image.bytes", "bytes")
"""Columns that may hold image bytes. `image.bytes` is a field of a struct, as Hugging Face writes it."""
MORE_IMAGE_COLUMNS = ("img", "img.bytes", *(f"{name}.bytes" for name in IMAGE_COLUMNS[:6]))
"""Columns that may hold image bytes where none of `IMAGE_COLUMNS` does."""
KEY_COLUMNS = ("key", "__key__", "image.path", "path", "file_name", "id")
"""Columns that may name a row; the first of them that exists is used."""
STATUS, SUCCESS = "status", "success"
"""img2dataset keeps a row for each image that it could not download; this column then holds another value."""

Kinds = Mapping[str, pa.DataType]
"""Type of each column, and of each field of a struct."""


def list_cells(archive: Archive) -> Iterator[tuple[str, str]]:
    """List the images of a Parquet file, without reading the image bytes.

    The key of a row is the value of its key column, or `<path below DATA>/<row number>` (from 0) where it has none. If
    the key does not end like the name of an image, and the image column is called like such an ending, that is added:
    `000012` in a file with a column `jpg` becomes `000012.jpg`, as in a folder or a tar of the same images.

    Args:
        archive: the file.

    Yields:
        (key, locator of the cell), for every row except those that img2dataset could not download.

    Raises:
        SettingError: the file cannot be read, or its columns do not say which of them holds images or keys.
    """
    uri = archive.uri
    source, path = source_of(uri, archive.retries, LISTING_TRIES)
    try:
        with source.open(path) as file, pq.ParquetFile(file, pre_buffer=False) as parquet:
            kinds = dict(_leaves(parquet.schema_arrow))
            column = _image_column(archive, kinds)
            naming = None if archive.config.keys == "numbers" else _key_column(archive, kinds)
            wanted = [name for name in (naming, STATUS) if name in kinds]
            number = 0
            for group in range(parquet.num_row_groups):
                for row, (key, downloaded) in enumerate(_named_rows(parquet, group, naming, wanted)):
                    if downloaded:
                        name = archive.key(_text(archive, key), number)
                        yield _with_suffix(name, column), cell_locator(uri, group, row, column)
                    else:
                        archive.passed_over.add(NOT_DOWNLOADED)
                    number += 1
    except pa.ArrowException as error:
        found, fix = f"cannot be read as Parquet: {type(error).__name__}", "download it again, or leave it out"
        raise _refusal(archive, found, fix) from error


def _leaves(schema: pa.Schema) -> Iterator[tuple[str, pa.DataType]]:
    for column in schema:
        if pa.types.is_struct(column.type):
            yield from ((f"{column.name}.{inner.name}", inner.type) for inner in column.type)
        else:
            yield column.name, column.type


def _image_column(archive: Archive, kinds: Kinds) -> str:
    chosen = archive.config.image_column
    if chosen:
        for name in (chosen, f"{chosen}.bytes"):
            if name in kinds and _is_bytes(kinds[name]):
                return name
    else:
        for names in (IMAGE_COLUMNS, MORE_IMAGE_COLUMNS):
            columns = [name for name in names if name in kinds and _is_bytes(kinds[name])]
            if len(columns) == 1:
                return columns[0]
            if columns:
                break
    of_bytes = [name for name, kind in kinds.items() if _is_bytes(kind)]
    if not of_bytes:
        found = f"has no column of bytes; its columns are {', '.join(kinds)}"
        raise _refusal(archive, found, "a column of images is binary: give a file that holds images, not their names")
    found = f"does not say which column holds images; its columns of bytes are {', '.join(of_bytes)}"
    raise _refusal(archive, found, "name it with --views.image-column")


def _key_column(archive: Archive, kinds: Kinds) -> str | None:
    chosen = archive.config.key_column
    if chosen and chosen not in kinds:
        raise _refusal(archive, f"has no column {chosen}; its columns are {', '.join(kinds)}", "see --views.key-column")
    return chosen or next((name for name in KEY_COLUMNS if name in kinds), None)


def _is_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_bytes(kind.value_type)
    kinds = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)
    return any(is_kind(kind) for is_kind in kinds)


def _text(archive: Archive, key: object) -> str | None:
    if not isinstance(key, bytes) or archive.config.rules == OLD_RULES:
        return None if key is None else str(key)
    try:
        return key.decode()
    except UnicodeDecodeError as error:
        fix = "name another column with --views.key-column, or set --views.keys numbers"
        raise _refusal(archive, f"has a key that is not UTF-8: {key!r}", fix) from error


def _named_rows(
    parquet: pq.ParquetFile, group: int, naming: str | None, wanted: list[str]
) -> Iterator[tuple[object, bool]]:
    rows = parquet.metadata.row_group(group).num_rows
    table = parquet.read_row_group(group, columns=wanted, use_threads=False).flatten() if wanted else None
    keys = [None] * rows if table is None or naming is None else table[naming].to_pylist()
    statuses = [SUCCESS] * rows if table is None or STATUS not in wanted else table[STATUS].to_pylist()
    return zip(keys, (status == SUCCESS for status in statuses), strict=True)


def _with_suffix(name: str, column: str) -> str:
    ending = column.removesuffix(".bytes")
    return name if is_image(name, OLD_RULES) or not is_image(f".{ending}", OLD_RULES) else f"{name}.{ending}"


def _refusal(archive: Archive, found: str, fix: str) -> SettingError:
    return SettingError("Parquet file", [Problem(place=archive.uri, found=found, fix=fix)])
