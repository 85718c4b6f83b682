"""Maps of intermediate blocks: teachers of their own in the cache, from forwards of the one that they are part of."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from stage_runs import LOCAL, StageRun, contents

from pipeline.config import Recipe
from pipeline.features.extraction import plan_extraction
from pipeline.features.stage import extract_teacher
from pipeline.verify.options import VerifyOptions
from pipeline.verify.stage import verify_cache
from storage_schemas.cache import Cache
from storage_schemas.format.errors import SettingError
from storage_schemas.objects.store import Store

TEACHERS = ("dinov3", "siglip2", "sam3")


def without_teachers(run: StageRun, where: Path) -> Cache:
    """A copy of a cache that holds views alone."""
    shutil.copytree(run.where, where)
    for folder in ("features.zarr/teachers", "tables/shards/teachers", "tables/placements"):
        shutil.rmtree(where / folder)
    return Cache(store=Store(uri=str(where)))


def extract(cache: Cache, recipe: Recipe, teacher: str, layers: tuple[int, ...]) -> list[str]:
    """Run one teacher, and return what was said."""
    said: list[str] = []
    choice = replace(recipe.teacher(teacher), layers=layers)
    extract_teacher(plan_extraction(cache, recipe, choice), LOCAL, said.append)
    return said


def stored(folder: Path) -> dict[str, str]:
    """What is in every file below a cache, statistics apart."""
    return {name: digest for name, digest in contents(folder).items() if "/stats/" not in name}


@pytest.mark.parametrize("teacher", TEACHERS)
def test_a_block_was_seen_where_the_whole_was(tiny_run: StageRun, teacher: str) -> None:
    for view_set in tiny_run.sets:
        whole, block = (tiny_run.table("placements", f"{name}/{view_set}") for name in (teacher, f"{teacher}-block0"))
        assert len(whole) > 9
        assert block == whole


@pytest.mark.parametrize("teacher", TEACHERS)
def test_a_block_that_is_asked_for_later_gives_the_same_bytes_and_touches_nothing(
    tiny_run: StageRun, tmp_path: Path, teacher: str
) -> None:
    cache = without_teachers(tiny_run, tmp_path / "cache")
    extract(cache, tiny_run.recipe, teacher, layers=())
    alone = stored(tmp_path / "cache")
    said = extract(cache, tiny_run.recipe, teacher, layers=(0,))
    both = stored(tmp_path / "cache")
    assert {name: both[name] for name in alone} == alone
    assert not any(line.startswith(f"extract {teacher}: PHI-S fitted") for line in said)
    mine = {name: digest for name, digest in stored(tiny_run.where).items() if f"/{teacher}" in name}
    assert {name: digest for name, digest in both.items() if f"/{teacher}" in name} == mine


def test_a_shard_that_one_map_lacks_is_done_again_for_that_map_alone(tiny_run: StageRun, tmp_path: Path) -> None:
    where = tmp_path / "cache"
    shutil.copytree(tiny_run.where, where)
    lost = [
        "tables/shards/teachers/sam3-block0/low-128/00001.parquet",
        "features.zarr/teachers/sam3-block0/low-128/spatial/c/1/0/0/0",
        "tables/placements/sam3-block0/low-128/00001.parquet",
    ]
    for name in lost:
        (where / name).unlink()
    times = {path: path.stat().st_mtime_ns for path in where.rglob("*") if path.is_file()}
    said = extract(Cache(store=Store(uri=str(where))), tiny_run.recipe, "sam3", layers=(0,))
    assert stored(where) == stored(tiny_run.where)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    rows = len(tiny_run.parts("views", "low-128")[1])
    assert f"extract sam3: {rows} of 60 views to do in 1 shards" in said


def test_a_second_run_has_nothing_to_do(tiny_run: StageRun, tmp_path: Path) -> None:
    shutil.copytree(tiny_run.where, tmp_path / "cache")
    said = extract(Cache(store=Store(uri=str(tmp_path / "cache"))), tiny_run.recipe, "dinov3", layers=(0,))
    assert said[1].startswith("extract dinov3: complete, nothing to do (60 views, ")
    assert contents(tmp_path / "cache") == contents(tiny_run.where)


def test_verify_runs_blocks_again_by_the_teacher_that_they_are_of(tiny_run: StageRun) -> None:
    verdict = verify_cache(tiny_run.cache, VerifyOptions(cache=str(tiny_run.where), recompute=5))
    assert verdict.problems == ()
    assert verdict.unfinished == ()
    names = sorted(f"{name}{block}" for name in TEACHERS for block in ("", "-block0"))
    assert sorted(one.teacher for one in verdict.recomputed) == names
    assert all(one.views == 5 and one.largest_error <= one.tolerance for one in verdict.recomputed)


def test_a_block_that_the_model_has_not_is_refused_before_anything_is_written(
    tiny_run: StageRun, tmp_path: Path
) -> None:
    cache = without_teachers(tiny_run, tmp_path / "cache")
    before = contents(tmp_path / "cache")
    with pytest.raises(SettingError) as refusal:
        extract(cache, tiny_run.recipe, "dinov3", layers=(0, 9))
    assert str(refusal.value) == ("teacher 'dinov3' cannot be used:\n  layers: there is no block 9 (blocks are 0 to 1)")
    assert contents(tmp_path / "cache") == before
