"""The oracle, end to end: a teacher that can be checked by eye, seen through every mode, stored and brought back."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from quarter_oracle import differs_by_more_than_rounding, expected_raw, geometry_of, offset_in, spatial_losses
from stage_runs import StageRun, own, run_stages, write_colours

from pipeline.config import Recipe, ViewsConfig
from pipeline.images.decoding import open_picture
from pipeline.views.crop import Crop, cut_window
from storage_schemas.format.geometry import Offset

SETS = ("low-128", "low-192", "high-256")
TEACHERS = ("quarter-mean", "quarter-mean-fixed", "quarter-mean-canvas", "canvas-16", "fixed-14")
# where a token of the teacher is a patch of the student: of 16 px as well, or of 14
AGREEING = [
    *((teacher, view_set) for teacher in ("quarter-mean", "canvas-16", "quarter-mean-canvas") for view_set in SETS),
    ("quarter-mean-fixed", "low-192"),
    ("fixed-14", "low-192"),
]
# 12 tokens beside 8, and beside 16
DIFFERING = [
    (teacher, view_set) for teacher in ("quarter-mean-fixed", "fixed-14") for view_set in ("low-128", "high-256")
]
PER_MOSAIC = {"low-128": 9, "low-192": 4, "high-256": 1}
ROWS = {"low-128": 17, "low-192": 21, "high-256": 12}


@pytest.mark.parametrize("view_set", SETS)
@pytest.mark.parametrize("teacher", TEACHERS)
def test_stored_features_brought_back_are_what_the_teacher_says(
    oracle_run: StageRun, teacher: str, view_set: str
) -> None:
    assert len(oracle_run.table("placements", f"{teacher}/{view_set}")) == ROWS[view_set]
    assert differs_by_more_than_rounding(oracle_run, teacher, view_set) == 0


@pytest.mark.parametrize("teacher", ["quarter-mean", "quarter-mean-fixed"])
def test_summaries_are_stored_raw(oracle_run: StageRun, teacher: str) -> None:
    for view_set in SETS:
        summaries = oracle_run.arrays[f"teachers/{teacher}/{view_set}/summary"]
        for placement in oracle_run.table("placements", f"{teacher}/{view_set}"):
            said = expected_raw(oracle_run, teacher, view_set, placement).mean(axis=(0, 1))
            np.testing.assert_allclose(summaries[placement["row"]], said, atol=1e-6)


@pytest.mark.parametrize("teacher", ["quarter-mean-fixed", "fixed-14"])
def test_details_are_cut_from_the_images_where_the_placements_say(oracle_run: StageRun, teacher: str) -> None:
    for view_set in SETS:
        views = {view["row"]: view for view in oracle_run.table("views", view_set)}
        details = oracle_run.arrays[f"views/{view_set}/detail/{teacher}"]
        for placement in oracle_run.table("placements", f"{teacher}/{view_set}"):
            view = views[placement["row"]]
            picture = open_picture((oracle_run.data / view["image"]).read_bytes(), oracle_run.recipe.views)
            crop = Crop(**{name: view[name] for name in Crop.__slots__})
            native = oracle_run.spec(teacher).native
            cut = cut_window(picture, crop, geometry_of(view_set), offset_in(placement), native).pixels()
            np.testing.assert_array_equal(details[view["row"]], cut)


def as_recorded(placement: dict, _: int) -> tuple[Offset, int]:
    """The truth."""
    return offset_in(placement), placement["row"]


@pytest.mark.parametrize(("teacher", "view_set"), AGREEING)
def test_a_student_that_is_its_teacher_has_no_loss_at_any_offset(
    oracle_run: StageRun, teacher: str, view_set: str
) -> None:
    assert spatial_losses(oracle_run, teacher, view_set, as_recorded).max() < 1e-4


def one_token_down(placement: dict, _: int) -> tuple[Offset, int]:
    """A planted error: the teacher is thought to have seen the view one patch lower."""
    offset = offset_in(placement)
    return Offset(row=offset.row + 1, col=offset.col), placement["row"]


def one_token_right(placement: dict, _: int) -> tuple[Offset, int]:
    """A planted error: the teacher is thought to have seen the view one patch to the right."""
    offset = offset_in(placement)
    return Offset(row=offset.row, col=offset.col + 1), placement["row"]


@pytest.mark.parametrize("wrong", [one_token_down, one_token_right])
@pytest.mark.parametrize(("teacher", "view_set"), AGREEING)
def test_an_offset_that_is_one_token_wrong_is_seen(
    oracle_run: StageRun, teacher: str, view_set: str, wrong: Callable[[dict, int], tuple[Offset, int]]
) -> None:
    assert spatial_losses(oracle_run, teacher, view_set, wrong).min() > 1e-3


@pytest.mark.parametrize(("teacher", "view_set"), DIFFERING)
def test_where_grids_differ_the_loss_is_small_beside_that_of_a_token_shifted(
    oracle_run: StageRun, teacher: str, view_set: str
) -> None:
    # the mean of two upper left quarters is not the upper left quarter of both: some loss is in the nature of it
    loss = spatial_losses(oracle_run, teacher, view_set, as_recorded).mean()
    assert loss < 0.06
    assert spatial_losses(oracle_run, teacher, view_set, one_token_down).mean() > 10 * loss


def cell_beside(placement: dict, rows: int) -> tuple[Offset, int]:
    """A planted error: the features are those of the next cell that is filled in the same mosaic."""
    first, size = placement["mosaic"], PER_MOSAIC["low-128"]
    members = range(first, min(first + size, rows))
    return offset_in(placement), members[(placement["row"] - first + 1) % len(members)]


def test_a_swapped_cell_is_seen(oracle_run: StageRun) -> None:
    assert spatial_losses(oracle_run, "canvas-16", "low-128", cell_beside).min() > 1e-3


@pytest.mark.parametrize("teacher", ["quarter-mean-canvas", "canvas-16"])
@pytest.mark.parametrize("view_set", SETS)
def test_mosaics_are_filled_in_order_each_cell_once(oracle_run: StageRun, teacher: str, view_set: str) -> None:
    capacity = PER_MOSAIC[view_set]
    for part in oracle_run.parts("placements", f"{teacher}/{view_set}"):
        rows, mosaics, cells = (part[name].to_pylist() for name in ("row", "mosaic", "cell"))
        assert mosaics == [rows[0] + (row - rows[0]) // capacity * capacity for row in rows]
        taken = list(zip(mosaics, cells, strict=True))
        assert len(set(taken)) == len(taken)
        assert set(cells) <= set(range(capacity))


def test_cells_are_drawn_and_not_counted(oracle_run: StageRun) -> None:
    cells = [row["cell"] for row in oracle_run.table("placements", "canvas-16/low-128")]
    assert cells[:9] != list(range(9))
    assert cells[:9] != cells[9:18]


def test_each_teacher_has_its_own_offset_in_each_view(oracle_run: StageRun) -> None:
    offsets = {
        teacher: [
            offset_in(row) for view_set in SETS for row in oracle_run.table("placements", f"{teacher}/{view_set}")
        ]
        for teacher in TEACHERS
    }
    for one, other in itertools.combinations(TEACHERS, 2):
        alike = sum(mine == its for mine, its in zip(offsets[one], offsets[other], strict=True))
        assert alike < 15, "of 50 views, a ninth by chance"
    assert {(offset.row, offset.col) for offset in offsets["quarter-mean"]} == set(
        itertools.product(range(3), repeat=2)
    )


def test_a_mosaic_serves_many_views_with_one_forward(oracle_run: StageRun) -> None:
    [said] = [line for line in oracle_run.said if line.startswith("extract canvas-16: 50 views in")]
    forwards = 0
    for view_set in SETS:
        for part in oracle_run.parts("placements", f"canvas-16/{view_set}"):
            forwards += -(-part.num_rows // PER_MOSAIC[view_set])
    assert said.startswith(f"extract canvas-16: 50 views in {forwards} forwards, ")


def test_a_direct_teacher_of_another_patch_sees_the_window_at_its_own_grid(tmp_path: Path) -> None:
    recipe = Recipe(
        name="fourteen",
        views=ViewsConfig(low=(224,), high=(), heldout=0.2, canvas_tokens=0, tokens_per_shard=1000),
        teachers=(own("odd_teachers:DirectFourteen"),),
    )
    run = run_stages(recipe, write_colours(tmp_path / "images", 8), tmp_path / "cache")
    assert run.arrays["teachers/direct-14/low-224/spatial"].shape == (8, 16, 16, 12)
    assert differs_by_more_than_rounding(run, "direct-14", "low-224") == 0
    loss = spatial_losses(run, "direct-14", "low-224", as_recorded).mean()
    assert loss < 0.06, "16 tokens beside 14"
    assert spatial_losses(run, "direct-14", "low-224", one_token_down).mean() > 10 * loss
