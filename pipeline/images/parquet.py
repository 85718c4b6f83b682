"""Parquet files with a column of image bytes: img2dataset's and Hugging Face's among them."""

from collections.abc import Callable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.images.file_system import TRIES, source_of
from pipeline.images.reader import cell
from storage_schemas.format.errors import Problem, SettingError
from storage_schemas.objects.patience import Patience

IMAGE_COLUMNS = ("jpg", "jpeg", "png", "webp", "avif", "jp2", "image", "image.bytes", "bytes")
"""Columns that may hold an image's bytes. `image.bytes` is the field of a struct, as Hugging Face writes it."""
KEY_COLUMNS = ("key", "__key__", "image.path", "path", "file_name", "id")
"""Columns that name a row: the first that is there."""
STATUS, MADE = "status", "success"
"""img2dataset keeps a row for every image that it could not fetch, and says so here."""


def list_cells(uri: str, is_image: Callable[[str], bool], patience: Patience) -> Iterator[tuple[str, str]]:
    """List the images of a Parquet file, from the columns that name them.

    A row's key is what its key column says; `000012` in a column `jpg` is `000012.jpg`, as in a folder or a tar of the
    same images. A row that no column names is known by its place: the file's name, `/`, and its number from 0.

    Args:
        uri: of the file.
        is_image: says whether a name is an image's.
        patience: with a store behind a network.

    Yields:
        (key, locator of the cell), for every row but those that img2dataset could not fetch.

    Raises:
        SettingError: it cannot be read, or does not have just one column of image bytes.
    """
    source, path = source_of(uri, patience, TRIES)
    try:
        with source.open(path) as file, pq.ParquetFile(file, pre_buffer=False) as parquet:
            kinds = dict(_leaves(parquet.schema_arrow))
            column = _image_column(uri, kinds)
            naming = next((name for name in KEY_COLUMNS if name in kinds), None)
            wanted = [name for name in (naming, STATUS) if name in kinds]
            number = 0
            for group in range(parquet.num_row_groups):
                for row, (key, made) in enumerate(_named_rows(parquet, group, naming, wanted)):
                    if made:
                        named = f"{uri.rpartition('/')[2]}/{number}" if key is None else str(key)
                        yield _with_suffix(named, column, is_image), cell(uri, group, row, column)
                    number += 1
    except pa.ArrowException as error:
        found, fix = f"cannot be read as Parquet: {type(error).__name__}", "fetch it again, or leave it out"
        raise SettingError("Parquet file", [Problem(place=uri, found=found, fix=fix)]) from error


def _leaves(schema: pa.Schema) -> Iterator[tuple[str, pa.DataType]]:
    for one in schema:
        if pa.types.is_struct(one.type):
            yield from ((f"{one.name}.{inner.name}", inner.type) for inner in one.type)
        else:
            yield one.name, one.type


def _image_column(uri: str, kinds: dict[str, pa.DataType]) -> str:
    columns = [name for name in IMAGE_COLUMNS if name in kinds and _is_bytes(kinds[name])]
    if len(columns) != 1:
        found = f"its columns are {', '.join(kinds)}; of image bytes there must be one, and are {len(columns)}"
        fix = f"columns of bytes of these names are taken for images: {', '.join(IMAGE_COLUMNS)}"
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
    made = [MADE] * rows if table is None or STATUS not in wanted else table[STATUS].to_pylist()
    return zip(keys, (one == MADE for one in made), strict=True)


def _with_suffix(name: str, column: str, is_image: Callable[[str], bool]) -> str:
    return name if is_image(name) or not is_image(f".{column}") else f"{name}.{column}"
