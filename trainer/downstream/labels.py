"""Labels of views by the keys of their images: from a CSV file or from the folders in the keys; and their two parts.

A label belongs to an image: all views of an image have it, and all lie in the same part. The training part is what a
classifier may learn from; the test part is what it is scored on.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal, final, get_args

import numpy as np
from jaxtyping import Bool, Int64

from storage_schemas.format.errors import MissingError, Problem, SettingError, first_few, first_problems
from storage_schemas.format.seeds import unit_interval

FOLDERS = "folders"
"""Value of `--labels` that takes labels from the folders in the keys."""
PartRule = Literal["given", "hash"]
"""How views are divided into a training part and a test part."""
TRAINING = ("train", "training")
TEST = ("test", "val", "validation")
"""Names of parts: in the column `split` of a CSV file, and as the first folder of a key."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """The label of one image."""

    name: str
    """Name of its class."""
    part: str
    """`train` or `test`; empty where the labels name no part."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelledViews:
    """The classes of some views, and their parts."""

    names: tuple[str, ...]
    """Names of the classes, sorted."""
    classes: Int64[np.ndarray, " views"]
    """Class of each view: an index of `names`."""
    is_test: Bool[np.ndarray, " views"]
    """Whether a view lies in the test part."""


def label_views(keys: Sequence[str], source: str, rule: PartRule, test_share: float) -> LabelledViews:
    """Return the classes and the parts of views.

    Args:
        keys: key of each view's image.
        source: path of a CSV file, or `folders`.
        rule: `given`: the parts that the labels name. `hash`: by a hash of the key.
        test_share: for `hash`, the share of images in the test part.

    Raises:
        SettingError: an image has no label, there is one class only, a part is empty, or the labels name no parts.
        MissingError: there is no such file.
    """
    labels = folder_labels(keys) if source == FOLDERS else read_labels(Path(source))
    if missing := sorted({key for key in keys if key not in labels}):
        found, some = f"{len(missing)} of {len(set(keys))} images have no label", ", ".join(first_few(missing, 3))
        fix = "labels are found by the image keys of the cache: add these images to the file"
        raise SettingError("labels", [Problem(place=source, found=f"{found}: {some}", fix=fix)])
    names = sorted({labels[key].name for key in keys})
    if len(names) < 2:
        found = f"all {len(set(keys))} images have the same label, {names[0]!r}" if names else "there are no views"
        raise SettingError("labels", [Problem(place=source, found=found, fix="a task needs two classes or more")])
    number = {name: index for index, name in enumerate(names)}
    is_test = np.array(
        [in_share(key, test_share, "test part") if rule == "hash" else labels[key].part == "test" for key in keys]
    )
    _require_parts(is_test, source, rule)
    classes = np.array([number[labels[key].name] for key in keys], dtype=np.int64)
    return LabelledViews(names=tuple(names), classes=classes, is_test=is_test)


