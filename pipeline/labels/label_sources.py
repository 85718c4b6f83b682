"""Where labels come from: the folders in keys, members of tars, columns of Parquet files."""

import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.images.file_system import LISTING_TRIES, source_of
from pipeline.images.listing import SourceImage
from pipeline.images.reader import cell_of, range_of
from pipeline.images.tar import sample_of
from pipeline.labels.labelled import Label
from storage_schemas.format.errors import Problem, SettingError
from storage_schemas.objects.retry_policy import RetryPolicy

PARTS = ("train", "training", "test", "val", "validation")
"""Names of parts that evaluation knows, as folders and in the names of archives."""
LABEL_COLUMNS = ("label", "labels", "cls", "class", "class_name", "target", "fine_label")
"""Columns of a Parquet file that may hold labels."""
CLASS_MEMBER = "cls"
"""Ending of the member of a tar that holds a label alone."""
_PART_IN_NAME = re.compile(rf"(?:^|.*[-_.])({'|'.join(sorted(PARTS, key=len, reverse=True))})(?:[-_.].*|$)")


def folder_labels(images: Sequence[SourceImage]) -> Iterator[tuple[str, Label]]:
    """Yield the label of each image whose key has a folder for it.

    `train/cat/1.jpg` names part and class where every key begins with the name of a part. Otherwise the first folder is
    the class, as in `cat/1.jpg`.
    """
    has_parts = all(image.key.partition("/")[0] in PARTS for image in images)
    for image in images:
        *folders, _ = image.key.split("/")
        if len(folders) > has_parts:
            yield image.key, Label(value=folders[has_parts], part=folders[0] if has_parts else "")


def tar_labels(
    uri: str, images: Sequence[SourceImage], field: str, retries: RetryPolicy
) -> Iterator[tuple[str, Label]]:
    """Yield the labels of the images in one tar, from the members of the same samples.

    Args:
        uri: the tar.
        images: the images in it.
        field: the field of the `.json` members; when empty, the `.cls` members hold the labels.
        retries: how long a store behind a network may fail.

    Raises:
        SettingError: there is no member with labels, or one cannot be read as a label.
    """
    source, path = source_of(uri, retries, LISTING_TRIES)
    ending, values, samples = "json" if field else CLASS_MEMBER, dict[str, Any](), dict[int, str]()
    with source.open(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            name = member.name.removeprefix("./")
            sample = sample_of(name)
            samples[member.offset_data] = sample
            if member.isreg() and name == f"{sample}.{ending}":
                values[sample] = _value_of_member(tar, member, field, uri)
    if not values:
        fix = "give the field of the .json members that holds the labels with --label-field" if not field else ""
        raise _refusal(uri, f"has no .{ending} member beside its images", fix)
    for image in images:
        start, _ = range_of(image.uri)
        if values.get(sample := samples[start]) is not None:
            yield image.key, Label(value=values[sample], part=part_of(uri))


def parquet_labels(
    uri: str, images: Sequence[SourceImage], field: str, retries: RetryPolicy
) -> Iterator[tuple[str, Label]]:
    """Yield the labels of the images in one Parquet file, with the names of classes that Hugging Face writes.

    Args:
        uri: the file.
        images: the images in it.
        field: the column of labels; found by its name when empty.
        retries: how long a store behind a network may fail.

    Raises:
        SettingError: the columns do not say which of them holds labels, or it holds neither whole numbers nor text.
    """
    source, path = source_of(uri, retries, LISTING_TRIES)
    cells = {cell_of(image.uri): image.key for image in images}
    with source.open(path) as file, pq.ParquetFile(file, pre_buffer=False) as parquet:
        column = _label_column(uri, parquet.schema_arrow, field)
        names = class_names(parquet.schema_arrow, column)
        for group in range(parquet.num_row_groups):
            values = parquet.read_row_group(group, columns=[column], use_threads=False)[column].to_pylist()
            for row, value in enumerate(values):
                if (key := cells.get((group, row))) is None or value is None or (names and value == -1):
                    continue
                if names and value not in range(len(names)):
                    raise _refusal(f"{uri}, {key}", f"has label {value}, and its file names {len(names)} classes")
                named = names[value] if names else value
                yield key, Label(value=_text(named, f"{uri}, {key}"), part=part_of(uri), is_named=bool(names))


def class_names(schema: pa.Schema, column: str) -> list[str]:
    """Return the names of classes that Hugging Face writes into a file's metadata; empty where there are none."""
    about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    feature = about.get("info", {}).get("features", {}).get(column, {})
    return list(feature.get("names", [])) if isinstance(feature, dict) else []


def part_of(uri: str) -> str:
    """Return the part that an archive's name or its folder names, such as `val` for `val-0001.tar`; else empty."""
    folder, name = uri.split("/")[-2:]
    found = _PART_IN_NAME.fullmatch(name)
    return found[1] if found else folder if folder in PARTS else ""


def grouped(images: Iterable[SourceImage]) -> Mapping[str, list[SourceImage]]:
    """Return the images of each archive, by its URI; all images that are files by the empty text."""
    groups: dict[str, list[SourceImage]] = {}
    for image in images:
        uri, fragment, _ = image.uri.rpartition("#")
        groups.setdefault(uri if fragment else "", []).append(image)
    return groups


def _value_of_member(tar: tarfile.TarFile, member: tarfile.TarInfo, field: str, uri: str) -> str | None:
    place = f"{uri}, {member.name}"
    file = tar.extractfile(member)
    assert file is not None  # it is a regular file
    try:
        text = file.read().decode()
        value: Any = json.loads(text) if field else text.strip()
    except ValueError as error:
        raise _refusal(place, "is not UTF-8" if not field else "is not JSON in UTF-8") from error
    for name in field.split(".") if field else ():
        if not isinstance(value, dict) or name not in value:
            names = ", ".join(value) if isinstance(value, dict) else type(value).__name__
            raise _refusal(place, f"has no field {field}", f"give one of its fields with --label-field: {names}")
        value = value[name]
    return None if value is None or value == "" else _text(value, place)


def _label_column(uri: str, schema: pa.Schema, field: str) -> str:
    columns = [field] if field else [name for name in schema.names if name in LABEL_COLUMNS]
    if len(columns) != 1 or columns[0] not in schema.names:
        found = f"has no column {field}" if field else "does not say which column holds labels"
        raise _refusal(uri, f"{found}; its columns are {', '.join(schema.names)}", "name it with --label-field")
    return columns[0]


def _text(value: object, place: str) -> str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise _refusal(
            place, f"has a label that is neither a whole number nor text: {value!r}", "choose with --label-field"
        )
    return str(value)


def _refusal(place: str, found: str, fix: str = "") -> SettingError:
    return SettingError("labels", [Problem(place=place, found=found, fix=fix)])
