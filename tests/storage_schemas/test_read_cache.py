"""What was read from a store behind a network is kept within a bound, checked as from the store, and never trusted."""

import os
import random
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storage_schemas.commits import ShardRecord
from storage_schemas.format.errors import CorruptionError, MissingError, SettingError
from storage_schemas.format.shard_format import ArraySpec, encode_chunk, encode_index
from storage_schemas.objects.store import Store
from storage_schemas.read_cache import ABANDONED, HEAD_BYTES, MARKER, RangeKey, ReadCache, open_read_cache
from storage_schemas.sharded_array import ShardedArray

SLOTS, ROWS = 4, 10
SPEC = ArraySpec(path="views/low-32/pixels", shape=(ROWS, 8, 8, 3), dtype="uint8", rows_per_shard=SLOTS)
ENTRIES = np.random.default_rng(0).integers(0, 256, (ROWS, 8, 8, 3), dtype=np.uint8)
ROOM = 10**6
FILLER = """
import random, sys
from storage_schemas.read_cache import RangeKey, ReadCache
folder, limit, seed, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
cache, draws, hits = ReadCache(folder=folder, limit=limit, sets=3), random.Random(seed), 0
print("filling", flush=True)
for _ in range(count):
    number = draws.randrange(300)
    key = RangeKey(uri="s3://b/c", path=f"features.zarr/{number}", xxh3="", start=0, stop=1000 + number)
    if (body := cache.get(key)) is None:
        cache.put(key, bytes([number % 256]) * (1000 + number))
    elif body != bytes([number % 256]) * (1000 + number):
        sys.exit(f"range {number} is not what was kept")
    else:
        hits += 1
print(hits)
"""


def range_key(number: int, length: int = 100) -> RangeKey:
    return RangeKey(uri="s3://bucket/cache", path=f"features.zarr/{number}", xxh3="a" * 32, start=0, stop=length)


def kept(cache: ReadCache) -> list[Path]:
    """Return the files of a read cache that hold ranges, those that are being written too."""
    return sorted(path for path in Path(cache.folder).glob("*/*") if path.is_file())


