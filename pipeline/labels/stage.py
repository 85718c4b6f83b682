"""The stage of `labels`: list the images, find the label of each, and write all of them or none."""

import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.images.listing import SourceImage, list_images
from pipeline.labels.label_sources import folder_labels, grouped, parquet_labels, tar_labels
from pipeline.labels.labelled import Label, read_names
from pipeline.labels.options import LabelsOptions
from pipeline.workers.progress import Say
from storage_schemas.format.errors import Problem, SettingError, first_few
from storage_schemas.objects.publish import write_whole
from storage_schemas.objects.retry_policy import RetryPolicy

LISTS = (".txt", ".csv", ".tsv")
"""Endings of a DATA that is a list."""


def write_labels(options: LabelsOptions, say: Say) -> None:
    """Write the labels of the images in DATA to a CSV file.

    Args:
        options: the images, where their labels are, and where to write.
        say: takes a line that says what was written.

    Raises:
        SettingError: an image has no label, a label has no name among `options.names`, or DATA is a list.
        MissingError: there are no images, or no file of names.
        StorageError: a store behind a network fails, or the file cannot be written.
    """
    if options.data.lower().endswith(LISTS):
        found, fix = (
            "is a list, which has no labels",
            "write the CSV file yourself: key,label, with the keys of the list",
        )
        raise SettingError("labels", [Problem(place=options.data, found=found, fix=fix)])
    images = list_images(options.data, options.views, say=say)
    names = read_names(options.names) if options.names != Path() else {}
    labels = {key: _named(key, label, names, options.names) for key, label in _labels_of(images, options.label_field)}
    _require_all(images, labels, options.data)
    has_parts = all(label.part for label in labels.values())
    write_whole(options.to, _csv_of(labels, has_parts=has_parts).encode())
    say(f"labels: {_counts(labels, has_parts=has_parts)} written to {options.to}")


def _labels_of(images: Sequence[SourceImage], field: str) -> Iterator[tuple[str, Label]]:
    for uri, members in grouped(images).items():
        if not uri:
            yield from folder_labels(members)
        elif uri.endswith(".parquet"):
            yield from parquet_labels(uri, members, field, RetryPolicy())
        else:
            yield from tar_labels(uri, members, field, RetryPolicy())


def _named(key: str, label: Label, names: Mapping[str, str], path: Path) -> Label:
    if not names or label.is_named:
        return label
    if label.value not in names:
        found = f"has label {label.value!r}, and {path} has no name for it"
        raise SettingError("labels", [Problem(place=key, found=found, fix="line n, from 0, names label n")])
    return replace(label, value=names[label.value])


def _require_all(images: Sequence[SourceImage], labels: Mapping[str, Label], data: str) -> None:
    if missing := [image.key for image in images if image.key not in labels]:
        found = f"{len(missing)} of {len(images)} images have no label: {', '.join(first_few(missing, 5))}"
        fix = "leave them out of DATA, or write their labels into a CSV file of your own"
        raise SettingError("labels", [Problem(place=data, found=found, fix=fix)])


def _csv_of(labels: Mapping[str, Label], *, has_parts: bool) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["key", "label", "split"] if has_parts else ["key", "label"])
    for key, label in sorted(labels.items()):
        writer.writerow([key, label.value, label.part] if has_parts else [key, label.value])
    return text.getvalue()


def _counts(labels: Mapping[str, Label], *, has_parts: bool) -> str:
    classes = Counter(label.value for label in labels.values())
    parts = Counter(label.part for label in labels.values())
    most = ", ".join(first_few([f"{name} {count}" for name, count in classes.most_common()], 3))
    told = ", ".join(f"{name or 'none'} {count}" for name, count in sorted(parts.items()))
    split = f"; split: {told}" if has_parts else f"; no column split: {told}" if len(parts) > 1 else "; no split"
    return f"{len(labels)} images of {len(classes)} classes ({most}){split}"
