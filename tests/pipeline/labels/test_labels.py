"""Labels of images in every form of DATA, by the keys that a cache gives them; and what is refused."""

import csv
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.__main__ import main
from pipeline.images.listing import list_images
from pipeline.labels.label_sources import part_of


def write_files(folder: Path, names: Sequence[str]) -> Path:
    """Files of these names; their contents are never read."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"image")
    return folder


def write_tar(path: Path, members: Mapping[str, bytes]) -> Path:
    """A tar of these members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, body in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(body)
            tar.addfile(member, io.BytesIO(body))
    return path


def write_parquet(path: Path, columns: Mapping[str, Sequence[Any]], names: Sequence[str] = ()) -> Path:
    """A Parquet file of images and columns, in row groups of two; with class names as Hugging Face writes them."""
    count = len(next(iter(columns.values())))
    table = pa.table({"jpg": [b"image"] * count, **columns})
    if names:
        features = {"label": {"names": list(names), "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, row_group_size=2)
    return path


def labels(data: Path, *more: str) -> list[list[str]]:
    """The rows that the command writes."""
    to = data.parent / "labels.csv"
    assert main(["labels", "--data", str(data), "--to", str(to), *more]) == 0
    return list(csv.reader(io.StringIO(to.read_text(), newline="")))


def refused(capsys: pytest.CaptureFixture[str], data: Path, *more: str) -> str:
    """The message of a refusal; nothing is written."""
    to = data.parent / "labels.csv"
    assert main(["labels", "--data", str(data), "--to", str(to), *more]) == 2
    assert not to.exists()
    return capsys.readouterr().err


def test_folders_name_classes_and_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_files(tmp_path / "data", ["train/cat/1.jpg", "train/a dog, small/2.png", "val/cat/deep/3.jpg"])
    assert labels(data) == [
        ["key", "label", "split"],
        ["train/a dog, small/2.png", "a dog, small", "train"],
        ["train/cat/1.jpg", "cat", "train"],
        ["val/cat/deep/3.jpg", "cat", "val"],
    ]
    assert "3 images of 2 classes (cat 2, a dog, small 1); split: train 2, val 1 written" in capsys.readouterr().out
    assert labels(data / "train") == [["key", "label"], ["a dog, small/2.png", "a dog, small"], ["cat/1.jpg", "cat"]]


def test_members_of_tars_hold_labels_of_their_samples(tmp_path: Path) -> None:
    members = {
        "1.cls": b"7\n",
        "1.jpg": b"i",
        "./a/2.jpg": b"i",
        "a/2.cls": b"0",
        "a/2.json": b'{"name": {"en": "cat"}}',
    }
    members |= {"1.json": b'{"name": {"en": "a dog"}}', "a/2.txt": b"a caption"}
    data = write_tar(tmp_path / "data" / "train-0001.tar", members).parent
    assert labels(data) == [["key", "label", "split"], ["1.jpg", "7", "train"], ["a/2.jpg", "0", "train"]]
    assert [row[1] for row in labels(data, "--label-field", "name.en")] == ["label", "a dog", "cat"]
    keyed = labels(data, "--views.keys", "archive")
    assert [row[0] for row in keyed[1:]] == ["train-0001.tar/1.jpg", "train-0001.tar/a/2.jpg"]


def test_columns_of_parquet_hold_numbers_names_or_numbers_with_names(tmp_path: Path) -> None:
    columns = {"key": ["a", "b", "c"], "label": [2, 0, 1]}
    plain = write_parquet(tmp_path / "plain.parquet", columns)
    assert labels(plain) == [["key", "label"], ["a.jpg", "2"], ["b.jpg", "0"], ["c.jpg", "1"]]
    named = write_parquet(tmp_path / "validation-0-of-1.parquet", columns, ["zero", "one", "two"])
    of_validation = [("a.jpg", "two"), ("b.jpg", "zero"), ("c.jpg", "one")]
    assert labels(named)[1:] == [[key, name, "validation"] for key, name in of_validation]
    coarse = write_parquet(tmp_path / "coarse.parquet", columns | {"kind": ["x", "y", "x"]})
    assert [row[1] for row in labels(coarse, "--label-field", "kind")] == ["label", "x", "y", "x"]


def test_keys_are_those_of_the_cache_without_keys_too(tmp_path: Path) -> None:
    data = write_parquet(tmp_path / "some.parquet", {"label": ["x", "y", "z"]})
    assert [row[0] for row in labels(data)[1:]] == [image.key for image in list_images(str(data))]


def test_a_file_of_names_names_numbers_and_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_parquet(tmp_path / "data.parquet", {"key": ["a", "b"], "label": [1, 0]})
    names = tmp_path / "names.txt"
    names.write_text("a tench\na goldfish\n")
    assert [row[1] for row in labels(data, "--names", str(names))] == ["label", "a goldfish", "a tench"]
    names.write_text("n01\ta tench\nn02\ta goldfish\n")
    folders = write_files(tmp_path / "data", ["n02/1.jpg", "n01/2.jpg"])
    assert [row[1] for row in labels(folders, "--names", str(names))] == ["label", "a tench", "a goldfish"]
    (tmp_path / "labels.csv").unlink()
    assert "a.jpg: has label '1', and" in refused(capsys, data, "--names", str(names))
    names.write_text("n01\ta\nn01\tb\n")
    assert "line 2: names n01 twice: a, b" in refused(capsys, folders, "--names", str(names))
    assert "there is no such file" in refused(capsys, folders, "--names", str(tmp_path / "none"))


def test_an_image_without_a_label_refuses_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_files(tmp_path / "folder", ["cat/1.jpg", "2.jpg", "3.jpg"])
    assert f"{data}: 2 of 3 images have no label: 2.jpg, 3.jpg (" in refused(capsys, data)
    parted = write_files(tmp_path / "parted", ["train/cat/1.jpg", "train/2.jpg"])
    assert "1 of 2 images have no label: train/2.jpg (" in refused(capsys, parted)
    tar = write_tar(tmp_path / "some.tar", {"1.jpg": b"i", "1.cls": b"4", "2.jpg": b"i", "3.jpg": b"i", "3.cls": b""})
    assert "2 of 3 images have no label: 2.jpg, 3.jpg (" in refused(capsys, tar)
    columns = {"key": ["a", "b", "c"], "label": [-1, 0, None]}
    parquet = write_parquet(tmp_path / "some.parquet", columns, ["zero"])
    assert "2 of 3 images have no label: a.jpg, c.jpg (" in refused(capsys, parquet)


@pytest.mark.parametrize(
    ("columns", "names", "more", "message"),
    [
        (
            {"key": ["a"], "text": ["x"]},
            (),
            (),
            "does not say which column holds labels; its columns are jpg, key, text",
        ),
        ({"key": ["a"], "label": [1], "cls": [1]}, (), (), "does not say which column holds labels"),
        ({"key": ["a"], "label": [1]}, (), ("--label-field", "x"), "has no column x; its columns are jpg, key, label"),
        ({"key": ["a"], "label": [0.5]}, (), (), "a.jpg: has a label that is neither a whole number nor text: 0.5"),
        ({"key": ["a"], "label": [True]}, (), (), "a.jpg: has a label that is neither a whole number nor text: True"),
        ({"key": ["a"], "label": [3]}, ("zero", "one"), (), "a.jpg: has label 3, and its file names 2 classes"),
    ],
)
def test_a_parquet_file_without_clear_labels_is_refused(
    columns: dict[str, Any],
    names: Sequence[str],
    more: Sequence[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert message in refused(capsys, write_parquet(tmp_path / "data.parquet", columns, names), *more)


@pytest.mark.parametrize(
    ("member", "body", "more", "message"),
    [
        ("1.json", b"{}", (), "has no .cls member beside its images (give the field of the .json members"),
        ("1.json", b"{}", ("--label-field", "a.b"), "1.json: has no field a.b"),
        ("1.json", b'{"a": 1}', ("--label-field", "a.b"), "1.json: has no field a.b"),
        (
            "1.json",
            b'{"a": [1]}',
            ("--label-field", "a"),
            "1.json: has a label that is neither a whole number nor text",
        ),
        ("1.json", b"{", ("--label-field", "a"), "1.json: is not JSON in UTF-8"),
        ("1.cls", b"\xff", (), "1.cls: is not UTF-8"),
    ],
)
def test_a_tar_without_clear_labels_is_refused(
    member: str, body: bytes, more: Sequence[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_tar(tmp_path / "data.tar", {"1.jpg": b"image", member: body})
    assert message in refused(capsys, data, *more)


def test_a_list_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "some.txt").write_text("cat/1.jpg\n")
    assert "is a list, which has no labels" in refused(capsys, tmp_path / "some.txt")


def test_parts_are_read_from_names_of_archives() -> None:
    named = {"train-0001.tar": "train", "imagenet_val_3.tar": "val", "0001.tar": "", "validation.parquet": "validation"}
    named |= {"training.tar": "training", "constrained.tar": "", "test.tar": "test"}
    assert {name: part_of(f"/data/{name}") for name in named} == named
    assert part_of("s3://bucket/val/0001.tar") == "val"


def test_parts_that_only_some_archives_name_are_left_out_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tar(tmp_path / "data" / "train-1.tar", {"1.jpg": b"i", "1.cls": b"4"})
    write_tar(tmp_path / "data" / "more.tar", {"2.jpg": b"i", "2.cls": b"4"})
    assert labels(tmp_path / "data")[0] == ["key", "label"]
    assert "no column split: none 1, train 1" in capsys.readouterr().out
