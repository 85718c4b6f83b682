"""A dropped teacher goes whole, whenever the run is killed; nothing else changes, and it can be computed again."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import final

import pytest

from pipeline.__main__ import main
from pipeline.features.extraction import plan_extraction
from pipeline.features.stage import extract_teacher
from pipeline.inspect.cache import inspect_cache
from pipeline.leases.lease import leased, teacher_lease
from pipeline.stats.stage import measure_teachers
from pipeline.text_table import sized
from pipeline.verify.drop import drop_teacher
from pipeline.verify.leftovers import delete, find_leftovers
from pipeline.verify.options import DropOptions, VerifyOptions
from pipeline.verify.stage import verify_cache
from storage_schemas.cache import Cache
from storage_schemas.format.errors import BusyError, MissingError, SettingError, StorageError
from storage_schemas.objects.store import Store
from tests.pipeline.conftest import LOCAL, SmallRun
from trainer.data.source import open_source

FIXED = "quarter-mean-fixed"


def opened(where: Path) -> Cache:
    return Cache(store=Store(uri=str(where)))


def contents(where: Path) -> dict[str, bytes]:
    """Every object by name; claims on leases are not part of a cache."""
    files = (path for path in where.rglob("*") if path.is_file())
    bodies = {path.relative_to(where).as_posix(): path.read_bytes() for path in files}
    return {name: body for name, body in bodies.items() if not name.startswith("leases/")}


def drop(where: Path, *sets: str, details: bool = False) -> list[str]:
    said: list[str] = []
    options = DropOptions(cache=str(where), teacher=FIXED, sets=sets, details=details, delete=True)
    drop_teacher(opened(where), options, said.append)
    return said


def compute_again(small_run: SmallRun, where: Path) -> None:
    cache = opened(where)
    extract_teacher(plan_extraction(cache, small_run.recipe, small_run.recipe.teacher(FIXED)), LOCAL, str)
    measure_teachers(cache, [FIXED], LOCAL, str)


def of_teacher(name: str) -> bool:
    folders = ("features.zarr/teachers", "tables/shards/teachers", "tables/placements")
    return name.startswith(tuple(f"{folder}/{FIXED}/" for folder in folders))


def test_a_teacher_goes_whole_with_nothing_else_and_comes_back_with_the_same_bytes(
    small_run: SmallRun, copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(copied)
    command = ["drop", "--cache", str(copied), "--teacher", "teachers.quarter_mean:QuarterMeanFixed"]
    assert main(command) == 0
    listed = capsys.readouterr().out.splitlines()
    gone = {name: body for name, body in before.items() if of_teacher(name)}
    size = f"{len(gone)} objects, {sized(sum(map(len, gone.values())))}"
    way_back = f"`make extract RECIPE=demo CACHE={copied} TEACHER=<module:Class of {FIXED}>` brings it back"
    assert listed[-1] == f"drop {FIXED}: {size}, can be deleted; nothing is deleted without --delete; {way_back}"
    assert listed[0].startswith(f"  features.zarr/teachers/{FIXED}/stats: ")
    assert contents(copied) == before
    assert main([*command, "--delete"]) == 0
    assert capsys.readouterr().out.splitlines() == [*listed[:-1], f"drop {FIXED}: {size}, deleted; {way_back}"]
    assert contents(copied) == {name: body for name, body in before.items() if name not in gone}
    verdict = verify_cache(opened(copied), VerifyOptions())
    assert (verdict.problems, verdict.unfinished, verdict.leftovers) == ((), (), {})
    compute_again(small_run, copied)
    assert contents(copied) == before


def test_a_view_set_goes_alone_and_its_teacher_is_unfinished(small_run: SmallRun, copied: Path) -> None:
    before = contents(copied)
    drop(copied, "low-192")
    kept = contents(copied)
    gone = before.keys() - kept.keys()
    sets = tuple(f"{folder}/{FIXED}/low-192/" for folder in ("tables/shards/teachers", "tables/placements"))
    arrays = tuple(f"features.zarr/teachers/{FIXED}/low-192/{array}/c/" for array in ("spatial", "summary"))
    assert all(name.startswith((*sets, *arrays, f"features.zarr/teachers/{FIXED}/stats/")) for name in gone)
    assert kept == {name: body for name, body in before.items() if name not in gone}
    verdict = verify_cache(opened(copied), VerifyOptions())
    [facts] = verdict.unfinished
    assert (verdict.problems, verdict.leftovers, facts.unit) == ((), {}, f"teachers/{FIXED}/low-192")
    assert (facts.done, facts.of > 0) == (0, True)
    assert facts.unit in str(inspect_cache(opened(copied)))
    compute_again(small_run, copied)
    assert contents(copied) == before


@final
class Killed(BaseException):
    """Ends a run at once, as a signal does."""


def dies_after(monkeypatch: pytest.MonkeyPatch, objects: int) -> None:
    """End every run that has deleted so many objects of the cache."""
    remove, left = Store.remove, iter(range(objects))

    def dying(store: Store, name: str) -> None:
        if not name.startswith("leases/") and next(left, None) is None:
            raise Killed
        remove(store, name)

    monkeypatch.setattr(Store, "remove", dying)


def killed_drops(where: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> Iterator[int]:
    """Drop the teacher in runs that are killed after `step` objects each; yield after each of them."""
    for run in range(1000):
        with monkeypatch.context() as patch:
            dies_after(patch, step)
            try:
                drop(where)
            except Killed:
                yield run
            else:
                return


@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_a_drop_that_is_killed_leaves_no_teacher_that_counts_as_whole_and_goes_on(
    small_run: SmallRun, copied: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, step: int
) -> None:
    before, runs = contents(copied), 0
    for run in killed_drops(copied, monkeypatch, step):
        cache, runs = opened(copied), run
        verdict = verify_cache(cache, VerifyOptions(quick=True))
        assert verdict.problems == ()
        assert any(facts.unit.startswith(f"teachers/{FIXED}/") for facts in verdict.unfinished) or verdict.leftovers
        with pytest.raises(MissingError):
            open_source(cache, [FIXED])
        if run in (1, 6):  # before it is gone, the teacher can be completed again instead
            again = Path(shutil.copytree(copied, tmp_path / f"again-{run}"))
            compute_again(small_run, again)
            delete(opened(again), find_leftovers(opened(again)))
            assert contents(again) == before
    assert runs > 8
    assert contents(copied) == {name: body for name, body in before.items() if not of_teacher(name)}
    with pytest.raises(MissingError) as refusal:
        drop(copied)
    assert str(refusal.value) == (
        f"TEACHER is missing:\n  {FIXED}: has no features in this cache (choose from: dinov3, quarter-mean-canvas)"
    )


def test_the_last_teacher_leaves_the_cache_as_it_was_before_the_first(copied: Path) -> None:
    before = contents(copied)
    for teacher in ("dinov3", FIXED, "quarter-mean-canvas"):
        drop_teacher(opened(copied), DropOptions(cache=str(copied), teacher=teacher, delete=True), str)
    of_views = ("features.zarr/views/", "tables/views/", "tables/images/", "tables/rejected/", "tables/shards/views/")
    kept = {name: body for name, body in before.items() if name.startswith((*of_views, "features.zarr/zarr.json"))}
    assert contents(copied) == kept
    assert verify_cache(opened(copied), VerifyOptions(quick=True)).leftovers == {}


def test_details_go_where_they_are_asked_for(copied: Path) -> None:
    before = contents(copied)
    drop(copied, details=True)
    gone = before.keys() - contents(copied).keys()
    details = {name for name in before if f"/detail/{FIXED}/" in name}
    assert details
    assert gone == details | {name for name in before if of_teacher(name)}
    assert verify_cache(opened(copied), VerifyOptions(quick=True)).problems == ()


def test_what_a_run_learns_from_is_named_once_it_is_gone(copied: Path) -> None:
    cache = opened(copied)
    identity = open_source(cache).identity
    views = cache.open_views("low-192", teachers=[FIXED])
    drop(copied)
    with pytest.raises(MissingError, match=rf"teacher is missing:\n  {FIXED}: the cache has features of dinov3, "):
        open_source(cache, begun=identity)
    with pytest.raises(MissingError, match=rf"tables/shards/teachers/{FIXED}/low-192/00000\.parquet: is not there"):
        views.read(0)


def test_a_teacher_is_dropped_by_one_run_and_by_a_name_of_the_cache(copied: Path) -> None:
    before = contents(copied)
    with leased(opened(copied), teacher_lease("dinov3"), "extract dinov3"), pytest.raises(BusyError, match="dinov3"):
        drop(copied)
    for teacher in ("../views", "teachers", "*", "quarter"):
        with pytest.raises(MissingError, match="has no features in this cache"):
            drop_teacher(opened(copied), DropOptions(cache=str(copied), teacher=teacher, delete=True), str)
    for view_set in ("stats", "phi_s", "low-128", ".."):
        with pytest.raises(SettingError, match=f"is no view set with features of {FIXED} .choose from: high-256, low"):
            drop(copied, view_set)
    assert contents(copied) == before


def test_files_of_others_stay_and_a_link_is_refused(copied: Path, tmp_path: Path) -> None:
    notes = f"tables/placements/{FIXED}/low-192/notes.txt"
    (copied / notes).write_text("mine")
    outside = tmp_path / "outside"
    outside.write_text("of somebody else")
    link = copied / f"features.zarr/teachers/{FIXED}/low-192/spatial/c/link"
    link.symlink_to(outside)
    before = contents(copied)
    with pytest.raises(StorageError, match="is a link to"):
        drop(copied)
    assert contents(copied) == before
    link.unlink()
    assert f"  {notes}: Stillhouse did not write it, and it stays" in drop(copied)
    assert (copied / notes).read_text() == "mine"
