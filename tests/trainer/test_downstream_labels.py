"""Labels come from a CSV file or from folders; what cannot be right is refused in one message."""

from pathlib import Path

import pytest

from storage_schemas.format.errors import AbstractStillhouseError, SettingError
from trainer.downstream.labels import label_views, labels_identity

KEYS = ["cat/1.png", "dog/1.png", "cat/2.png", "dog/1.png"]


def csv(folder: Path, text: str) -> str:
    (folder / "labels.csv").write_text(text)
    return str(folder / "labels.csv")


def test_a_file_gives_labels_and_parts_by_key_to_every_view_of_an_image(tmp_path: Path) -> None:
    rows = 'cat/1.png,"big, grey",train\ndog/1.png,small,test\ncat/2.png,small,train\nother.png,none,test\n'
    found = label_views(KEYS, csv(tmp_path, "key,label,split\n" + rows), "given", 0.2)
    assert found.names == ("big, grey", "small")
    assert found.classes.tolist() == [0, 1, 1, 1]
    assert found.is_test.tolist() == [False, True, False, True]


def test_folders_name_classes_and_where_all_begin_with_a_part_the_parts() -> None:
    found = label_views(["train/b/1", "val/a/2", "train/a/x/3"], "folders", "given", 0.2)
    assert (found.names, found.classes.tolist(), found.is_test.tolist()) == (
        ("a", "b"),
        [1, 0, 0],
        [False, True, False],
    )
    keys = [f"{name}/{number}" for name in ("train", "cat") for number in range(50)]
    found = label_views(keys, "folders", "hash", 0.4)
    assert found.names == ("cat", "train")
    assert 0.25 < found.is_test.mean() < 0.55
    back = label_views(keys[::-1], "folders", "hash", 0.4)
    assert back.is_test.tolist() == found.is_test.tolist()[::-1]


@pytest.mark.parametrize(
    ("text", "rule", "said"),
    [
        ("key,label\ncat/1.png,a\n", "hash", r"2 of 3 images have no label: cat/2.png, dog/1.png"),
        ("key,label\ncat/1.png,a\ndog/1.png,a\ncat/2.png,a\n", "hash", "all 3 images have the same label, 'a'"),
        ("key,label\ncat/1.png,a\ndog/1.png,b\ncat/2.png,a\n", "given", "the test part has none of the 4 views"),
        ("key,label,split\ncat/1.png,a,test\ndog/1.png,b,test\ncat/2.png,a,val\n", "given", "2 test parts: test, val"),
        ("key,label,split\ncat/1.png,a,test\ndog/1.png,b,test\ncat/2.png,a,test\n", "given", "the training part has"),
        ("key,label,split\ncat/1.png,a,tset\n", "given", "row 2: split 'tset' is not the name of a part"),
        ("key,label\ncat/1.png,\n", "given", "row 2: 'cat/1.png,' does not have 2 fields with a key and a label"),
        ("key,label\ncat/1.png,a\ncat/1.png,b\n", "given", "row 3: cat/1.png has two labels: a, b"),
        ("image,class\n", "given", "the first line is 'image,class', expected key,label"),
        ("", "given", "the first line is ''"),
    ],
)
def test_labels_that_cannot_be_right_are_refused(tmp_path: Path, text: str, rule: str, said: str) -> None:
    with pytest.raises(SettingError, match=said) as refusal:
        label_views(KEYS, csv(tmp_path, text), rule, 0.2)
    assert len(refusal.value.problems) == 1


def test_folders_that_name_no_class_are_refused() -> None:
    with pytest.raises(SettingError, match=r"1 image keys have no folder that names a class: 3.png"):
        label_views(["a/1.png", "b/2.png", "3.png"], "folders", "hash", 0.2)
    with pytest.raises(SettingError, match=r"1 image keys have no folder that names a class: train/3.png"):
        label_views(["train/a/1.png", "train/3.png"], "folders", "given", 0.2)
    with pytest.raises(SettingError, match="2 test parts: test, val"):
        label_views(["train/a/1.png", "val/b/3.png", "test/a/2.png"], "folders", "given", 0.2)


def test_another_file_is_another_identity_and_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    first = labels_identity(csv(tmp_path, "key,label\na,b\n"), "given", 0.2)
    assert labels_identity(csv(tmp_path, "key,label\na,c\n"), "given", 0.2) != first
    assert labels_identity("folders", "hash", 0.2) != labels_identity("folders", "hash", 0.3)
    (tmp_path / "labels.csv").write_bytes(b"key,label\n\xff,a\n")
    with pytest.raises(AbstractStillhouseError, match="is not a CSV file in UTF-8"):
        labels_identity(str(tmp_path / "labels.csv"), "given", 0.2)
    with pytest.raises(AbstractStillhouseError, match="there is no such file"):
        labels_identity(str(tmp_path / "absent.csv"), "given", 0.2)