def taken(cache: ReadCache) -> int:
    """Return how many bytes they take."""
    total = 0
    for path in Path(cache.folder).glob("*/*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total


def most_taken(cache: ReadCache) -> int:
    """Return how many bytes the largest set takes that stayed as it was while it was looked at; 0 where none did."""
    sizes = [0]
    for folder in Path(cache.folder).iterdir():
        if folder.is_dir():
            names = sorted(os.listdir(folder))
            with suppress(FileNotFoundError):
                size = sum((folder / name).stat().st_size for name in names)
                sizes.append(size if sorted(os.listdir(folder)) == names else 0)
    return max(sizes)


def write_shards(store: Store, xxh3: str = "a" * 32, entries: np.ndarray = ENTRIES) -> dict[int, ShardRecord]:
    """Write entries as shards of SLOTS into a store in memory, and return their records."""
    records = {}
    for shard, first in enumerate(range(0, ROWS, SLOTS)):
        chunks = [b"".join(encode_chunk(entry, SPEC)) for entry in entries[first : first + SLOTS]]
        starts = np.cumsum([0, *map(len, chunks)]).tolist()
        body = b"".join(chunks) + encode_index(list(zip(starts, map(len, chunks), strict=False)), SLOTS)
        records[shard] = ShardRecord(
            path=f"features.zarr/{SPEC.path}/c/{shard}/0/0/0",
            array=SPEC.path,
            first_row=first,
            rows=len(chunks),
            bytes=len(body),
            xxh3=xxh3,
            chunks=b"".join(chunk[-4:] for chunk in chunks),
            identity="",
        )
        store.filesystem.pipe_file(store.path(records[shard].path), body)
    return records


@pytest.fixture
def store() -> Iterator[Store]:
    """A store that is no folder."""
    remote = Store(uri="memory://read-cache/cache")
    yield remote
    for name in remote.listing(""):
        remote.remove(name)


@pytest.fixture
def cache(store: Store, tmp_path: Path) -> ReadCache:
    return open_read_cache(str(tmp_path / "kept"), ROOM, store)


@pytest.fixture
def array(store: Store, cache: ReadCache) -> ShardedArray:
    """Three shards in a store, with a read cache."""
    return ShardedArray(store=store, spec=SPEC, records=write_shards(store), kept=cache)


def anew(array: ShardedArray, **changes: Any) -> ShardedArray:
    """Return an array as another process opens it, which holds no index yet."""
    return replace(array, **changes)


def lose(array: ShardedArray) -> None:
    """Take the shards away from the store: who reads them from there gets an error."""
    for record in array.records.values():
        array.store.filesystem.rm_file(array.store.path(record.path))


def test_what_was_read_once_is_not_asked_of_the_store_again(array: ShardedArray) -> None:
    np.testing.assert_array_equal(array.read([3, 1, 9, 1]), ENTRIES[[3, 1, 9, 1]])
    lose(array)
    np.testing.assert_array_equal(anew(array).read([1, 9, 3]), ENTRIES[[1, 9, 3]])
    with pytest.raises(MissingError, match="is not there"):
        anew(array).read([2])


def test_nothing_is_kept_without_a_read_cache(array: ShardedArray, cache: ReadCache) -> None:
    anew(array, kept=None).read(range(ROWS))
    assert kept(cache) == []


def test_each_view_and_each_index_is_kept_once_with_its_bytes(array: ShardedArray, cache: ReadCache) -> None:
    for rows in (range(ROWS), range(ROWS), [0, 5]):
        anew(array).read(rows)
    chunk, index = 8 * 8 * 3 + 4, 16 * SLOTS + 4
    sizes = sorted(path.stat().st_size for path in kept(cache))
    assert sizes == sorted([HEAD_BYTES + chunk] * ROWS + [HEAD_BYTES + index] * 3)
    assert [int(path.name.partition("-")[2]) for path in kept(cache)] == [path.stat().st_size for path in kept(cache)]


def damaged(body: bytes, other: bytes, draws: random.Random) -> Iterator[bytes]:
    """Yield what may become of a file."""
    for _ in range(4):
        place = draws.randrange(len(body))
        yield body[:place] + bytes([body[place] ^ 1 << draws.randrange(8)]) + body[place + 1 :]
    yield from (b"", body[:-1], body[: HEAD_BYTES - 1], body + b"\0", other)


def test_a_damaged_entry_is_dropped_and_read_from_the_store(array: ShardedArray, cache: ReadCache) -> None:
    array.read(range(ROWS))
    whole = {path: path.read_bytes() for path in kept(cache)}
    for path, body in whole.items():
        other = next(held for place, held in whole.items() if place != path and len(held) == len(body))
        for bad in damaged(body, other, random.Random(path.name)):
            path.write_bytes(bad)
            np.testing.assert_array_equal(anew(array).read(range(ROWS)), ENTRIES)
            assert path.read_bytes() == body


def test_what_the_store_gives_damaged_is_not_kept(array: ShardedArray) -> None:
    place = array.store.path(array.records[0].path)
    body = array.store.filesystem.cat_file(place)
    array.store.filesystem.pipe_file(place, bytes([body[0] ^ 1]) + body[1:])
    with pytest.raises(CorruptionError, match="row 0: its CRC32C"):
        array.read([0])
    array.store.filesystem.pipe_file(place, body)
    np.testing.assert_array_equal(anew(array).read([0]), ENTRIES[[0]])


def test_an_object_that_was_written_anew_is_another(array: ShardedArray, store: Store) -> None:
    array.read(range(ROWS))
    records = write_shards(store, xxh3="b" * 32, entries=255 - ENTRIES)
    np.testing.assert_array_equal(anew(array, records=records).read(range(ROWS)), 255 - ENTRIES)
    np.testing.assert_array_equal(anew(array).read(range(ROWS)), ENTRIES)


@pytest.mark.parametrize("changed", ["uri", "path", "xxh3", "start", "stop"])
def test_all_that_says_what_a_range_holds_is_part_of_its_name(cache: ReadCache, changed: str) -> None:
    key = range_key(0)
    cache.put(key, bytes(100))
    other = replace(key, **{changed: getattr(key, changed) + (1 if changed in ("start", "stop") else "x")})
    assert cache.get(key) == bytes(100)
    assert cache.get(other) is None


def test_the_longest_not_read_gives_way(cache: ReadCache) -> None:
    small = replace(cache, limit=5 * (100 + HEAD_BYTES))
    for number in range(5):
        before = kept(small)
        small.put(range_key(number), bytes(100))
        [entry] = set(kept(small)) - set(before)
        os.utime(entry, (number, number))
    assert small.get(range_key(0)) is not None
    small.put(range_key(5), bytes(100))
    assert [small.get(range_key(number)) is not None for number in range(6)] == [True, False, True, True, True, True]


def test_a_range_that_has_no_room_at_all_costs_one_warning_and_no_other_range(cache: ReadCache) -> None:
    small = replace(cache, limit=500)
    small.put(range_key(1), bytes(100))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for number in (2, 3):
            small.put(range_key(number, 500), bytes(500))
    [warning] = [str(caught.message) for caught in said]
    assert "a set has room for 500 bytes, and a range takes 532; what it does not keep is read" in warning
    assert [small.get(range_key(number, length)) is None for number, length in ((1, 100), (2, 500))] == [False, True]


def fillers(cache: ReadCache, limit: int, count: int, seeds: range) -> list[subprocess.Popen[str]]:
    """Start processes that read and keep ranges of 1,000 to 1,300 bytes, and wait until they do."""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", FILLER, cache.folder, str(limit), str(seed), str(count)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in seeds
    ]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "filling\n"
    return running


