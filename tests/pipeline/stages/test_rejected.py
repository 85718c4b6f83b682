"""Images that cannot be cut, in the middle of a set: the views after them move up, and every later stage goes on."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from quarter_oracle import differs_by_more_than_rounding
from stage_runs import LOCAL, StageRun, own, run_stages, write_colours

from pipeline.config import Recipe, ViewsConfig
from pipeline.images.listing import list_images
from pipeline.views.order import DrawnView
from pipeline.views.sampling import draw_views
from storage_schemas.commits import ShardRecord, read_commits
from storage_schemas.format.errors import MissingError
from storage_schemas.format.layout import ShardGrid, features_unit, spatial_array, views_unit
from storage_schemas.format.views import ViewSet
from storage_schemas.rejected import rejected_count

SET = ViewSet(partition="low", resolution=128)
RECIPE = Recipe(
    name="holes",
    views=ViewsConfig(low=(128,), high=(), draws=1, heldout=0.2, tokens_per_shard=600, canvas_tokens=24),
    teachers=(own("teachers.quarter_mean:QuarterMeanFixed"), own("odd_teachers:CanvasSixteen", batch=1)),
)
GRID = ShardGrid(counts=(40,), rows_per_shard=9)
NO_VIEW = 2
"""A shard of which every image is bad."""


def is_bad(position: int) -> bool:
    """Whether the image of the view drawn for a row slot is bad: every fourth, and all of one shard."""
    return position % 4 == 1 or position in GRID.slots(NO_VIEW)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> list[DrawnView]:
    """The views of 40 images, in order; the bad ones are no images."""
    data = write_colours(tmp_path_factory.mktemp("holes") / "images", 40)
    [views] = draw_views(list_images(str(data)), RECIPE.views).values()
    for position, view in enumerate(views):
        if is_bad(position):
            (data / view.image.key).write_bytes(b"" if position % 2 else b"no image")
    return views


@pytest.fixture(scope="module")
def holes(drawn: list[DrawnView], tmp_path_factory: pytest.TempPathFactory) -> StageRun:
    """All stages over them."""
    data = Path(drawn[0].image.uri.removeprefix("file://")).parent
    run = replace(LOCAL, max_rejected=0.5, report=str(data.parent / "run.json"))
    return run_stages(RECIPE, data, tmp_path_factory.mktemp("cache"), run)


def kept(drawn: list[DrawnView], shard: int) -> list[str]:
    """Keys of a shard's good images, in order."""
    return [drawn[position].image.key for position in GRID.slots(shard) if not is_bad(position)]


def spatial_records(holes: StageRun, teacher: str) -> dict[int, ShardRecord]:
    """Commit records of spatial features."""
    commits = read_commits(holes.cache.store, features_unit(SET, teacher))
    return {shard: record for shard, parts in commits.items() for record in parts if record.array.endswith("spatial")}


def test_the_views_of_a_shard_fill_its_first_rows(holes: StageRun, drawn: list[DrawnView]) -> None:
    parts = holes.parts("views", "low-128")
    assert len(parts) == GRID.shards == 5
    for shard, part in enumerate(parts):
        first = GRID.slots(shard).start
        assert part["image"].to_pylist() == kept(drawn, shard)
        assert part["row"].to_pylist() == list(range(first, first + len(kept(drawn, shard))))


def test_commit_records_count_the_rejected_views(holes: StageRun) -> None:
    commits = read_commits(holes.cache.store, views_unit(SET))
    assert rejected_count([commits]) == len(holes.table("rejected", "low-128")) == sum(map(is_bad, range(40)))
    assert rejected_count([commits, commits]) == 2 * rejected_count([commits])
    assert rejected_count([]) == 0


def test_every_rejected_view_is_recorded_with_its_reason(holes: StageRun, drawn: list[DrawnView]) -> None:
    found = {(row["image"], row["reason"]) for row in holes.table("rejected", "low-128")}
    assert found == {
        (view.image.key, "empty" if position % 2 else "not an image")
        for position, view in enumerate(drawn)
        if is_bad(position)
    }


@pytest.mark.parametrize("teacher", ["quarter-mean-fixed", "canvas-16"])
def test_features_are_those_of_the_views_that_are_there(holes: StageRun, drawn: list[DrawnView], teacher: str) -> None:
    counts = [len(kept(drawn, shard)) for shard in range(5)]
    assert [record.rows for _, record in sorted(spatial_records(holes, teacher).items())] == counts
    assert counts[NO_VIEW] == 0
    assert differs_by_more_than_rounding(holes, teacher, "low-128") == 0


def test_mosaics_close_up_over_the_holes(holes: StageRun, drawn: list[DrawnView]) -> None:
    for shard, part in enumerate(holes.parts("placements", "canvas-16/low-128")):
        count = len(kept(drawn, shard))
        assert part["mosaic"].to_pylist() == [9 * shard] * count, "all of a shard share its one mosaic"
        assert len(set(part["cell"].to_pylist())) == count


def test_rows_without_a_view_are_refused_by_our_reader_and_nan_to_others(holes: StageRun) -> None:
    records = spatial_records(holes, "canvas-16")
    empty = records[0].first_row + records[0].rows
    assert np.isnan(holes.arrays[spatial_array(SET, "canvas-16")][empty]).all()
    commits = read_commits(holes.cache.store, features_unit(SET, "canvas-16"))
    with pytest.raises(MissingError, match="no view fills this row slot"):
        holes.cache.array(spatial_array(SET, "canvas-16"), commits).read([empty])


@pytest.mark.parametrize("teacher", ["quarter-mean-fixed", "canvas-16"])
def test_stats_count_the_views_that_are_there(holes: StageRun, teacher: str) -> None:
    rows = [row for record in spatial_records(holes, teacher).values() for row in rows_of(record)]
    stored = holes.arrays[spatial_array(SET, teacher)][...][rows].astype(np.float64).reshape(-1, 12)
    stats = holes.cache.stats(teacher)
    assert stats is not None
    assert (stats.views, stats.pooled.tokens) == (len(rows), len(stored))
    np.testing.assert_allclose(stats.pooled.mean, stored.mean(axis=0), rtol=1e-9, atol=1e-12)


def rows_of(record: ShardRecord) -> range:
    """Rows that hold a view."""
    return range(record.first_row, record.first_row + record.rows)


def test_the_report_calls_every_stage_done_and_counts_the_views_that_are_there(
    holes: StageRun, drawn: list[DrawnView]
) -> None:
    assert holes.data is not None
    stages = json.loads((holes.data.parent / "run.json").read_text())["stages"]
    assert len(stages) == 5
    bad = sum(map(is_bad, range(40)))
    for stage, figures in stages.items():
        total = 40 - bad if stage.startswith("stats") else len(drawn)
        assert (figures["state"], figures["views_done"], figures["views_total"]) == ("done", total, total), stage
        assert (figures["views"], figures["seconds_left"]) == (40 - bad, 0), stage


def test_a_finished_run_over_holes_is_finished(holes: StageRun) -> None:
    again = run_stages(RECIPE, holes.data, holes.where, replace(LOCAL, max_rejected=0.5))
    assert sum("complete, nothing to do" in line for line in again.said) == 5
    assert sum("views are rejected" in line for line in again.said) == len(again.said) - 5 == 2
    assert len(read_commits(holes.cache.store, views_unit(SET))) == 5