def read_labels(path: Path) -> Mapping[str, Label]:
    """Read a CSV file with the columns `key`, `label` and, where it names parts, `split`.

    Raises:
        MissingError: there is no such file.
        SettingError: a column is missing, a field is empty, an image has two labels, or a part has no known name.
    """
    if not path.is_file():
        fix = f"give a CSV file with the columns key, label and split, or {FOLDERS}"
        raise MissingError("labels", [Problem(place=str(path), found="there is no such file", fix=fix)])
    try:
        rows = list(csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        found = f"is not a CSV file in UTF-8: {error}"
        raise SettingError("labels", [Problem(place=str(path), found=found)]) from error
    header = rows[0] if rows else []
    if header not in (["key", "label"], ["key", "label", "split"]):
        found = f"the first line is {','.join(header)!r}, expected key,label or key,label,split"
        raise SettingError("labels", [Problem(place=str(path), found=found)])
    labels: dict[str, Label] = {}
    problems = list(_read_rows(rows[1:], len(header), path, labels))
    if problems:
        raise SettingError("labels", first_problems(problems))
    _require_one_test_part({row[2] for row in rows[1:] if len(header) == 3}, str(path))
    return labels


def folder_labels(keys: Iterable[str]) -> Mapping[str, Label]:
    """Return labels from the folders in keys.

    `train/cat/1.jpg` and `val/cat/2.jpg` name part and class where every key begins with the name of a part. Otherwise
    the first folder is the class: `cat/1.jpg`.

    Raises:
        SettingError: a key has no folder for the class, or there are two test parts.
    """
    parts = {key: key.split("/") for key in keys}
    firsts = {folders[0] for folders in parts.values()}
    named = bool(firsts) and firsts <= {*TRAINING, *TEST}
    depth = 3 if named else 2
    if flat := sorted(key for key, folders in parts.items() if len(folders) < depth):
        found = f"{len(flat)} image keys have no folder that names a class: {', '.join(first_few(flat, 3))}"
        fix = "give a CSV file with the columns key, label and split"
        raise SettingError("labels", [Problem(place=FOLDERS, found=found, fix=fix)])
    if named:
        _require_one_test_part(firsts, FOLDERS)
        return {key: Label(name=folders[1], part=_part(folders[0])) for key, folders in parts.items()}
    return {key: Label(name=folders[0], part="") for key, folders in parts.items()}


def labels_identity(source: str, rule: PartRule, test_share: float) -> dict[str, str | float]:
    """Return what labels and parts depend on beside the keys, as JSON-ready values.

    Raises:
        SettingError: no labels are given, or the rule or the share cannot be used.
        MissingError: there is no such file.
    """
    problems = []
    if not source:
        fix = f"give a CSV file with the columns key, label and split, or {FOLDERS}"
        problems.append(Problem(place="--labels", found="is not given", fix=fix))
    if rule not in get_args(PartRule):
        problems.append(Problem(place="--parts", found=f"{rule!r} is none of {', '.join(get_args(PartRule))}"))
    if not 0 < test_share < 1:
        problems.append(Problem(place="--test-share", found=f"{test_share} is not a share between 0 and 1"))
    if problems:
        raise SettingError("labels", problems)
    known = FOLDERS
    if source != FOLDERS:
        read_labels(Path(source))
        known = sha256(Path(source).read_bytes()).hexdigest()
    return {"labels": known, "parts": rule, **({"test_share": test_share} if rule == "hash" else {})}


def in_share(key: str, share: float, purpose: str) -> bool:
    """Return whether an image falls into a share of all images, by a hash of its key and of the purpose."""
    return unit_interval(("evaluate", purpose, key)) < share


def _read_rows(rows: Sequence[Sequence[str]], width: int, path: Path, labels: dict[str, Label]) -> Iterator[Problem]:
    for line, row in enumerate(rows, start=2):
        place = f"{path}, row {line}"
        if len(row) != width or not row[0] or not row[1]:
            yield Problem(place=place, found=f"{','.join(row)!r} does not have {width} fields with a key and a label")
        elif width == 3 and row[2] not in (*TRAINING, *TEST):
            fix = f"use one of {', '.join((*TRAINING, *TEST))}"
            yield Problem(place=place, found=f"split {row[2]!r} is not the name of a part", fix=fix)
        else:
            label = Label(name=row[1], part=_part(row[2]) if width == 3 else "")
            if labels.setdefault(row[0], label) != label:
                yield Problem(place=place, found=f"{row[0]} has two labels: {labels[row[0]].name}, {label.name}")


def _part(name: str) -> str:
    return "train" if name in TRAINING else "test"


def _require_one_test_part(names: Iterable[str], place: str) -> None:
    if len(tests := sorted(set(names) & set(TEST))) > 1:
        found = f"there are {len(tests)} test parts: {', '.join(tests)}"
        raise SettingError("labels", [Problem(place=place, found=found, fix="keep the one to score on")])


def _require_parts(is_test: Bool[np.ndarray, " views"], source: str, rule: PartRule) -> None:
    sizes = Counter(is_test.tolist())
    if empty := [name for name, side in (("training", False), ("test", True)) if not sizes[side]]:
        found = f"the {empty[0]} part has none of the {len(is_test)} views"
        fix = "use more images, or another --test-share"
        if rule == "given":
            fix = "name both parts in the column split or in the first folder, or use --parts hash"
        raise SettingError("labels", [Problem(place=source, found=found, fix=fix)])
