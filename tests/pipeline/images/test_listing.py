"""Listing: the images of DATA in each of its forms, their keys, and where their bytes are."""

import errno
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from image_forms import write_list, write_parquet, write_tar

from pipeline.images.listing import FORMS, SourceImage, list_images
from pipeline.images.reader import ImageReader
from storage_schemas.format.errors import MissingError, SettingError

ENDINGS = (
    ".apng, .avif, .bmp, .dib, .gif, .j2c, .j2k, .jfif, .jif, .jp2, .jpc, .jpe, .jpeg, .jpf, .jpg, .jpx, .mpo, .pbm, "
    ".pgm, .png, .pnm, .ppm, .tif, .tiff, .webp"
)
BODIES = {f"{place}/{number:03d}.jpg": f"{place} {number}".encode() * 9 for place in "ab" for number in range(5)}


def read(data: object) -> dict[str, bytes]:
    """The bytes of every image, by key, in the order of the list."""
    reader = ImageReader()
    return {image.key: reader.read(image.uri) for image in list_images(str(data))}


def refusal(data: object) -> str:
    """The message with which DATA is refused."""
    with pytest.raises((MissingError, SettingError)) as caught:
        list_images(str(data))
    return str(caught.value)


def as_folder(root: Path) -> str:
    """Files in folders."""
    for key, body in BODIES.items():
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(body)
    return str(root)


def as_one_tar(root: Path) -> str:
    """One tar, in another order, with other files next to the images."""
    members = {key: BODIES[key] for key in sorted(BODIES, reverse=True)} | {"a/000.json": b"{}", "notes.txt": b"x"}
    return str(write_tar(root / "all.tar", members))


def as_tars(root: Path) -> str:
    """A folder of tars in subfolders, with img2dataset's tables next to them."""
    for number, keys in enumerate((list(BODIES)[1::2], list(BODIES)[::2])):
        write_tar(root / f"{number}/{number:05d}.tar", {f"./{key}": BODIES[key] for key in keys})
        write_parquet(root / f"{number}/{number:05d}.parquet", [{"key": key, "caption": "x"} for key in keys])
        (root / f"{number}/{number:05d}_stats.json").write_text("{}")
    return str(root)


def as_pattern(root: Path) -> str:
    """A pattern that matches tars."""
    return f"{as_tars(root)}/*/*.tar"


def as_parquet(root: Path) -> str:
    """img2dataset's Parquet files: keys without a suffix, and a row for an image that could not be downloaded."""
    rows = [{"key": key.removesuffix(".jpg"), "status": "success", "jpg": body} for key, body in BODIES.items()]
    rows.insert(4, {"key": "gone", "status": "failed_to_download", "jpg": None})
    write_parquet(root / "00000.parquet", rows[:7])
    write_parquet(root / "00001.parquet", rows[7:])
    return str(root)


def as_hugging_face(root: Path) -> str:
    """Hugging Face's Parquet files: a struct of bytes and path."""
    rows = [{"label": 1, "image": {"bytes": body, "path": key}} for key, body in BODIES.items()]
    return str(write_parquet(root / "train.parquet", rows))


def as_list(root: Path) -> str:
    """A list of paths relative to its folder, in another order."""
    as_folder(root)
    return str(write_list(root / "images.txt", ["", *sorted(BODIES, reverse=True)]))


FORMS_OF_DATA = [as_folder, as_one_tar, as_tars, as_pattern, as_parquet, as_hugging_face, as_list]


@pytest.mark.parametrize("form", FORMS_OF_DATA)
def test_the_same_images_have_the_same_keys_and_bytes_in_every_form(
    form: Callable[[Path], str], tmp_path: Path
) -> None:
    found = read(form(tmp_path / "data"))
    assert found == BODIES
    assert list(found) == sorted(BODIES)


