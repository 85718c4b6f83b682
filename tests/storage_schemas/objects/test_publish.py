"""Publishing: an object is there whole, or it is not there."""

import errno
import hashlib
import itertools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash
from durability import recorded

from storage_schemas.format.errors import StorageError
from storage_schemas.objects.publish import (
    TEMPORARY,
    publish,
    publish_bytes,
    publish_group,
    publish_json,
    replace_whole,
    write_whole,
)
from storage_schemas.objects.store import Store

NUMBERS = itertools.count()


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind."""
    return Store(uri=str(tmp_path / "cache") if request.param == "local" else f"memory://published-{next(NUMBERS)}")


def test_an_object_appears_when_its_block_ends_and_not_before(store: Store) -> None:
    with publish(store, "a/b/c") as sink:
        sink.write(b"one ")
        sink.write(b"two")
        assert not store.exists("a/b/c")
    assert store.read("a/b/c") == b"one two"
    assert store.listing("") == ["a/b/c"]


def test_the_sink_counts_and_hashes_what_it_is_given(store: Store) -> None:
    body = b"one " + 200_000 * b"two"
    with publish(store, "object") as sink:
        sink.write(body[:4])
        assert sink.size == 4
        sink.write(body[4:])
        assert sink.xxh3 == xxhash.xxh3_128(body).hexdigest()
    assert (sink.size, sink.xxh3) == (len(body), xxhash.xxh3_128(store.read("object")).hexdigest())


def test_what_was_written_may_be_changed_afterwards(store: Store) -> None:
    body = bytearray(b"one")
    with publish(store, "object") as sink:
        sink.write(memoryview(body))
        body[:] = b"two"
        sink.write(memoryview(body))
    assert store.read("object") == b"onetwo"


def test_pieces_are_written_one_after_the_other(store: Store) -> None:
    numbers = np.arange(4096, dtype=np.uint8)
    pieces = [b"one", b"", memoryview(b"two"), *(pair.data for pair in numbers.reshape(-1, 2))]
    body = b"".join(map(bytes, pieces))
    with publish(store, "object") as sink:
        sink.write_all([])
        sink.write_all(pieces)
        sink.write_all(reversed(pieces))
    body += b"".join(map(bytes, pieces[::-1]))
    assert store.read("object") == body
    assert (sink.size, sink.xxh3) == (len(body), xxhash.xxh3_128(body).hexdigest())


def test_what_the_system_does_not_write_at_once_is_written_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def write_some(descriptor: int, pieces: list[Any]) -> int:
        asked.append(len(pieces))
        return os.write(descriptor, b"".join(map(bytes, pieces))[:5])

    monkeypatch.setattr(os, "writev", write_some)
    store = Store(uri=str(tmp_path))
    with publish(store, "object") as sink:
        sink.write_all([b"abc", b"", b"de", b"fghijklmnopq", b"", b"r"])
    assert store.read("object") == b"abcdefghijklmnopqr"
    assert asked == [6, 3, 3, 3]


def test_a_disk_that_is_full_in_the_midst_of_pieces_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = iter([5, 0])

    def write_some(descriptor: int, pieces: list[Any]) -> int:
        if taken := next(room):
            return os.write(descriptor, b"".join(pieces)[:taken])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "writev", write_some)
    store = Store(uri=str(tmp_path))
    with pytest.raises(StorageError, match="object: cannot be written: No space left on device"):
        publish_bytes(store, "object", b"abcdefgh")
    assert store.listing("") == []


def write_half(store: Store, name: str, raised: type[BaseException]) -> None:
    """Begin an object and raise."""
    with publish(store, name) as sink:
        sink.write(b"half")
        raise raised


@pytest.mark.parametrize("raised", [ValueError, KeyboardInterrupt])
def test_nothing_is_left_of_an_object_whose_block_raises(store: Store, raised: type[BaseException]) -> None:
    with pytest.raises(raised):
        write_half(store, "a/object", raised)
    assert store.listing("") == []


def test_an_object_is_replaced_at_once(store: Store) -> None:
    publish_bytes(store, "object", b"old")
    with publish(store, "object") as sink:
        sink.write(b"new and longer")
        assert store.read("object") == b"old"
    assert store.read("object") == b"new and longer"


def test_an_object_whose_replacement_raises_stays_as_it_was(store: Store) -> None:
    publish_bytes(store, "object", b"old")
    with pytest.raises(ArithmeticError):
        write_half(store, "object", ArithmeticError)
    assert store.read("object") == b"old"


def test_what_is_being_written_lies_beside_its_place_under_a_name_that_nobody_reads(tmp_path: Path) -> None:
    with publish(Store(uri=str(tmp_path)), "folder/object"):
        [found] = os.listdir(tmp_path / "folder")
    assert found.startswith("object.")
    assert found.endswith(TEMPORARY)


def test_two_writers_of_one_object_do_not_meet(tmp_path: Path) -> None:
    store = Store(uri=str(tmp_path))
    with publish(store, "object") as first, publish(store, "object") as second:
        first.write(b"same")
        second.write(b"same")
    assert store.read("object") == b"same"
    assert os.listdir(tmp_path) == ["object"]


def test_a_group_holds_our_attribute_and_nothing_else(store: Store) -> None:
    publish_group(store, "", {"format": 1})
    publish_group(store, "teachers/dinov3")
    seal = hashlib.sha256(b'{"format":1}').hexdigest()
    root = {"zarr_format": 3, "node_type": "group", "attributes": {"stillhouse": {"format": 1, "seal": seal}}}
    assert json.loads(store.read("features.zarr/zarr.json")) == root
    plain = json.loads(store.read("features.zarr/teachers/dinov3/zarr.json"))
    assert plain == {"zarr_format": 3, "node_type": "group", "attributes": {}}
    assert store.read("features.zarr/teachers/dinov3/zarr.json").endswith(b'"attributes": {}\n}\n')


def test_json_keeps_its_order_and_refuses_nan(store: Store) -> None:
    publish_json(store, "object", {"b": 1, "a": "ä"})
    assert store.read("object").decode() == '{\n "b": 1,\n "a": "ä"\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        publish_json(store, "object", {"a": float("nan")})


@pytest.mark.parametrize("advised", [True, False])
def test_the_disk_begins_while_more_is_written_and_no_page_is_kept(
    advised: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, int] | str] = []
    fsync = os.fsync

    def let_go(descriptor: int, start: int, length: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_DONTNEED
        assert os.fstat(descriptor).st_size == start + length  # nothing of it waits in a buffer
        told.append((start, length))

    def flush(descriptor: int) -> None:
        told.append("flushed")
        fsync(descriptor)

    monkeypatch.setattr("storage_schemas.objects.publish.ON_ITS_WAY", 10)
    monkeypatch.setattr(os, "fsync", flush)
    if advised:
        monkeypatch.setattr(os, "posix_fadvise", let_go)
    else:
        monkeypatch.delattr(os, "posix_fadvise")
    store, parts = Store(uri=str(tmp_path)), [b"abcd", b"efghij", b"k" * 25, b"lm", b"n"]
    with publish(store, "x") as sink:
        for part in parts:
            sink.write(part)
    assert store.read("x") == b"".join(parts)
    folder = "flushed"  # its name is in the folder only after this
    assert told == ([(0, 10), (0, 35), "flushed", (0, 38), folder] if advised else ["flushed", folder])
    told.clear()
    publish_bytes(store, "y", b"a table")
    assert told == ["flushed", folder], "what is small is read again soon, so it is not let go"


def test_a_local_file_is_replaced_whole_or_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "folder" / "file"
    write_whole(path, b"before")
    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", lambda *_: os.write(-1, b""))
        with pytest.raises(StorageError) as refusal:
            write_whole(path, b"after")
    assert str(refusal.value).startswith(f"storage failed:\n  {path}: cannot be written: Bad file descriptor (run")
    assert path.read_bytes() == b"before"
    monkeypatch.chdir(path.parent)
    write_whole("file", b"after")
    assert [(file.name, file.read_bytes()) for file in path.parent.iterdir()] == [("file", b"after")]


def test_a_local_file_gets_its_name_when_its_bytes_are_on_the_disk_and_then_its_name_is_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = recorded(monkeypatch, tmp_path)
    write_whole(tmp_path / "new" / "folder" / "file", b"whole")
    name = "new/folder/file"
    made = ["mkdir new", "mkdir new/folder"]
    assert disk.steps == [*made, f"flush {name}", f"rename {name}", "flush new/folder", "flush new", "flush ."]
    disk.require_durable()


def test_an_object_of_a_cache_is_as_durable_as_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = recorded(monkeypatch, tmp_path)
    publish_bytes(Store(uri=str(tmp_path)), "a/b/object", b"whole")
    made = ["mkdir a", "mkdir a/b"]
    assert disk.steps == [*made, "flush a/b/object", "rename a/b/object", "flush a/b", "flush a", "flush ."]
    disk.steps.clear()
    publish_bytes(Store(uri=str(tmp_path)), "a/b/object", b"anew")
    assert disk.steps == ["flush a/b/object", "rename a/b/object", "flush a/b"]


def test_a_file_that_another_library_wrote_gets_its_name_in_the_same_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = recorded(monkeypatch, tmp_path)
    path, temporary = tmp_path / "file", tmp_path / "file.partial"
    path.write_bytes(b"old")
    temporary.write_bytes(b"new")
    replace_whole(temporary, path)
    assert disk.steps == ["flush file", "rename file", "flush ."]
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("file", b"new")]


def test_a_file_that_was_never_written_replaces_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(StorageError, match=r"file: cannot be written: No such file or directory"):
        replace_whole(tmp_path / "absent", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"old"
