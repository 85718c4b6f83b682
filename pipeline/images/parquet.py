"""Parquet files with a column of image bytes, such as those of img2dataset and Hugging Face."""

from collections.abc import Callable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.images.file_system import LISTING_TRIES, source_of
from pipeline.images.reader import cell_locator
from storage_schemas.format.errors import Problem, SettingError
from storage_schemas.objects.retry_policy import RetryPolicy

IMAGE_COLUMNS = ("jpg", "jpeg", "png", "webp", "avif", "jp2", "image", "image.bytes", "bytes")
"""Columns that may hold image bytes. `image.bytes` is a field of a struct, as Hugging Face writes it."""
KEY_COLUMNS = ("key", "__key__", "image.path", "path", "file_name", "id")
"""Columns that may name a row; the first of them that exists is used."""
STATUS, SUCCESS = "status", "success"
"""img2dataset keeps a row for each image that it could not download; this column then holds another value."""


def list_cells(uri: str, is_image: Callable[[str], bool], retries: RetryPolicy) -> Iterator[tuple[str, str]]:
    """List the images of a Parquet file, without reading the image bytes.

    The key of a row is the value of its key column, or `<file name>/<row number>` (from 0) where it has none. If the
    key does not end like the name of an image, and the image column is called like such an ending, that is added:
    `000012` in a file with a column `jpg` becomes `000012.jpg`, as in a folder or a tar of the same images.

    Args:
        uri: URI of the file.
        is_image: says whether a name is that of an image.
        retries: how long a store behind a network may fail.

    Yields:
        (key, locator of the cell), for every row except those that img2dataset could not download.

    Raises:
        SettingError: the file cannot be read, or does not have exactly one column of image bytes.
    """
    source, path = source_of(uri, retries, LISTING_TRIES)
    try:
        with source.open(path) as file, pq.ParquetFile(file, pre_buffer=False) as parquet:
            kinds = dict(_leaves(parquet.schema_arrow))
            column = _image_column(uri, kinds)
            naming = next((name for name in KEY_COLUMNS if name in kinds), None)
            wanted = [name for name in (naming, STATUS) if name in kinds]
            number = 0
            for group in range(parquet.num_row_groups):
                for row, (key, downloaded) in enumerate(_named_rows(parquet, group, naming, wanted)):
                    if downloaded:
                        name = f"{uri.rpartition('/')[2]}/{number}" if key is None else str(key)
                        yield _with_suffix(name, column, is_image), cell_locator(uri, group, row, column)
                    number += 1
    except pa.ArrowException as error:
        found, fix = f"cannot be read as Parquet: {type(error).__name__}", "download it again, or leave it out"
        raise SettingError("Parquet file", [Problem(place=uri, found=found, fix=fix)]) from error


def _leaves(schema: pa.Schema) -> Iterator[tuple[str, pa.DataType]]:
    for column in schema:
        if pa.types.is_struct(column.type):
            yield from ((f"{column.name}.{inner.name}", inner.type) for inner in column.type)
        else:
            yield column.name, column.type


def _image_column(uri: str, kinds: dict[str, pa.DataType]) -> str:
    columns = [name for name in IMAGE_COLUMNS if name in kinds and _is_bytes(kinds[name])]
    if len(columns) != 1:
        found = f"has {len(columns)} columns of image bytes and must have 1; its columns are {', '.join(kinds)}"
        fix = f"a column of image bytes is binary, and has one of the names {', '.join(IMAGE_COLUMNS)}"
        raise SettingError("Parquet file", [Problem(place=uri, found=found, fix=fix)])
    return columns[0]


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _named_rows(
    parquet: pq.ParquetFile, group: int, naming: str | None, wanted: list[str]
) -> Iterator[tuple[object, bool]]:
    rows = parquet.metadata.row_group(group).num_rows
    table = parquet.read_row_group(group, columns=wanted, use_threads=False).flatten() if wanted else None
    keys = [None] * rows if table is None or naming is None else table[naming].to_pylist()
    statuses = [SUCCESS] * rows if table is None or STATUS not in wanted else table[STATUS].to_pylist()
    return zip(keys, (status == SUCCESS for status in statuses), strict=True)


def _with_suffix(name: str, column: str, is_image: Callable[[str], bool]) -> str:
    return name if is_image(name) or not is_image(f".{column}") else f"{name}.{column}"
