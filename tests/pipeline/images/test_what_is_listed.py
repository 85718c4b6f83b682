"""What is listed of DATA, what is passed over, and that each kind is counted."""

import os
import re
import socket
import tarfile
from pathlib import Path
from typing import Any

import fsspec
import pytest
from image_forms import write_list, write_parquet, write_tar

from pipeline.config import ViewsConfig
from pipeline.images.braces import expand
from pipeline.images.listing import list_images
from pipeline.images.reader import ImageReader
from storage_schemas.format.errors import AbstractStillhouseError, MissingError


def keys(data: object, **settings: Any) -> list[str]:
    """Keys of the images in DATA."""
    return [image.key for image in list_images(str(data), ViewsConfig(**settings))]


def said(data: object, **settings: Any) -> list[str]:
    """What is said at the end of a listing."""
    lines: list[str] = []
    list_images(str(data), ViewsConfig(**settings), say=lines.append)
    return lines


def refusal(data: object, **settings: Any) -> str:
    """The message with which DATA is refused."""
    with pytest.raises(AbstractStillhouseError) as caught:
        list_images(str(data), ViewsConfig(**settings))
    return str(caught.value)


def touched(root: Path, *names: str) -> Path:
    """A folder with files of these names."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


MIXED = (
    *("a.jpg", "b/c.JFIF", "b/d.jpe", "e.pgm"),
    *("f.heic", "g.psd", "h.HEIC", "i.tgz", "j.tar.gz", "k.zip", "l.json", "m.json", "n.txt", "README"),
    *("._a.jpg", ".hidden.png", ".ipynb_checkpoints/a.jpg", "b/@eaDir/c.jpg", "__MACOSX/._b.jpg", ".git/objects/1"),
)

EXPECTED = (
    "images: 4 in DATA; passed over: 2 hidden files; 4 hidden folders (.ipynb_checkpoints 1, @eaDir 1, __MACOSX 1, "
    ".git 1); 3 images of formats that are not decoded (.heic 2, .psd 1); 3 compressed archives "
    "(.tgz 1, .gz 1, .zip 1); 4 other files (.json 2, .txt 1, no ending 1); 2 pipes, sockets and devices"
)


def test_a_folder_is_listed_and_what_is_passed_over_is_counted_by_kind(tmp_path: Path) -> None:
    data = touched(tmp_path, *MIXED)
    os.mkfifo(data / "pipe.jpg")
    (data / "device.jpg").symlink_to("/dev/zero")
    assert keys(data) == ["a.jpg", "b/c.JFIF", "b/d.jpe", "e.pgm"]
    [line] = said(data)
    assert line.startswith("images: 4 in DATA; passed over: ")
    # sorted, since the order is that in which the folder yields its files
    assert sorted(re.findall(r"[^ ;:,()]+", line)) == sorted(re.findall(r"[^ ;:,()]+", EXPECTED))


def test_nothing_is_said_where_nothing_is_passed_over(tmp_path: Path) -> None:
    assert said(touched(tmp_path, "a.jpg", "b.png")) == []


def test_the_rules_of_version_0_1_list_what_that_version_did(tmp_path: Path) -> None:
    data = touched(tmp_path / "data", *MIXED)
    (data / "linked").symlink_to(touched(tmp_path / "elsewhere", "z.jpg"))
    expected = {"a.jpg", "._a.jpg", ".hidden.png", ".ipynb_checkpoints/a.jpg", "b/@eaDir/c.jpg", "__MACOSX/._b.jpg"}
    assert set(keys(data, rules="0.1")) == expected


@pytest.mark.parametrize("pattern", ["", "/*/*.png", "/**/*.png"])
def test_folders_behind_links_are_listed(tmp_path: Path, pattern: str) -> None:
    data, elsewhere = touched(tmp_path / "data", "cat/1.png"), touched(tmp_path / "elsewhere", "2.png")
    (data / "dog").symlink_to(elsewhere)
    assert keys(f"{data}{pattern}") == ["cat/1.png", "dog/2.png"]


def test_a_link_that_leads_back_is_not_followed_for_ever(tmp_path: Path) -> None:
    data = touched(tmp_path / "data", "1.png", "sub/2.png")
    (data / "sub" / "back").symlink_to(data)
    (data / "up").symlink_to(tmp_path)
    touched(tmp_path, "3.png")
    assert keys(data) == ["1.png", "sub/2.png", "up/3.png"]
    [line] = said(data)
    assert line.startswith("images: 3 in DATA; passed over: 2 links that lead back to a folder above them (")


@pytest.mark.parametrize("pattern", ["", "/*.png"])
def test_links_that_lead_nowhere_are_refused_and_named(tmp_path: Path, pattern: str) -> None:
    data = touched(tmp_path, "1.png")
    (data / "2.png").symlink_to("gone.png")
    (data / "3.png").symlink_to(tmp_path / "nowhere/3.png")
    assert refusal(f"{data}{pattern}").splitlines()[1:] == [
        f"  {data}/2.png: is a link to gone.png, where nothing is",
        f"  {data}/3.png: is a link to {tmp_path}/nowhere/3.png, where nothing is",
        "  what to do: restore what it leads to, or delete the link",
    ]


def test_a_folder_behind_a_link_that_leads_nowhere_is_not_lost_silently(tmp_path: Path) -> None:
    data = touched(tmp_path, "1.png")
    (data / "dog").symlink_to(tmp_path / "nowhere/dog")
    assert f"dog: is a link to {tmp_path}/nowhere/dog, where nothing is" in refusal(data)


def test_data_that_is_a_link_to_nowhere_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to(tmp_path / "nowhere")
    assert f"{tmp_path}/data: is a link to {tmp_path}/nowhere, where nothing is" in refusal(tmp_path / "data")


@pytest.mark.parametrize("name", ["a.tar", "a.parquet", "a.txt", "a.jpg"])
def test_a_pipe_is_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    assert f"{name}: is neither a file nor a folder" in refusal(tmp_path / name)
    assert "contains no image; it has 1 pipes, sockets and devices" in refusal(tmp_path)


def test_pipes_sockets_and_devices_that_a_list_names_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket.jpg"))
        for name in ("pipe.jpg", "/dev/zero"):
            [image] = list_images(str(write_list(tmp_path / "list.txt", [name])))
            with pytest.raises(MissingError, match="it is a pipe, a socket, a device or a folder"):
                ImageReader().read(image.uri)
        [image] = list_images(str(write_list(tmp_path / "list.txt", ["socket.jpg"])))
        with pytest.raises(MissingError):
            ImageReader().read(image.uri)


def test_a_compressed_tar_beside_tars_is_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {"a.jpg": b"x"})
    touched(tmp_path, "1.tar.gz", "2.tgz")
    message = refusal(tmp_path)
    assert "1.tar.gz: is a compressed tar beside others" in message
    assert "2.tgz: is a compressed tar beside others" in message
    assert keys(f"{tmp_path}/*.tar") == ["a.jpg"]


def member(name: str) -> bytes:
    """A member of a tar, without an end mark."""
    header = tarfile.TarInfo(name)
    header.size = 700
    return header.tobuf() + bytes([7]) * 700 + bytes(324)


END = bytes(1024)


@pytest.mark.parametrize(
    "body",
    [
        member("a.jpg") + bytes(10240) + member("b.jpg") + END,
        member("a.jpg") + bytes(512) + member("b.jpg")[512:] + member("c.jpg") + END,
        member("a.jpg") + bytes(512) + member("b.jpg") + END,
        member("a.jpg") + END + bytes(3 * 2**20) + b"x",
    ],
    ids=["two tars joined", "a header zeroed", "an empty block between", "a byte far behind"],
)
def test_what_follows_the_end_of_a_tar_is_not_lost_silently(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(body)
    assert "has an end mark at byte 1536 and more members or other data after it" in refusal(tmp_path)
    assert keys(tmp_path, rules="0.1") == ["a.jpg"]


def test_a_tar_may_be_padded_with_zeros(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(member("a.jpg") + END + bytes(3 * 2**20))
    assert keys(tmp_path) == ["a.jpg"]


def test_members_that_are_passed_over_are_counted(tmp_path: Path) -> None:
    names = ("0.jpg", "0.json", "1.jpg", "1.json", "._2.jpg", "x/__MACOSX/3.jpg", "4.heic")
    data = write_tar(tmp_path / "a.tar", dict.fromkeys(names, b"x"))
    assert keys(data) == ["0.jpg", "1.jpg"]
    assert said(data) == [
        "images: 2 in DATA; passed over: 2 other files (.json 2); 2 hidden files; 1 images of formats that are not "
        "decoded (.heic 1)"
    ]


MASKED = ("0001.jpg", "0001.seg.png", "0002.jpg", "0002.seg.png")


def test_a_tar_with_several_images_of_a_sample_is_refused_until_one_is_chosen(tmp_path: Path) -> None:
    data = write_tar(tmp_path / "a.tar", dict.fromkeys(MASKED, b"x"))
    assert refusal(data) == (
        f"archive cannot be used:\n  {data.as_uri()}: has several images of one sample, 0001: .jpg, .seg.png (choose "
        "with --views.members, such as '*.jpg' or '*.{jpg,png}'; '*' takes each as an image of its own)"
    )
    assert keys(data, members="*.jpg") == ["0001.jpg", "0002.jpg"]
    assert said(data, members="*.jpg") == ["images: 2 in DATA; passed over: 2 members that --views.members leaves out"]
    assert keys(data, members="*2.{jpg,seg.png}") == ["0002.jpg", "0002.seg.png"]
    assert keys(data, members="*") == keys(data, rules="0.1") == list(MASKED)


def write_two(root: Path, form: str) -> Path:
    """Two archives, in two folders, with the same names."""
    for place, body in (("train", b"first"), ("val", b"second")):
        if form == "tar":
            write_tar(root / place / "0.tar", {"x.jpg": body, "y.jpg": body})
        else:
            write_parquet(root / place / "0.parquet", [{"jpg": body, "key": key} for key in "xy"])
    return root


@pytest.mark.parametrize("form", ["tar", "parquet"])
def test_two_archives_with_the_same_keys_are_told_apart_by_a_setting(tmp_path: Path, form: str) -> None:
    data = write_two(tmp_path, form)
    assert "set --views.keys archive, which puts" in refusal(data)
    prefixes = [f"{place}/0.{form}" for place in ("train", "val")]
    assert keys(data, keys="archive") == [f"{prefix}/{name}.jpg" for prefix in prefixes for name in "xy"]
    ending = "" if form == "tar" else ".jpg"
    assert keys(data, keys="numbers") == [f"{prefix}/{number}{ending}" for prefix in prefixes for number in range(2)]


def test_a_key_that_is_twice_in_one_parquet_file_is_told_apart_by_its_number(tmp_path: Path) -> None:
    rows = [{"image": {"bytes": b"%d" % number, "path": "0.jpg"}} for number in range(2)]
    data = write_parquet(tmp_path / "a.parquet", rows)
    assert "set --views.keys numbers: the path of the archive and the number of the image" in refusal(data)
    assert keys(data, keys="numbers") == ["a.parquet/0", "a.parquet/1"]


def test_rows_without_keys_are_told_apart_by_the_path_of_their_file(tmp_path: Path) -> None:
    for place in ("train", "test"):
        write_parquet(tmp_path / place / "0000.parquet", [{"image": {"bytes": place.encode(), "path": None}}])
    assert keys(tmp_path) == ["test/0000.parquet/0", "train/0000.parquet/0"]
    assert "0000.parquet/0: is the key of both" in refusal(tmp_path, rules="0.1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", ["a"]),
        ("{08..11}.tar", ["08.tar", "09.tar", "10.tar", "11.tar"]),
        ("{2..0}", ["2", "1", "0"]),
        ("{a,b}/{0..1}", ["a/0", "a/1", "b/0", "b/1"]),
        ("{x}", ["{x}"]),
        ("{x}{1..2}", ["{x}1", "{x}2"]),
        ("{,b}c", ["c", "bc"]),
        ("}{", ["}{"]),
    ],
)
def test_braces_expand_as_in_a_shell(text: str, expected: list[str]) -> None:
    assert expand(text) == expected


def test_shards_that_braces_name_are_listed_and_missed_where_one_is_not_there(tmp_path: Path) -> None:
    for number in range(3):
        write_tar(tmp_path / f"{number:04d}.tar", {f"{number}.jpg": b"x"})
    assert keys(f"{tmp_path}/{{0000..0002}}.tar") == ["0.jpg", "1.jpg", "2.jpg"]
    assert keys(f"{tmp_path}/{{0000,0002}}.tar", keys="archive") == ["0000.tar/0.jpg", "0002.tar/2.jpg"]
    assert f"{tmp_path}/0003.tar: does not exist (it is named by" in refusal(f"{tmp_path}/{{0000..0003}}.tar")
    (tmp_path / "{0000..0002}.tar").write_bytes((tmp_path / "0001.tar").read_bytes())
    assert keys(f"{tmp_path}/{{0000..0002}}.tar") == ["1.jpg"], "a file of this very name"


def test_braces_may_name_folders_and_patterns(tmp_path: Path) -> None:
    data = touched(tmp_path, "train/1.jpg", "val/2.jpg", "test/3.jpg")
    assert keys(f"{data}/{{train,val}}") == ["train/1.jpg", "val/2.jpg"]
    assert keys(f"{data}/{{train,test}}/*.jpg") == ["test/3.jpg", "train/1.jpg"]


def test_a_list_may_have_comments_and_labels(tmp_path: Path) -> None:
    touched(tmp_path, "a.jpg", "b c.jpg", "d", "e 3.jpg", "f.png 2 g.png")
    lines = ["# a list", "a.jpg 7", "b c.jpg\tcat, dog", "d", "e 3.jpg -1 0.5", "  ", "f.png 2 g.png"]
    data = write_list(tmp_path / "list.txt", lines)
    assert keys(data) == ["a.jpg", "b c.jpg", "d", "e 3.jpg", "f.png 2 g.png"]
    assert said(data) == ["images: 5 in DATA; passed over: 1 comments"]
    assert [ImageReader().read(image.uri) for image in list_images(str(data))] == [b"x"] * 5
    assert keys(data, rules="0.1") == sorted(line.strip() for line in lines if line.strip())


def test_a_list_may_be_a_table(tmp_path: Path) -> None:
    touched(tmp_path, "a,1.jpg", "b.jpg")
    table = tmp_path / "list.csv"
    table.write_text('label,Path,name\n3,"a,1.jpg",first\n4,b.jpg,second\n')
    assert keys(table) == ["a,1.jpg", "b.jpg"]
    assert keys(table, key_column="name") == ["first", "second"]
    table.write_text("label\twhere\n3\tb.jpg\n")
    table = table.rename(tmp_path / "list.tsv")
    assert "does not say which column to use; its columns are label, where (name it with --views.image-column)" in (
        refusal(table)
    )
    assert keys(table, image_column="where") == ["b.jpg"]
    table.write_text("path\tlabel\nb.jpg\n")
    assert "has 1 values in row 2, and 2 columns" in refusal(table)


def test_hidden_files_on_a_network_are_passed_over_too() -> None:
    memory = fsspec.filesystem("memory")
    for name in ("a.jpg", "._a.jpg", ".x/b.jpg", "sub/c.jpg"):
        memory.pipe_file(f"/hidden/{name}", b"x")
    assert keys("memory://hidden") == ["a.jpg", "sub/c.jpg"]
    assert said("memory://hidden") == ["images: 2 in DATA; passed over: 2 hidden files"]
    assert keys("memory://hidden/*.jpg") == ["a.jpg"]
