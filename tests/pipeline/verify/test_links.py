"""Links inside a cache are refused by name, and what lies behind them is never touched; nor are files of others."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.__main__ import main
from pipeline.leases.lease import WHOLE_LEASE, leased
from pipeline.verify.leftovers import find_leftovers
from storage_schemas.cache import Cache
from storage_schemas.format.errors import StorageError
from storage_schemas.format.object_names import is_ours
from storage_schemas.objects.publish import publish_bytes
from storage_schemas.objects.store import Store

NOTES = "tables/notes.txt"
PLACES = 462
"""Places in the small cache that become links: every folder, and the first file in each."""


def opened(where: Path) -> Cache:
    return Cache(store=Store(uri=str(where)))


def tree(folder: Path) -> dict[str, bytes | str]:
    """Every file with its bytes, and every link with what it points to."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(folder))] = os.readlink(path)
        elif path.is_file():
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found


def moved_behind_a_link(cache: Path, place: str, elsewhere: Path) -> Path:
    """Move a file or a folder out of the cache, and leave a link; return where it is, with a file of others beside."""
    elsewhere.mkdir()
    moved = Path(shutil.move(cache / place, elsewhere / "moved"))
    (cache / place).symlink_to(moved)
    if moved.is_dir():
        (moved / "thesis.txt").write_bytes(b"of somebody else")
        (moved / f"0.{'0' * 32}.partial").write_bytes(b"of somebody else")
    return moved


def places(cache: Path) -> Iterator[str]:
    """Every folder of a cache but its own, and the first file in each."""
    for folder, _, files in os.walk(cache):
        inside = Path(folder).relative_to(cache)
        yield from (str(path) for path in (inside, *(inside / name for name in sorted(files)[:1])) if path.parts)


@pytest.mark.parametrize("step", [11, pytest.param(1, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])])
def test_a_link_at_any_place_is_named_and_nothing_behind_it_is_touched(
    copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], step: int
) -> None:
    everywhere = list(places(copied))
    assert len(everywhere) == PLACES
    for number, place in enumerate(everywhere[::step]):
        elsewhere = tmp_path / f"elsewhere-{number}"
        moved = moved_behind_a_link(copied, place, elsewhere)
        before, foreign = tree(copied), tree(elsewhere)
        for command in (["gc", "--delete"], ["verify", "--quick", "--run.executor", "local"]):
            assert main([*command, "--cache", str(copied)]) == 2, (command, place)
            said = capsys.readouterr().err
            assert said.startswith("error: storage failed:\n"), said
            assert f"{copied / place}: is a link to {moved}: a cache holds no links" in said
            assert "delete" not in said
        target = f"{place}/new" if moved.is_dir() else place
        with pytest.raises(StorageError, match="a cache holds no links"):
            publish_bytes(opened(copied).store, target, b"12345")
        with pytest.raises(StorageError, match="a cache holds no links"):
            opened(copied).store.remove(target)
        assert tree(elsewhere) == foreign, place
        assert tree(copied) == before, place
        (copied / place).unlink()
        for name in ("thesis.txt", f"0.{'0' * 32}.partial") if moved.is_dir() else ():
            (moved / name).unlink()
        shutil.move(moved, copied / place)


def test_a_folder_of_leases_that_is_a_link_is_refused_before_anything_in_it_is_cleared(
    copied: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("views.0123.claim", "notes.partial"):
        (elsewhere / name).write_bytes(b"{}")
    (copied / "leases").symlink_to(elsewhere)
    before = tree(elsewhere)
    with pytest.raises(StorageError, match="leases: is a link to"), leased(opened(copied), WHOLE_LEASE, "a test"):
        pytest.fail("the lease was given")
    assert tree(elsewhere) == before


def test_links_that_lead_nowhere_or_round_in_a_circle_are_named_too(copied: Path) -> None:
    (copied / "tables/nowhere").symlink_to("/nonexistent/place")
    (copied / "features.zarr/views/round").symlink_to(copied / "features.zarr")
    for folder, name in (("tables", "nowhere"), ("features.zarr", "round")):
        with pytest.raises(StorageError, match=f"{name}: is a link to"):
            opened(copied).store.listing(folder)


def test_what_is_neither_a_file_nor_a_folder_is_named(copied: Path) -> None:
    os.mkfifo(copied / "tables/pipe")
    with pytest.raises(StorageError, match="tables/pipe: is neither a file nor a folder"):
        find_leftovers(opened(copied))


def test_the_folder_of_a_cache_may_be_a_link(copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "link").symlink_to(copied)
    assert main(["verify", "--quick", "--cache", str(tmp_path / "link"), "--run.executor", "local"]) == 0
    assert main(["gc", "--delete", "--cache", str(tmp_path / "link")]) == 0
    assert "gc: 0 objects, 0 B, deleted" in capsys.readouterr().out


def test_files_of_others_are_listed_and_deleted_only_where_they_are_named(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    strangers = [NOTES, "features.zarr/.zmetadata", "features.zarr/views/low-192/pixels/c/0/0/0/0.bak"]
    ours = f"features.zarr/views/low-192/pixels/c/0/0/0/0.{'a' * 32}.partial"
    for name in (*strangers, ours):
        (copied / name).write_bytes(b"12345")
    assert main(["gc", "--delete", "--cache", str(copied)]) == 0
    said = capsys.readouterr().out
    assert f"{NOTES}: Stillhouse did not write it, and it stays (--foreign {NOTES} deletes it)" in said
    assert "gc: 1 objects, 5 B, deleted" in said
    assert all((copied / name).exists() for name in strangers)
    assert not (copied / ours).exists()
    assert main(["verify", "--quick", "--cache", str(copied), "--run.executor", "local"]) == 0
    assert "leftovers: 3 files, 15 B, that Stillhouse did not write; `make gc` leaves them alone" in (
        capsys.readouterr().out
    )
    assert main(["gc", "--delete", "--cache", str(copied), "--foreign", NOTES]) == 0
    assert [(copied / name).exists() for name in strangers] == [False, True, True]
    capsys.readouterr()
    committed = "features.zarr/views/low-192/pixels/c/0/0/0/0"
    assert main(["gc", "--delete", "--cache", str(copied), "--foreign", committed]) == 2
    assert f"{committed}: is no file of others in this cache" in capsys.readouterr().err
    assert (copied / committed).exists()


def test_every_name_that_the_stages_give_is_known_as_ours(copied: Path) -> None:
    names = opened(copied).store.listing("")
    assert [name for name in names if not is_ours(name)] == []
    assert [name for name in names if is_ours(f"{name}.bak") or is_ours(f"x/{name}")] == []
