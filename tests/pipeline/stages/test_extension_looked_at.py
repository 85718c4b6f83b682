"""What plan, inspect and preview say of a cache that was extended."""

import json
from pathlib import Path

import pytest
from extensions import BASE, copied, grow, grown
from stage_runs import StageRun, write_colours

from pipeline.__main__ import main
from pipeline.inspect.cache import inspect_cache
from pipeline.inspect.preview import Drawing, sheet_rows
from pipeline.inspect.text import cache_lines
from pipeline.inspect.view import view_facts
from pipeline.inventory.units import total_bytes
from pipeline.plan.forecast import grown_views
from pipeline.plan.plan import plan_run
from storage_schemas.format.errors import MissingError

LARGE = grown(BASE, low=(128, 192), draws=2)


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> StageRun:
    """Ten images."""
    root = tmp_path_factory.mktemp("before")
    return grow(BASE, write_colours(root / "images", 10), root / "cache")


@pytest.fixture(scope="module")
def after(before: StageRun, tmp_path_factory: pytest.TempPathFactory) -> StageRun:
    """The same and four more, drawn twice, at two resolutions."""
    root = tmp_path_factory.mktemp("after")
    return grow(LARGE, write_colours(root / "images", 14), copied(before.where, root / "cache"))


def test_inspect_counts_views_and_not_row_slots(after: StageRun) -> None:
    facts = inspect_cache(after.cache)
    assert (facts.images, facts.generations) == (14, 2)
    assert next(iter(cache_lines(facts))).endswith("14 images in 2 generations")
    for one in facts.view_sets:
        assert one.drawn == one.cut == len(after.table("views", one.name))
        assert one.shards == one.committed == len(after.parts("views", one.name))
    for teacher in facts.teachers:
        assert {one.view_set: one.views for one in teacher.sets} == {one.name: one.cut for one in facts.view_sets}
    assert {one.unit for one in facts.unfinished} == {f"teachers/{one.name}/stats" for one in facts.teachers}


def test_a_view_that_was_added_is_shown_by_its_row(after: StageRun) -> None:
    for view_set in after.sets:
        last = after.table("views", view_set)[-1]
        facts = view_facts(after.cache, f"{view_set}/{last['row']}")
        assert facts.view == last
        assert sorted(facts.placements) == ["canvas-16", "quarter-mean", "quarter-mean-fixed"]


def test_a_slot_between_two_generations_is_named_as_one(after: StageRun) -> None:
    rows = [row["row"] for row in after.table("views", "low-128")]
    between = next(row for row in range(rows[-1]) if row not in rows)
    found = "this row slot has no view: views that an extension added start in the next shard"
    with pytest.raises(MissingError, match=found):
        view_facts(after.cache, f"low-128/{between}")


def test_preview_shows_every_set(after: StageRun) -> None:
    drawing = Drawing(seed=LARGE.views.seed, shifts=LARGE.views.teacher_shifts, specs=(after.spec("quarter-mean"),))
    rows = sheet_rows(after.cache, drawing, 2)
    assert [row[0].label.split()[0] for row in rows] == ["low-128", "low-192"]


def test_a_plan_of_an_extension_is_what_comes_of_it(before: StageRun, after: StageRun) -> None:
    manifest, made = before.cache.views_manifest(), after.cache.views_manifest()
    assert manifest is not None
    assert made is not None
    planned = plan_run(LARGE, grown_views(before.cache, manifest, LARGE, str(after.data)))
    assert planned.views.images == 14
    assert {unit.view_set: unit.shape for unit in planned.canvases} == dict(made.sets)
    shards = (after.where / "features.zarr").rglob("c/**/*")
    assert total_bytes(planned.units) == sum(
        path.stat().st_size for path in shards if path.is_file() and "phi_s" not in path.parts
    )
    for view_set in made.sets:
        trained = [
            [row["split"] for row in part.to_pylist()].count("train") for part in after.parts("views", view_set.name)
        ]
        assert [planned.views.training_views(view_set, shard) for shard in range(len(trained))] == trained


def test_the_commands_take_the_word(
    before: StageRun, after: StageRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--recipe", "demo", "--cache", str(tmp_path / "demo")]
    images = ["--data", str(before.data), "--views.draws", "1", "--run.executor", "local"]
    more = ["--data", str(after.data), "--views.draws", "2"]
    assert main(["views", *small, *images]) == 0
    assert main(["plan", *small, *more]) == 2
    assert "`make views ARGS=--extend`" in capsys.readouterr().err
    assert main(["plan", *small, *more, "--extend"]) == 0
    assert main(["views", *small, *more, "--run.executor", "local", "--extend"]) == 0
    capsys.readouterr()
    assert main(["inspect", "--cache", str(tmp_path / "demo"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["images"], facts["generations"], sum(one["cut"] for one in facts["view_sets"])) == (14, 2, 28)
