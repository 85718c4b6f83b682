"""Listing: which files of DATA are images, and by what names."""

import os
from pathlib import Path

import fsspec
import pytest

from pipeline.images import SourceImage, list_images, read_bytes
from storage_schemas.errors import MissingError, SettingError

ENDINGS = ".bmp, .gif, .jpeg, .jpg, .png, .ppm, .tif, .tiff, .webp"


def test_images_are_found_in_every_folder_below_sorted_by_key(tmp_path: Path) -> None:
    for name in ("b.JPG", "a/z.png", "a/b/c.tiff", "Z.webp", "notes.txt", "a/thumbs.db"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    expected = [
        SourceImage(key=key, uri=(tmp_path / key).as_uri()) for key in ("Z.webp", "a/b/c.tiff", "a/z.png", "b.JPG")
    ]
    assert list_images(str(tmp_path)) == expected
    assert list_images(f"{tmp_path}/") == expected, "a slash at the end means nothing"


def test_a_folder_on_another_file_system_is_listed_and_read_alike() -> None:
    files = fsspec.filesystem("memory")
    files.pipe({"/listed/a.png": b"one", "/listed/below/b.jpg": b"two", "/listed/c.txt": b"three"})
    images = list_images("memory://listed")
    assert [image.key for image in images] == ["a.png", "below/b.jpg"]
    assert [read_bytes(image) for image in images] == [b"one", b"two"]


@pytest.mark.parametrize("name", ["a::b.png", "a b#c.png", "ä?*[1]%20.png", "a\nb.png"])
def test_a_file_is_read_whatever_signs_are_in_its_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"this one")
    [image] = list_images(str(tmp_path))
    assert image.key == name
    assert read_bytes(image) == b"this one"


def test_a_folder_that_is_not_named_is_missed() -> None:
    with pytest.raises(MissingError) as caught:
        list_images("")
    assert str(caught.value) == "DATA is missing:\n  --data: is not given (set DATA to a folder of images)"


def test_a_folder_that_is_not_there_is_missed(tmp_path: Path) -> None:
    with pytest.raises(MissingError) as caught:
        list_images(f"{tmp_path}/none")
    expected = f"DATA is missing:\n  {tmp_path}/none: is not a folder (set DATA to a folder of images)"
    assert str(caught.value) == expected


def test_a_folder_without_an_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_bytes(b"x")
    with pytest.raises(MissingError) as caught:
        list_images(str(tmp_path))
    assert str(caught.value) == f"DATA is missing:\n  {tmp_path}: holds no image (images end in {ENDINGS})"


def test_names_that_are_not_utf_8_are_refused_all_of_them(tmp_path: Path) -> None:
    for name in (b"\xff1.png", b"fine.png", b"\xfe2.png"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(b"x")
    with pytest.raises(SettingError) as caught:
        list_images(str(tmp_path))
    assert sorted(problem.place for problem in caught.value.problems) == [r"'\udcfe2.png'", r"'\udcff1.png'"]