@pytest.mark.parametrize("form", [as_folder, as_tars, as_pattern, as_parquet, as_list])
def test_images_may_be_on_any_file_system(form: Callable[[Path], str], tmp_path: Path) -> None:
    data = form(tmp_path)
    memory, where = fsspec.filesystem("memory"), f"/{form.__name__}-{tmp_path.name}"
    for path in filter(Path.is_file, tmp_path.rglob("*")):
        memory.pipe_file(f"{where}/{path.relative_to(tmp_path)}", path.read_bytes())
    assert read(f"memory:/{data.replace(str(tmp_path), where)}") == BODIES


def test_images_are_found_in_every_folder_below_sorted_by_key(tmp_path: Path) -> None:
    for name in ("b.JPG", "a/z.png", "a/b/c.tiff", "Z.webp", "notes.txt", "a/thumbs.db"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    expected = [
        SourceImage(key=key, uri=(tmp_path / key).as_uri()) for key in ("Z.webp", "a/b/c.tiff", "a/z.png", "b.JPG")
    ]
    assert list_images(str(tmp_path)) == expected
    assert list_images(f"{tmp_path}/") == expected, "a slash at the end makes no difference"


def test_keys_of_a_pattern_of_images_are_relative_to_its_fixed_part(tmp_path: Path) -> None:
    as_folder(tmp_path)
    assert list(read(f"{tmp_path}/a/*2.jpg")) == ["002.jpg"]
    assert list(read(f"{tmp_path}/*/002.jpg")) == ["a/002.jpg", "b/002.jpg"]


@pytest.mark.parametrize("form", [as_folder, as_tars])
def test_links_are_followed(form: Callable[[Path], str], tmp_path: Path) -> None:
    there, linked = tmp_path / "there", tmp_path / "linked"
    linked.mkdir()
    form(there)
    for path in filter(Path.is_file, there.rglob("*")):
        (linked / f"{path.parent.name}-{path.name}").symlink_to(path)
    assert sorted(read(linked).values()) == sorted(BODIES.values())
    assert sorted(read(f"{linked}/*.{'jpg' if form is as_folder else 'tar'}").values()) == sorted(BODIES.values())


def test_a_parquet_file_with_the_name_of_a_folder_beside_it_is_ignored(tmp_path: Path) -> None:
    as_folder(tmp_path)
    write_parquet(tmp_path / "a.parquet", [{"key": "000", "caption": "x"}])
    assert read(tmp_path) == BODIES


@pytest.mark.parametrize("name", ["a::b.png", "a b#c.png", "ä?*[1]%20.png", "a\nb.png"])
def test_a_file_is_read_whatever_characters_are_in_its_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"these bytes")
    assert read(tmp_path) == {name: b"these bytes"}


def test_a_list_names_files_by_uri_by_path_and_relative_to_its_folder(tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe_file("/listed/without suffix", b"first")
    (tmp_path / "b.bin").write_bytes(b"second")
    archive = write_tar(tmp_path / "c.tar", {"x.jpg": b"third"})
    [member] = list_images(str(archive))
    lines = ["memory://listed/without suffix", str(tmp_path / "b.bin"), "b.bin", member.uri]
    (tmp_path / "list.txt").write_bytes("﻿".encode() + "\r\n".join(lines).encode())
    assert read(tmp_path / "list.txt") == dict(zip(lines, (b"first", b"second", b"second", b"third"), strict=True))


def test_a_list_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"\xff.png\n")
    assert refusal(tmp_path / "list.txt") == (
        f"DATA cannot be used:\n  {tmp_path}/list.txt: is not UTF-8 (save it as UTF-8)"
    )


def test_data_that_is_not_given_is_reported() -> None:
    assert refusal("") == f"DATA is missing:\n  --data: is not given ({FORMS})"


