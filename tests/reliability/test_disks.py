"""Small runs on disks that are full, read-only or broken: one message, nothing half committed, and then resumed."""

import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from disturbed_runs import Runner, contents, require_one_message, require_whole_commits

from storage_schemas.objects.store import Store
from storage_schemas.read_cache import RangeKey, open_read_cache


def check_resumed(runner: Runner, cache: Path, expected: dict) -> None:
    """Check that nothing was half committed, and that the same run again completes to the same bytes."""
    store = Store(uri=str(cache))
    assert not list(cache.rglob("*.partial"))
    require_whole_commits(store)
    again = runner.run("extract", str(cache))
    assert again.status == 0, again.said
    assert contents(store) == expected


@pytest.mark.parametrize("largest", [1000, 100_000])
def test_a_file_that_may_not_grow_ends_a_run_in_one_message(
    runner: Runner,
    tmp_path: Path,
    largest: int,
    expected: dict,
) -> None:
    ended = runner.run("extract", str(tmp_path / "cache"), largest_file=largest)
    require_one_message(ended)
    assert "cannot be written: File too large (run the same command again" in ended.said
    check_resumed(runner, tmp_path / "cache", expected)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", place], check=False)
    if mounted.returncode:
        pytest.skip("this user may not mount a file system; a limit on files is tried in its place")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_ends_a_run_in_one_message(runner: Runner, small_disk: Path, expected: dict) -> None:
    ended = runner.run("extract", str(small_disk / "cache"))
    require_one_message(ended)
    assert "cannot be written: No space left on device (run the same command again" in ended.said
    assert not list(small_disk.rglob("*.partial"))
    subprocess.run(["mount", "-o", "remount,size=40m", small_disk], check=True)
    check_resumed(runner, small_disk / "cache", expected)


def test_a_full_disk_below_a_read_cache_costs_one_warning_and_no_view(small_disk: Path) -> None:
    cache = open_read_cache(str(small_disk / "kept"), 10**7, Store(uri="memory://far/cache"))
    keys = [RangeKey(uri="memory://far/cache", path=f"x/{n}", xxh3="", start=0, stop=50_000) for n in range(12)]
    bodies = [bytes([number]) * 50_000 for number in range(12)]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for key, body in zip(keys, bodies, strict=True):
            cache.put(key, body)
    [warning] = [str(warned.message) for warned in said]
    assert warning.endswith(
        "cannot be written: No space left on device; what it does not keep is read from the store again"
    )
    found = [cache.get(key) for key in keys]
    assert [one for one in found if one is not None] == bodies[:7], "390 kB hold seven"
    assert not list(small_disk.rglob("*.partial"))


@pytest.mark.parametrize("folder", ["", "features.zarr/teachers", "tables/shards"])
def test_a_folder_that_may_not_be_written_ends_a_run_in_one_message(
    runner: Runner,
    tmp_path: Path,
    folder: str,
    expected: dict,
) -> None:
    place = tmp_path / "cache" / folder
    place.mkdir(parents=True)
    place.chmod(0o555)
    ended = runner.run("extract", str(tmp_path / "cache"), obeys_permissions=True)
    place.chmod(0o755)
    require_one_message(ended)
    assert "cannot be written: Permission denied (run the same command again" in ended.said
    check_resumed(runner, tmp_path / "cache", expected)


@pytest.mark.parametrize(
    "number", [pytest.param(number, marks=() if number in (1, 40) else pytest.mark.slow) for number in range(1, 140, 3)]
)
def test_a_disk_that_fails_ends_a_run_in_one_message(
    runner: Runner,
    tmp_path: Path,
    number: int,
    expected: dict,
) -> None:
    ended = runner.run("extract", str(tmp_path / "cache"), failing_flush=number)
    require_one_message(ended)
    assert "cannot be written: Input/output error (run the same command again" in ended.said
    check_resumed(runner, tmp_path / "cache", expected)