def test_two_processes_under_pressure_keep_to_the_bound_and_read_what_was_kept(cache: ReadCache) -> None:
    limit, most, stranger = 60_000, 0, Path(cache.folder, "0001", "notes.txt")  # in three sets
    stranger.parent.mkdir()
    stranger.write_text("not ours")
    running = fillers(cache, limit, 1200, range(2))
    while any(process.poll() is None for process in running):
        most = max(most, most_taken(cache))
    ended = [process.communicate() for process in running]
    assert [process.returncode for process in running] == [0, 0], ended
    assert all(int(out) > 100 for out, _ in ended), "ranges were read that had been kept"
    assert 0.7 * limit / 3 < most <= limit / 3 + stranger.stat().st_size
    assert 0.7 * limit < taken(cache) - stranger.stat().st_size <= limit
    assert not [path for path in kept(cache) if path.suffix == ".partial"]
    assert stranger.read_text() == "not ours"


def test_a_process_killed_while_it_fills_leaves_what_gives_way_later(cache: ReadCache) -> None:
    limit = 60_000
    for seed in range(4):
        [process] = fillers(cache, limit, 10**9, range(seed, seed + 1))
        time.sleep(0.03 + 0.02 * seed)
        process.kill()
        process.communicate()
        assert taken(cache) <= limit
    partial = Path(cache.folder, "0002", f"{'0' * 64}-9000.{'0' * 32}.partial")  # as one that was killed later leaves
    partial.write_bytes(bytes(500))
    os.utime(partial, (time.time() - ABANDONED - 1,) * 2)
    [process] = fillers(cache, limit, 500, range(99, 100))
    out, said = process.communicate()
    assert (process.returncode, said) == (0, ""), "nobody waits for a lock, and what was kept is whole"
    left = [path for path in kept(cache) if path.suffix == ".partial"]
    assert partial not in left
    assert int(out) > 50
    assert taken(cache) <= limit


def test_what_others_are_writing_counts_and_is_left_alone(cache: ReadCache) -> None:
    small = replace(cache, limit=1000)
    small.put(range_key(1), bytes(100))
    partial = Path(cache.folder, "0000", f"{'0' * 64}-900.{'0' * 32}.partial")
    partial.write_bytes(b"")
    small.put(range_key(2), bytes(100))
    assert [small.get(range_key(number)) is None for number in (1, 2)] == [True, True]
    assert partial.exists()
    partial.unlink()
    small.put(range_key(2), bytes(100))
    assert small.get(range_key(2)) is not None


def test_a_folder_that_cannot_be_written_costs_one_warning_and_no_view(array: ShardedArray, cache: ReadCache) -> None:
    Path(cache.folder, "0000").write_text("in the way of a set's folder")
    with pytest.warns(
        RuntimeWarning, match=r"cannot be written: Not a directory; what it does not keep is read"
    ) as said:
        np.testing.assert_array_equal(array.read(range(ROWS)), ENTRIES)
    assert len(said) == 1
    with warnings.catch_warnings(action="error"):
        np.testing.assert_array_equal(anew(array).read(range(ROWS)), ENTRIES)


def test_a_folder_is_taken_where_it_is_empty_or_was_made_as_one(store: Store, tmp_path: Path) -> None:
    first = open_read_cache(str(tmp_path / "a/b"), ROOM, store)
    assert open_read_cache(str(tmp_path / "a/b"), ROOM, store) == first
    assert sorted(path.name for path in (tmp_path / "a/b").iterdir()) == [MARKER]
    assert first.sets == 1
    assert open_read_cache(str(tmp_path / "c"), 100 * 2**30, store).sets == 400


@pytest.mark.parametrize(
    ("lying", "found"),
    [
        (
            {"photo.png": "x"},
            r"holds photo\.png, and is not a read cache \(name a folder that is empty or does not exist\)",
        ),
        ({MARKER: "{}"}, r"bytes: .*json has nothing, this run has 1000000"),
        ({MARKER: '{"version": 1, "bytes": 999, "sets": 1}'}, r"bytes: .*json has 999, this run has 1000000"),
        ({MARKER: '{"version": 2, "bytes": 1000000, "sets": 1}'}, r"version: .*json has 2, this run has 1"),
        (
            {MARKER: "[1]"},
            r"json: is damaged: it does not describe a read cache \(name another folder, or delete this one while",
        ),
        ({MARKER: "\0"}, r"json: is damaged: it does not describe a read cache"),
    ],
)
def test_a_folder_that_is_not_ours_is_refused_and_left_as_it_is(
    lying: dict[str, str], found: str, store: Store, tmp_path: Path
) -> None:
    for name, text in lying.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(SettingError, match=found):
        open_read_cache(str(tmp_path), ROOM, store)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == lying


def test_a_folder_that_cannot_be_made_is_refused(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingError, match=r"file/kept: cannot be used: Not a directory"):
        open_read_cache(str(tmp_path / "file/kept"), ROOM, store)


def test_a_cache_that_is_a_folder_needs_none_inside_or_outside_of_it(tmp_path: Path) -> None:
    local = Store(uri=str(tmp_path / "cache"))
    for folder in (tmp_path / "cache/kept", tmp_path / "kept"):
        with pytest.raises(
            SettingError, match=r"cache is a folder and needs no read cache \(leave running\.read_cache out\)"
        ):
            open_read_cache(str(folder), ROOM, local)
        assert not folder.exists()