@pytest.mark.parametrize("name", ["none", "none/*.tar", "none.tar"])
def test_data_that_does_not_exist_is_reported(tmp_path: Path, name: str) -> None:
    found = f"contains no image (image names end in {ENDINGS})" if "*" in name else f"does not exist ({FORMS})"
    assert refusal(tmp_path / name) == f"DATA is missing:\n  {tmp_path}/{name}: {found}"


def test_a_file_system_that_is_not_known_is_refused() -> None:
    assert refusal("nowhere://a").startswith("DATA cannot be used:\n  nowhere://a: Protocol not known: nowhere (")


def write_notes(root: Path) -> Path:
    """A folder without images."""
    (root / "notes.txt").write_bytes(b"x")
    return root


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (write_notes, "; it has 1 other files (.txt 1)"),
        (lambda root: write_tar(root / "a.tar", {"a.json": b"{}"}), "; it has 1 other files (.json 1)"),
        (lambda root: write_list(root / "a.txt", ["# one"]), "; it has 1 comments"),
        (lambda root: write_list(root / "a.txt", []), ""),
    ],
)
def test_data_without_an_image_is_refused(tmp_path: Path, make: Callable[[Path], Path], found: str) -> None:
    data = make(tmp_path)
    assert refusal(data) == f"DATA is missing:\n  {data}: contains no image{found} (image names end in {ENDINGS})"


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"x")
    assert refusal(tmp_path / "a.zip") == f"DATA cannot be used:\n  {tmp_path}/a.zip: is not of a known form ({FORMS})"


def test_several_kinds_in_one_folder_are_refused(tmp_path: Path) -> None:
    as_folder(tmp_path)
    write_tar(tmp_path / "more.tar", {"c.jpg": b"x"})
    expected = f"DATA cannot be used:\n  {tmp_path}: has files of several kinds: .tar, image ({FORMS})"
    assert refusal(tmp_path) == expected


def test_all_names_that_are_not_utf_8_are_reported(tmp_path: Path) -> None:
    for name in (b"\xff1.png", b"fine.png", b"\xfe2.png"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(b"x")
    with pytest.raises(SettingError) as caught:
        list_images(str(tmp_path))
    assert sorted(problem.place for problem in caught.value.problems) == [r"'\udcfe2.png'", r"'\udcff1.png'"]


def test_two_images_with_the_same_key_are_refused_and_both_locators_named(tmp_path: Path) -> None:
    places = [write_tar(tmp_path / f"{number}.tar", {"x.jpg": b"same", "y.jpg": b"other"}) for number in range(2)]
    first, second = (path.as_uri() for path in places)
    assert refusal(tmp_path).splitlines() == [
        "image list cannot be used:",
        f"  x.jpg: is the key of both {first}#bytes=512-516 and {second}#bytes=512-516",
        f"  y.jpg: is the key of both {first}#bytes=1536-1541 and {second}#bytes=1536-1541",
        "  what to do: set --views.keys archive, which puts the path of the archive before each key",
    ]


def test_of_many_keys_that_occur_twice_ten_are_shown(tmp_path: Path) -> None:
    write_list(tmp_path / "list.txt", [f"{number:02d}.png" for number in range(13)] * 2)
    lines = refusal(tmp_path / "list.txt").splitlines()
    assert [line.split(":")[0] for line in lines[1:-2]] == [f"  {number:02d}.png" for number in range(10)]
    assert lines[-2] == "  …: and 3 more"


def cut_at(part: float) -> Callable[[bytes], bytes]:
    """Keep the first part of the bytes."""
    return lambda body: body[: int(len(body) * part)]


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda _: b"", "is not a tar that can be read in place: "),
        (lambda _: b"no tar at all" * 99, "is not a tar that can be read in place: "),
        (lambda body: body[: 512 + 500], "is not a tar that can be read in place: unexpected end of data"),
        (lambda body: body[:1024], "has neither a member nor an end mark at byte 1024: "),
        (lambda body: body[:1024] + b"?" * 512 + body[1536:], "has neither a member nor an end mark at byte 1024: "),
    ],
    ids=["nothing", "no tar", "cut in a member", "cut between members", "a damaged header"],
)
def test_a_damaged_tar_is_refused(tmp_path: Path, spoil: Callable[[bytes], bytes], found: str) -> None:
    path = write_tar(tmp_path / "a.tar", {"x.jpg": b"x" * 512, "y.jpg": b"y"})
    path.write_bytes(spoil(path.read_bytes()))
    assert refusal(tmp_path).startswith(f"archive cannot be used:\n  {path.as_uri()}: {found}")


