"""What can go: leftovers of killed runs, and details that every teacher has seen. What is named never does."""

import shutil
from pathlib import Path

import pytest
from stage_runs import LOCAL, StageRun, contents

from pipeline.__main__ import main
from pipeline.features.extraction import plan_extraction
from pipeline.features.stage import extract_teacher
from pipeline.inventory.teacher_maps import teacher_spec
from pipeline.inventory.unfinished import unfinished_teachers
from pipeline.leases.lease import leased
from pipeline.verify.leftovers import Leftover, delete, find_leftovers, spent_details
from pipeline.verify.options import VerifyOptions
from pipeline.verify.stage import verify_cache
from pipeline.views.stage import make_views
from storage_schemas.cache import Cache
from storage_schemas.format.errors import CorruptionError, IdentityError, StorageError
from storage_schemas.objects.store import Store

PARTIAL = f"features.zarr/teachers/dinov3/low-128/spatial/c/0/0/0/0.{'0' * 32}.partial"
OLD = f"tables/images/00000.parquet.{'1' * 32}.partial"


@pytest.fixture
def copied(tiny_run: StageRun, tmp_path: Path) -> Path:
    """A cache of one's own to spoil."""
    return Path(shutil.copytree(tiny_run.where, tmp_path / "cache"))


def opened(where: Path) -> Cache:
    """The cache in a folder."""
    return Cache(store=Store(uri=str(where)))


def names(leftovers: list[Leftover]) -> list[str]:
    """Their names."""
    return [one.name for one in leftovers]


def test_a_finished_cache_has_nothing_that_can_go(tiny_run: StageRun) -> None:
    assert find_leftovers(tiny_run.cache) == []


def test_what_killed_runs_leave_and_what_is_not_ours_can_go_and_nothing_else(copied: Path) -> None:
    before = contents(copied)
    for name in (PARTIAL, OLD):
        (copied / name).write_bytes(b"12345")
    # a shard that was published before its record: the next run writes the same bytes again
    record = copied / "tables/shards/teachers/sam3/low-192/00000.parquet"
    record.unlink()
    found = find_leftovers(opened(copied))
    orphans = ["features.zarr/teachers/sam3/low-192/spatial/c/0/0/0/0", "tables/placements/sam3/low-192/00000.parquet"]
    assert names(found) == sorted([PARTIAL, OLD, *orphans])
    assert found[0] == Leftover(name=PARTIAL, bytes=5)
    delete(opened(copied), found)
    lost = {*orphans, record.relative_to(copied).as_posix()}
    assert contents(copied) == {name: one for name, one in before.items() if name not in lost}


def test_the_views_of_committed_features_are_kept_though_their_own_record_is_lost(
    tiny_run: StageRun, copied: Path
) -> None:
    before = contents(copied)
    (copied / "tables/shards/views/low-192/00000.parquet").unlink()
    assert find_leftovers(opened(copied)) == []
    make_views(opened(copied), tiny_run.recipe, [], str(tiny_run.data), LOCAL, str)
    assert contents(copied) == before


def test_nothing_can_go_from_a_cache_that_is_damaged(copied: Path) -> None:
    (copied / "tables/shards/views/low-128/00000.parquet").write_bytes(b"damaged")
    with pytest.raises(CorruptionError, match=r"views/low-128/00000\.parquet"):
        find_leftovers(opened(copied))


def test_an_object_that_grew_since_it_was_found_is_left_alone(copied: Path) -> None:
    (copied / OLD).write_bytes(b"12345")
    found = find_leftovers(opened(copied))
    (copied / OLD).write_bytes(b"123456")
    with pytest.raises(IdentityError, match=r"tables/images/00000.parquet.1+.partial: is being written"):
        delete(opened(copied), found)
    assert (copied / OLD).exists()


def test_details_can_go_once_every_map_of_their_teacher_is_complete(tiny_run: StageRun, copied: Path) -> None:
    cache, choices = opened(copied), tiny_run.recipe.teachers
    views = cache.views_manifest()
    assert views is not None
    (copied / "tables/shards/teachers/siglip2-block0/low-192/00000.parquet").unlink()
    assert spent_details(cache, views, choices) == []
    assert [spec.name for spec in unfinished_teachers(cache, views, choices)] == ["siglip2"]
    extract_teacher(plan_extraction(cache, tiny_run.recipe, tiny_run.recipe.teacher("siglip2")), LOCAL, str)
    spent = spent_details(cache, views, choices)
    assert all("/detail/siglip2" in name for name in names(spent))
    delete(cache, [*spent, *find_leftovers(cache)])
    assert not list(copied.glob("features.zarr/views/*/detail/siglip2/**/*.*"))
    verdict = verify_cache(cache, VerifyOptions(cache=str(copied)))
    assert (verdict.problems, verdict.unfinished) == ((), ())


def test_where_details_are_gone_nothing_asks_for_them_until_a_teacher_needs_them(
    tiny_run: StageRun, copied: Path
) -> None:
    cache, choice = opened(copied), tiny_run.recipe.teacher("siglip2")
    views = cache.views_manifest()
    assert views is not None
    before = contents(copied)
    delete(cache, spent_details(cache, views, [choice]))
    said: list[str] = []
    make_views(cache, tiny_run.recipe, unfinished_teachers(cache, views, [choice]), "", LOCAL, said.append)
    extract_teacher(plan_extraction(cache, tiny_run.recipe, choice), LOCAL, said.append)
    assert said[0].startswith("views: complete, nothing to do")
    assert "complete, nothing to do" in said[-1]
    # a lost shard of features needs its details again, and the images give the same bytes
    (copied / "tables/shards/teachers/siglip2/low-192/00000.parquet").unlink()
    make_views(cache, tiny_run.recipe, [teacher_spec(choice)], str(tiny_run.data), LOCAL, said.append)
    extract_teacher(plan_extraction(cache, tiny_run.recipe, choice), LOCAL, said.append)
    assert contents(copied) == before


def test_the_command_deletes_nothing_unless_told(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copied / OLD).write_bytes(b"12345")
    before = contents(copied)
    assert main(["gc", "--cache", str(copied)]) == 0
    said = capsys.readouterr().out
    assert said == f"  {OLD}\ngc: 1 objects, 5 B, can be deleted; nothing is deleted without --delete\n"
    assert contents(copied) == before
    assert main(["gc", "--cache", str(copied), "--delete"]) == 0
    assert capsys.readouterr().out.endswith("gc: 1 objects, 5 B, deleted\n")
    assert contents(copied) == {name: one for name, one in before.items() if name != OLD}


def test_nothing_is_deleted_once_the_claim_of_the_run_is_gone(copied: Path) -> None:
    (copied / OLD).write_bytes(b"12345")
    with leased(opened(copied), "cache", "gc") as lease:
        found = find_leftovers(lease.cache)
        [claim] = (copied / "leases").glob("*.claim")
        claim.unlink()
        with pytest.raises(StorageError, match="another run may have begun"):
            delete(lease.cache, found)
    assert (copied / OLD).exists()
