"""What the trainer makes of a cache that was extended: every row of it, and no run that began before."""

from dataclasses import replace
from pathlib import Path

import pytest
from extensions import BASE, grow, grown
from stage_runs import LOCAL, StageRun, write_colours

from pipeline.config import Recipe
from pipeline.stats.stage import measure_teachers
from pipeline.verify.options import VerifyOptions
from pipeline.verify.stage import verify_cache
from storage_schemas.format.errors import IdentityError, MissingError
from trainer.data.dataset import BatchRequest, CachedBatches
from trainer.data.source import Source, open_source
from trainer.run_folder import RunFolder, require_run, write_json

SMALL = replace(BASE, teachers=BASE.teachers[:1])
LARGE = grown(SMALL, low=(128, 192), draws=2)


def measured(run: StageRun) -> Source:
    """Measure what is stored, and open it."""
    measure_teachers(run.cache, run.cache.teachers(), LOCAL, lambda _: None)
    return open_source(run.cache)


def rows_of(run: StageRun) -> dict[str, dict[str, list[int]]]:
    """Row slots by set and split, from the tables."""
    tables = {name: run.table("views", name) for name in run.sets}
    return {
        name: {split: [row["row"] for row in table if row["split"] == split] for split in ("train", "heldout")}
        for name, table in tables.items()
    }


def extended(recipe: Recipe, root: Path, images: int) -> StageRun:
    """The cache of a folder, extended."""
    return grow(recipe, write_colours(root / f"{images} images", images), root / "cache")


def test_a_run_sees_every_row_and_none_goes_on_that_began_before(tmp_path: Path) -> None:
    before = measured(extended(SMALL, tmp_path, 20))
    folder = RunFolder(path=tmp_path / "run")
    write_json(folder.identity, {"cache": before.identity})
    require_run(folder, {"cache": open_source(before.cache).identity})
    run = extended(LARGE, tmp_path, 26)
    verdict = verify_cache(run.cache, VerifyOptions())
    assert verdict.problems == ()
    assert [one.unit for one in verdict.unfinished] == ["teachers/quarter-mean/stats"]
    with pytest.raises(MissingError, match="shards were added after the last `make stats`"):
        open_source(run.cache)
    after = measured(run)
    rows = {
        view_set.name: {split: found.tolist() for split, found in one.rows.items()}
        for view_set, one in after.sets.items()
    }
    assert rows == rows_of(run)
    splits = {row["image"]: row["split"] for name in run.sets for row in run.table("views", name)}
    assert all(row["split"] == splits[row["image"]] for name in run.sets for row in run.table("views", name))
    batches = CachedBatches(source=after)
    for view_set, one in after.sets.items():
        for split in ("train", "heldout"):
            keys = tuple((0, split, row) for row in one.rows[split].tolist())
            [batch] = batches[
                (BatchRequest(view_set=view_set, split=split, rows=one.rows[split][:], window_keys=keys),)
            ]
            assert len(batch.targets["quarter-mean"].spatial) == len(rows[view_set.name][split])
    with pytest.raises(IdentityError) as refusal:
        require_run(folder, {"cache": after.identity})
    lines = str(refusal.value).split("\n  ")
    old, new = (one.identity["rows"]["low-128"] for one in (before, after))
    assert old["heldout"] + old["train"] == 20
    for split in ("heldout", "train"):
        said = f"cache.rows.low-128.{split}: the run there has {old[split]}, this run has {new[split]}"
        assert said in lines
    verdict = verify_cache(run.cache, VerifyOptions())
    assert (verdict.problems, verdict.unfinished, verdict.leftovers) == ((), (), {})
