"""Local files are read into buffers whole, from the file that was opened, and only so many are kept open."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from storage_schemas.format.errors import CorruptionError, MissingError, StorageError
from storage_schemas.objects.local_files import KEPT_OPEN, OpenFile, open_file

BODY = bytes(range(256)) * 4


@pytest.fixture
def file(tmp_path: Path) -> OpenFile:
    """A file of 1,024 bytes, open."""
    (tmp_path / "x").write_bytes(BODY)
    return open_file(str(tmp_path / "x"), tmp_path)


def test_buffers_are_filled_one_after_the_other(file: OpenFile) -> None:
    first, second, third = np.zeros(5, np.uint8), bytearray(4), np.zeros((3, 100), np.uint8)
    file.fill(7, first, second, third[1])
    assert first.tobytes() + bytes(second) + third[1].tobytes() == BODY[7:116]
    assert not third[[0, 2]].any()


@pytest.mark.parametrize("most", [1, 3, 8, 9, 10, 50])
def test_a_read_that_the_system_cuts_short_is_continued(
    file: OpenFile, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(descriptor: int, buffers: list, start: int) -> int:
        read = 0
        for buffer in buffers:
            part = os.pread(descriptor, min(len(buffer), most - read), start + read)
            memoryview(buffer)[: len(part)] = part
            read += len(part)
        return read

    monkeypatch.setattr(os, "preadv", short)
    first, second, third = np.zeros(6, np.uint8), bytearray(3), bytearray(20)
    file.fill(1000 - 29, first, second, third)
    assert first.tobytes() + bytes(second) + bytes(third) == BODY[1000 - 29 : 1000]


@pytest.mark.parametrize("start", [1015, 1024, 5000])
def test_a_file_that_ends_before_the_buffers_are_full_is_damaged(file: OpenFile, start: int, tmp_path: Path) -> None:
    with pytest.raises(CorruptionError) as refusal:
        file.fill(start, bytearray(6), bytearray(4))
    assert str(refusal.value) == f"object is damaged:\n  {tmp_path}/x: ends within bytes {start} to {start + 10}"


def test_a_disk_that_fails_is_told_in_one_message(
    file: OpenFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "preadv", fail)
    monkeypatch.setattr(os, "open", fail)
    for read in (lambda: file.fill(0, bytearray(1)), lambda: open_file(f"{tmp_path}/x", object())):
        with pytest.raises(StorageError) as refusal:
            read()
        found = "cannot be read: Input/output error (run the same command again when this is fixed)"
        assert str(refusal.value) == f"storage failed:\n  {tmp_path}/x: {found}"


def test_a_file_that_is_not_there_is_missing_until_it_is(tmp_path: Path) -> None:
    path, found = tmp_path / "y", bytearray(2)
    with pytest.raises(MissingError) as refusal:
        open_file(str(path), tmp_path)
    assert str(refusal.value) == f"object is missing:\n  {path}: is not there"
    path.write_bytes(b"ab")
    open_file(str(path), tmp_path).fill(0, found)
    assert found == b"ab"


def test_a_reader_goes_on_with_the_file_that_it_opened_and_a_later_one_finds_the_new(tmp_path: Path) -> None:
    path, found = tmp_path / "x", bytearray(3)
    path.write_bytes(b"old")
    earlier = object()
    open_file(str(path), earlier)
    (tmp_path / "new").write_bytes(b"new")
    (tmp_path / "new").replace(path)
    for reader, body in ((earlier, b"old"), (object(), b"new")):
        open_file(str(path), reader).fill(0, found)
        assert found == body


def test_no_more_files_are_kept_open_than_stated_and_one_in_use_stays_open(tmp_path: Path) -> None:
    path, found = tmp_path / "x", bytearray(3)
    path.write_bytes(b"abc")
    held = open_file(str(path), "held")
    before = len(os.listdir("/proc/self/fd"))
    for number in range(2 * KEPT_OPEN):
        open_file(str(path), number)
    assert len(os.listdir("/proc/self/fd")) - before <= KEPT_OPEN
    held.fill(0, found)
    assert found == b"abc"
