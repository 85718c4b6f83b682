"""A cache that is extended gains rows, and keeps every byte that it had."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import numpy as np
import pytest
from extensions import BASE, IMAGES, VIEW, copied, cut, drawn_by, grow, grown, may_change, views_of
from quarter_oracle import differs_by_more_than_rounding, geometry_of, offset_in
from stage_runs import StageRun, contents, own, write_colours

from pipeline.config import Recipe
from pipeline.images.decoding import open_picture
from pipeline.verify.options import VerifyOptions
from pipeline.verify.stage import verify_cache
from pipeline.views.crop import Crop, cut_canvas, cut_window

TEACHERS = ("quarter-mean", "quarter-mean-fixed", "canvas-16")


@final
@dataclass(frozen=True, kw_only=True)
class Step:
    """One extension."""

    recipe: Recipe
    images: int


IMAGES_MORE = Step(recipe=BASE, images=32)
DRAWS = Step(recipe=grown(draws=2), images=IMAGES)
RESOLUTION = Step(recipe=grown(low=(128, 192)), images=IMAGES)
HIGH = Step(recipe=grown(high=(256,)), images=IMAGES)
ALL = Step(recipe=grown(low=(192, 128), high=(256,), draws=2), images=26)
MORE = Step(recipe=grown(low=(192, 128), high=(256,), draws=3), images=30)
COURSES = {
    "images": [IMAGES_MORE],
    "draws": [DRAWS],
    "a resolution": [RESOLUTION],
    "a high partition": [HIGH],
    "twice": [ALL, MORE],
    "a resolution, then images": [RESOLUTION, Step(recipe=RESOLUTION.recipe, images=30)],
}


@final
@dataclass(frozen=True, kw_only=True)
class Grown:
    """A cache that was extended."""

    run: StageRun
    steps: list[Step]
    before: dict[str, str]
    """What was in it before the last extension."""
    fresh: StageRun
    """Views that were cut by the last recipe in one go."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> StageRun:
    """The small cache."""
    root = tmp_path_factory.mktemp("made")
    return grow(BASE, write_colours(root / "images", IMAGES), root / "cache")


@pytest.fixture(scope="module", params=list(COURSES))
def course(request: pytest.FixtureRequest, made: StageRun, tmp_path_factory: pytest.TempPathFactory) -> Grown:
    """The small cache, extended."""
    steps, root = COURSES[request.param], tmp_path_factory.mktemp("course")
    where, run, before = copied(made.where, root / "cache"), made, {}
    for number, step in enumerate(steps):
        before = contents(where)
        run = grow(step.recipe, write_colours(root / f"images-{number}", step.images), where)
    cut(run.recipe, run.data, root / "fresh", extend=False)
    fresh = StageRun(recipe=run.recipe, data=run.data, where=root / "fresh", said=())
    return Grown(run=run, steps=[Step(recipe=BASE, images=IMAGES), *steps], before=before, fresh=fresh)


def test_every_byte_that_was_there_is_there(course: Grown) -> None:
    after = contents(course.run.where)
    changed = {name for name, held in course.before.items() if after.get(name) != held}
    assert "features.zarr/views/zarr.json" in changed
    assert {name for name in changed if not may_change(name)} == set()
    assert len(course.before) - len(changed) > 40
    shards = [name for name in after if "/c/" in name]
    assert len(shards) > len([name for name in course.before if "/c/" in name])


def test_it_holds_all_that_its_recipes_draw_and_nothing_twice(course: Grown) -> None:
    expected = set()
    for step in course.steps:
        expected |= drawn_by([f"{number:03d}.png" for number in range(step.images)], step.recipe.views)
    assert views_of(course.run).keys() == expected