def test_a_compressed_tar_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("x.jpg"))
    assert refusal(tmp_path).endswith(
        "(unpack it if it is compressed; if it is damaged, download it again or leave it out)"
    )


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE])
def test_an_image_that_is_a_link_in_a_tar_is_refused(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        header = tarfile.TarInfo("x.jpg")
        header.type, header.linkname = kind, "y.jpg"
        archive.addfile(header)
    assert refusal(tmp_path) == (
        f"archive cannot be used:\n  {tmp_path.as_uri()}/a.tar: x.jpg: is a link, a device or a sparse file (pack "
        "regular files, with `tar --dereference --hard-dereference`)"
    )


def test_the_key_of_a_row_without_a_key_column_is_the_file_and_the_row_number(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [{"image": {"bytes": b"%d" % n, "path": None}} for n in range(4)])
    write_parquet(tmp_path / "b.parquet", [{"png": b"x"}])
    expected = {f"a.parquet/{number}": b"%d" % number for number in range(4)}
    assert read(tmp_path) == expected | {"b.parquet/0.png": b"x"}


def test_a_row_without_image_bytes_is_an_empty_image(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [{"id": 7, "image": {"bytes": b"x"}}, {"id": 8, "image": None}])
    assert read(tmp_path) == {"7": b"x", "8": b""}


@pytest.mark.parametrize(
    ("row", "found", "fix"),
    [
        (
            {"key": "x", "caption": "y"},
            "has no column of bytes; its columns are key, caption",
            "a column of images is binary: give a file that holds images, not their names",
        ),
        (
            {"key": "x", "jpg": "text"},
            "has no column of bytes; its columns are key, jpg",
            "a column of images is binary: give a file that holds images, not their names",
        ),
        (
            {"jpg": b"x", "png": b"y"},
            "does not say which column holds images; its columns of bytes are jpg, png",
            "name it with --views.image-column",
        ),
        (
            {"picture": b"x", "mask": {"bytes": b"y"}},
            "does not say which column holds images; its columns of bytes are picture, mask.bytes",
            "name it with --views.image-column",
        ),
    ],
)
def test_a_parquet_file_without_one_column_of_images_is_refused(
    tmp_path: Path, row: dict[str, Any], found: str, fix: str
) -> None:
    path = write_parquet(tmp_path / "a.parquet", [row])
    assert refusal(tmp_path) == f"Parquet file cannot be used:\n  {path.as_uri()}: {found} ({fix})"


def test_a_parquet_file_that_is_damaged_is_refused(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", [{"jpg": b"x"}])
    path.write_bytes(path.read_bytes()[:-5])
    assert refusal(tmp_path) == (
        f"Parquet file cannot be used:\n  {path.as_uri()}: cannot be read as Parquet: ArrowInvalid (download it again, "
        "or leave it out)"
    )


def test_a_folder_that_may_not_be_read_is_refused_and_not_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "locked").mkdir()
    (tmp_path / "open" / "1.png").touch()
    scan = os.scandir

    def scandir(folder: str) -> Any:
        if folder.endswith("locked"):
            raise PermissionError(errno.EACCES, "Permission denied", folder)
        return scan(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(SettingError) as caught:
        list_images(str(tmp_path))
    assert f"{tmp_path}/locked: cannot be listed: Permission denied (make it readable" in str(caught.value)
