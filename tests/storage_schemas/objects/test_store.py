"""A store gives exactly the bytes asked for, of objects inside it, or says why not."""

import errno
import os
import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st

from storage_schemas.format.errors import CorruptionError, MissingError, SettingError, StorageError
from storage_schemas.objects.store import Store

BODY = bytes(range(100))
OBJECTS = {"a/b.bin": BODY, "a/c.bin": b"", "a-side": b"beside", "é/τ.bin": b"unicode"}


def memory() -> Any:
    """Return fsspec's file system in memory: to the store it is a remote one."""
    return fsspec.filesystem("memory", use_listings_cache=False)


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store of each kind that holds OBJECTS."""
    filled = Store(uri=str(tmp_path / "cache") if request.param == "local" else "memory://bucket/cache")
    for name, body in OBJECTS.items():
        filled.filesystem.makedirs(filled.path(name).rsplit("/", 1)[0], exist_ok=True)
        filled.filesystem.pipe_file(filled.path(name), body)
    yield filled
    memory().rm("/", recursive=True)


def test_only_a_folder_of_this_machine_is_local(tmp_path: Path) -> None:
    assert Store(uri=str(tmp_path)).is_local
    assert Store(uri=f"file://{tmp_path}").is_local
    assert not Store(uri="memory://x").is_local


def test_objects_are_read_whole_in_the_order_of_their_names(store: Store) -> None:
    assert store.read("a/b.bin") == BODY
    assert store.read_many([*reversed(OBJECTS), "a-side"]) == [*reversed(OBJECTS.values()), b"beside"]
    assert store.read_many([]) == []


def test_ranges_are_read_in_the_order_asked_for(store: Store) -> None:
    ranges = [(90, 100), (0, 1), (40, 60), (0, 100), (7, 7)]
    assert store.read_ranges("a/b.bin", ranges) == [BODY[start:stop] for start, stop in ranges]
    assert store.read_ranges("a/b.bin", []) == []


def test_sizes_and_presence_are_told(store: Store) -> None:
    assert [store.size(name) for name in ("a/b.bin", "a/c.bin", "a/d.bin")] == [100, 0, None]
    assert [store.exists(name) for name in ("a/b.bin", "a", "a/d.bin", "")] == [True, True, False, True]


def test_a_listing_names_every_object_below_a_folder_and_none_beside_it(store: Store) -> None:
    assert store.listing("a") == ["a/b.bin", "a/c.bin"]
    assert store.listing("") == sorted(OBJECTS)
    assert store.listing("nothing") == []


def test_what_another_writer_adds_is_listed_at_once(store: Store) -> None:
    store.listing("a")
    store.filesystem.pipe_file(store.path("a/new.bin"), b"new")
    assert store.listing("a") == ["a/b.bin", "a/c.bin", "a/new.bin"]


def test_an_object_that_is_not_there_is_named(store: Store) -> None:
    for read in (
        lambda: store.read("a/d.bin"),
        lambda: store.read_many(["a/b.bin", "a/d.bin"]),
        lambda: store.read_ranges("a/d.bin", [(0, 1), (2, 3)]),
    ):
        with pytest.raises(MissingError) as refusal:
            read()
        assert str(refusal.value) == f"object is missing:\n  {store.uri}/a/d.bin: is not there"


@pytest.mark.parametrize("span", [(99, 101), (100, 101), (200, 300)])
def test_an_object_that_ends_before_a_range_is_damaged(store: Store, span: tuple[int, int]) -> None:
    with pytest.raises(CorruptionError) as refusal:
        store.read_ranges("a/b.bin", [(0, 10), span])
    assert str(refusal.value) == (
        f"object is damaged:\n  {store.uri}/a/b.bin: ends within bytes {span[0]} to {span[1]}"
    )


def test_an_object_store_that_answers_with_an_error_beyond_the_end_is_understood(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = MemoryFileSystem.cat_file

    def as_s3(self: Any, path: str, start: int | None = None, end: int | None = None) -> bytes:
        if start is not None and start >= self.info(path)["size"]:
            raise OSError(errno.EINVAL, "The requested range is not satisfiable")
        return plain(self, path, start, end)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", as_s3)
    memory().pipe_file("/s3/x", BODY)
    with pytest.raises(CorruptionError, match=r"memory://s3/x: ends within bytes 100 to 104$"):
        Store(uri="memory://s3").read_ranges("x", [(0, 4), (100, 104)])


@pytest.mark.parametrize(
    ("failure", "name", "span"),
    [
        (OSError(errno.EINVAL, "bad request"), "x", (0, 4)),
        (OSError(errno.EINVAL, "bad name"), "not-there", (200, 204)),
        (PermissionError("not yours"), "x", (0, 4)),
        (OSError(errno.EIO, "broken"), "x", (200, 204)),
    ],
)
def test_any_other_failure_of_the_file_system_is_a_refusal_that_names_the_object(
    monkeypatch: pytest.MonkeyPatch, failure: OSError, name: str, span: tuple[int, int]
) -> None:
    def fails(*_: Any, **__: Any) -> bytes:
        raise failure

    memory().pipe_file("/other/x", BODY)
    monkeypatch.setattr(MemoryFileSystem, "cat_file", fails)
    with pytest.raises(StorageError) as raised:
        Store(uri="memory://other").read_ranges(name, [span])
    assert raised.value.__cause__ is failure
    assert str(raised.value) == (
        f"storage failed:\n  memory://other/{name}: cannot be read: {failure.args[-1]} "
        "(run the same command again when this is fixed)"
    )


def test_a_disk_that_fails_in_a_read_ends_it_in_one_message(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def failing(*_: Any) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    (tmp_path / "x").write_bytes(BODY)
    monkeypatch.setattr(os, "pread", failing)
    with pytest.raises(StorageError, match=r"/x: cannot be read: Input/output error \(run the same command again"):
        Store(uri=str(tmp_path)).read_ranges("x", [(3, 50)])


def test_a_remote_file_system_keeps_no_listing_that_could_grow_stale() -> None:
    assert Store(uri="memory://x").filesystem.storage_options == {"use_listings_cache": False}


def test_a_read_that_the_system_cuts_short_is_continued(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(BODY)
    plain = os.pread
    monkeypatch.setattr(os, "pread", lambda descriptor, length, start: plain(descriptor, min(length, 7), start))
    assert Store(uri=str(tmp_path)).read_ranges("x", [(3, 50), (0, 7)]) == [BODY[3:50], BODY[:7]]


@pytest.mark.parametrize(
    "name",
    ["../x", "a/../../x", "..", "/etc/passwd", "//x", "s3://other/x", "a/s3://b", "a\0b", "a\\..\\b", "C:\\x"],
)
def test_a_name_that_leads_out_of_the_cache_is_refused_before_anything_is_opened(store: Store, name: str) -> None:
    for use in (
        store.read,
        store.size,
        store.exists,
        store.listing,
        lambda outside: store.read_many(["a/b.bin", outside]),
        lambda outside: store.read_ranges(outside, [(0, 1)]),
    ):
        with pytest.raises(CorruptionError) as refusal:
            use(name)
        assert str(refusal.value) == f"object name is damaged:\n  {name!r}: leads out of the cache"


@given(st.lists(st.sampled_from(["..", ".", "a", "..a", "a..", "%2e%2e", "", "~", "$HOME", "*"]), max_size=6))
def test_no_name_resolves_to_a_place_outside(parts: list[str]) -> None:
    store = Store(uri="/there/is/no/cache")
    try:
        path = store.path("/".join(parts))
    except CorruptionError:
        assert ".." in parts or parts[0] == ""
    else:
        assert f"{os.path.normpath(path)}/".startswith("/there/is/no/cache/")


def test_a_relative_folder_is_resolved_where_the_store_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "x").write_bytes(b"here")
    monkeypatch.chdir(tmp_path)
    store = pickle.loads(pickle.dumps(Store(uri="cache")))
    monkeypatch.chdir("/")
    assert (store.uri, store.read("x")) == (str(tmp_path / "cache"), b"here")


def test_a_store_survives_pickling_open_or_not(store: Store) -> None:
    store.read("a/b.bin")
    copy = pickle.loads(pickle.dumps(store))
    assert (copy, copy.read("a/b.bin")) == (store, BODY)


def test_a_home_folder_is_found() -> None:
    assert Store(uri="~/cache").path("x") == os.path.expanduser("~/cache/x")


@pytest.mark.parametrize("uri", ["/tmp/x", "/tmp/x/", "file:///tmp/x", "file:///tmp/x/"])
def test_a_trailing_slash_changes_nothing(uri: str) -> None:
    assert Store(uri=uri).path("a/b") == "/tmp/x/a/b"


def test_an_empty_uri_is_refused() -> None:
    with pytest.raises(SettingError) as refusal:
        Store(uri="")
    assert str(refusal.value) == "CACHE cannot be used:\n  CACHE: is empty (give a folder or an s3:// URI)"


def test_an_unknown_kind_of_uri_is_refused() -> None:
    with pytest.raises(SettingError) as refusal:
        Store(uri="s4://bucket").read("x")
    assert str(refusal.value) == (
        "CACHE cannot be used:\n  s4://bucket: Protocol not known: s4 (give a folder or an s3:// URI)"
    )


def test_times_of_objects_are_told_and_a_store_without_any_is_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = time.time() - 60
    assert all(before < told < before + 120 for told in store.times("a").values())
    monkeypatch.setattr("storage_schemas.objects.store.TIMES", ())
    with pytest.raises(StorageError) as refusal:
        store.times("a")
    assert str(refusal.value) == (
        f"storage failed:\n  {store.uri}: does not say when an object was written "
        "(point CACHE at another kind of store)"
    )