def test_a_view_that_was_added_is_the_view_that_a_new_cache_would_hold(course: Grown) -> None:
    views, fresh = views_of(course.run), views_of(course.fresh)
    assert fresh.keys() <= views.keys()
    for key, row in fresh.items():
        assert {name: views[key][name] for name in VIEW} == {name: row[name] for name in VIEW}
        canvases = [run.arrays[f"views/{key[2]}/pixels"] for run in (course.run, course.fresh)]
        assert np.array_equal(canvases[0][views[key]["row"]], canvases[1][row["row"]])


def test_details_and_canvases_are_cut_from_the_images(course: Grown) -> None:
    run = course.run
    for view_set in run.sets:
        pixels, details = run.arrays[f"views/{view_set}/pixels"], run.arrays[f"views/{view_set}/detail"]
        placed = {row["row"]: offset_in(row) for row in run.table("placements", f"quarter-mean-fixed/{view_set}")}
        for view in run.table("views", view_set):
            picture = open_picture((run.data / view["image"]).read_bytes(), run.recipe.views)
            crop, geometry = Crop(**{name: view[name] for name in Crop.__slots__}), geometry_of(view_set)
            assert np.array_equal(pixels[view["row"]], cut_canvas(picture, crop, geometry.side).pixels())
            side = run.spec("quarter-mean-fixed").native
            window = cut_window(picture, crop, geometry, placed[view["row"]], side).pixels()
            assert np.array_equal(details["quarter-mean-fixed"][view["row"]], window)


@pytest.mark.parametrize("teacher", TEACHERS)
def test_every_view_has_the_features_that_its_teacher_gives(course: Grown, teacher: str) -> None:
    for view_set in course.run.sets:
        rows = [row["row"] for row in course.run.table("views", view_set)]
        assert [row["row"] for row in course.run.table("placements", f"{teacher}/{view_set}")] == rows
        assert differs_by_more_than_rounding(course.run, teacher, view_set) == 0


def test_nothing_is_wrong_with_it_nor_unfinished_but_statistics(course: Grown) -> None:
    verdict = verify_cache(course.run.cache, VerifyOptions())
    assert verdict.problems == ()
    assert {one.unit for one in verdict.unfinished} == {f"teachers/{teacher}/stats" for teacher in TEACHERS}
    assert verdict.leftovers == {}


def test_taken_up_again_it_is_complete(course: Grown) -> None:
    before = contents(course.run.where)
    again = grow(course.run.recipe, course.run.data, course.run.where)
    assert [line.split(" (")[0] for line in again.said] == [
        "views: complete, nothing to do",
        *(f"extract {teacher}: complete, nothing to do" for teacher in TEACHERS),
    ]
    assert contents(course.run.where) == before


def test_a_resolution_that_is_added_takes_its_share_and_the_rows_that_were_there_stay(
    made: StageRun, tmp_path: Path
) -> None:
    run = grow(RESOLUTION.recipe, made.data, copied(made.where, tmp_path / "cache"))
    before, after = views_of(made), views_of(run)
    moved = {key for key in after if key[2] == "low-192"}
    assert before.keys() == {key for key in after if key[2] == "low-128"}
    assert 3 < len(moved) < IMAGES - 3
    for image, draw, _ in moved:  # the same crop, at another resolution
        one, other = before[image, draw, "low-128"], after[image, draw, "low-192"]
        assert [one[name] for name in VIEW] == [other[name] for name in VIEW]


def test_a_teacher_that_joins_later_sees_every_generation(made: StageRun, tmp_path: Path) -> None:
    data = write_colours(tmp_path / "images", ALL.images)
    run = grow(ALL.recipe, data, copied(made.where, tmp_path / "cache"))
    before = contents(run.where)
    joined = grow(replace(ALL.recipe, teachers=(own("odd_teachers:FixedFourteen"),)), data, run.where)
    for view_set in joined.sets:
        rows = [row["row"] for row in joined.table("views", view_set)]
        assert [row["row"] for row in joined.table("placements", f"fixed-14/{view_set}")] == rows
        assert differs_by_more_than_rounding(joined, "fixed-14", view_set) == 0
    assert before.items() <= contents(run.where).items()
