"""Lists of images: text files with a URI or a path on each line, or tables in CSV."""

import csv
import io
import re
from collections.abc import Iterator, Sequence

from pipeline.config import OLD_RULES, ViewsConfig
from pipeline.images.file_system import Source
from pipeline.images.names import SUFFIXES, suffix_of
from pipeline.images.passed_over import COMMENTS, PassedOver
from storage_schemas.format.errors import Problem, SettingError

DELIMITERS = {".csv": ",", ".tsv": "\t"}
LIST_SUFFIXES = frozenset({".txt", *DELIMITERS})
"""Endings of lists."""
URI_COLUMNS = ("uri", "url", "path", "file", "filename", "file_name", "filepath", "image", "image_path")
"""Columns of a table that may name the images."""
_LABELLED = re.compile(
    rf"(.*(?:{'|'.join(map(re.escape, sorted(SUFFIXES)))}))(?: +[+-]?\d+(?:\.\d+)?)+", re.IGNORECASE | re.DOTALL
)
"""A name that ends like that of an image, and numbers after it."""


def list_lines(source: Source, path: str, config: ViewsConfig, passed_over: PassedOver) -> Iterator[tuple[str, str]]:
    """List the images that a list names.

    Args:
        source: the file system of the list.
        path: the list.
        config: `rules`, `image_column` and `key_column`.
        passed_over: counts comments.

    Yields:
        (key: the line without labels, or the value of the key column; URI).

    Raises:
        SettingError: it is not UTF-8; a table has no column of URIs.
    """
    try:
        text = source.read(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _refusal(path, "is not UTF-8", "save it as UTF-8") from error
    folder = path.rpartition("/")[0]
    suffix = suffix_of(path)
    named = _rows(path, text, DELIMITERS[suffix], config) if suffix in DELIMITERS else _lines(text, config, passed_over)
    for key, name in named:
        if "://" in name:
            yield key, name
        else:
            yield key, source.uri(name if name.startswith("/") else f"{folder}/{name}")


def _lines(text: str, config: ViewsConfig, passed_over: PassedOver) -> Iterator[tuple[str, str]]:
    for line in filter(None, map(str.strip, text.split("\n"))):
        if config.rules == OLD_RULES:
            yield line, line
        elif line.startswith("#"):
            passed_over.add(COMMENTS)
        else:
            name = line.partition("\t")[0].rstrip()
            labelled = _LABELLED.fullmatch(name)
            name = labelled[1] if labelled else name
            yield name, name


def _rows(path: str, text: str, delimiter: str, config: ViewsConfig) -> Iterator[tuple[str, str]]:
    head, *rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    uris = _column(path, head, config.image_column, "--views.image-column", URI_COLUMNS)
    keys = _column(path, head, config.key_column, "--views.key-column", ()) if config.key_column else uris
    for number, row in enumerate(rows, start=2):
        if row and len(row) != len(head):
            raise _refusal(path, f"has {len(row)} values in row {number}, and {len(head)} columns", "mend the row")
        if row:
            yield row[keys], row[uris]


def _column(path: str, head: Sequence[str], chosen: str, setting: str, names: Sequence[str]) -> int:
    found = [number for number, name in enumerate(head) if name == chosen or (not chosen and name.lower() in names)]
    if len(found) != 1:
        columns = ", ".join(head)
        raise _refusal(path, f"does not say which column to use; its columns are {columns}", f"name it with {setting}")
    return found[0]


def _refusal(place: str, found: str, fix: str) -> SettingError:
    return SettingError("DATA", [Problem(place=place, found=found, fix=fix)])
