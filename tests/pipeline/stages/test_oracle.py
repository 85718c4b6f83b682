"""The oracle, end to end: a teacher that can be checked by eye, seen through every mode, stored and brought back."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from stage_runs import StageRun

from pipeline.cut import Crop, cut_window
from pipeline.images import decode
from storage_schemas.geometry import CanvasGeometry, Offset, TokenAxis, match_axis, match_tokens
from storage_schemas.phi_s import PhiS, to_raw, to_stored

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
STUDENT_OFFSETS = [Offset(row=row, col=col) for row, col in itertools.product((0, 1, 2), repeat=2)]


def geometry_of(view_set: str) -> CanvasGeometry:
    """The canvas of a set."""
    return CanvasGeometry(resolution=int(view_set.split("-")[1]), patch=16, margin=2)


def quarters(pixels: np.ndarray, patch: int) -> np.ndarray:
    """Mean colour of each quarter of each patch: top left, top right, bottom left, bottom right, of [0, 1]."""
    tokens, half = len(pixels) // patch, patch // 2
    blocks = pixels.astype(np.float64).reshape(tokens, 2, half, tokens, 2, half, 3) / 255
    return blocks.mean(axis=(2, 5)).transpose(0, 2, 1, 3, 4).reshape(tokens, tokens, 12)


def window_of(canvas: np.ndarray, offset: Offset, resolution: int) -> np.ndarray:
    """The window at an offset in patches of 16 pixels."""
    return canvas[16 * offset.row :, 16 * offset.col :][:resolution, :resolution]


def resized(pixels: np.ndarray, side: int) -> np.ndarray:
    """Pixels at another side, by Pillow in floating point."""
    channels = [Image.fromarray(channel.astype(np.float32)) for channel in np.moveaxis(pixels, 2, 0)]
    small = [np.asarray(channel.resize((side, side), Image.Resampling.BILINEAR)) for channel in channels]
    return np.stack(small, axis=2)


def offset_in(placement: dict) -> Offset:
    """A placement's offset."""
    return Offset(row=placement["offset_row"], col=placement["offset_col"])


def expected_raw(run: StageRun, teacher: str, view_set: str, placement: dict) -> np.ndarray:
    """What the teacher must have said of a view, from what is stored of the view."""
    spec, views, row = run.spec(teacher), run.arrays[f"views/{view_set}"], placement["row"]
    if spec.size_rule == "fixed":
        return quarters(views[f"detail/{teacher}"][row], spec.patch)
    resolution = geometry_of(view_set).resolution
    window = window_of(views["pixels"][row], offset_in(placement), resolution)
    if spec.size_rule == "canvas" and spec.patch != 16:
        window = resized(window, resolution // 16 * spec.patch)
    return quarters(window, spec.patch)


def phi_s_of(run: StageRun, teacher: str) -> PhiS:
    """The teacher's map, as plain zarr-python reads it."""
    group = run.arrays[f"teachers/{teacher}/phi_s"]
    return PhiS(mean=group["mean"][...], rotation=group["rotation"][...], scale=float(group["scale"][...]))


@pytest.mark.parametrize("view_set", SETS)
@pytest.mark.parametrize("teacher", TEACHERS)
def test_stored_features_brought_back_are_what_the_teacher_says(
    oracle_run: StageRun, teacher: str, view_set: str
) -> None:
    phi_s, placements = phi_s_of(oracle_run, teacher), oracle_run.table("placements", f"{teacher}/{view_set}")
    stored = oracle_run.arrays[f"teachers/{teacher}/{view_set}/spatial"][...]
    assert len(placements) == len(stored) > 9, "one for each view"
    for placement in placements:
        tokens = stored[placement["row"]]
        off = np.linalg.norm(to_raw(phi_s, tokens) - expected_raw(oracle_run, teacher, view_set, placement), axis=-1)
        # a rotation keeps lengths: float16 rounds by 2⁻¹¹ of each value, so a token by 2⁻¹¹ of its length at most
        rounding = phi_s.scale * 2.0**-11 * np.linalg.norm(tokens.astype(np.float64), axis=-1)
        assert (off <= rounding + 1e-5).all()


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
            image = decode((oracle_run.data / view["image"]).read_bytes(), min_side=1, max_pixels=10**6)
            crop = Crop(**{name: view[name] for name in Crop.__slots__})
            native = oracle_run.spec(teacher).native
            cut = cut_window(image, crop, geometry_of(view_set), offset_in(placement), native)
            np.testing.assert_array_equal(details[view["row"]], cut)


def spatial_losses(
    run: StageRun, teacher: str, view_set: str, distort: Callable[[dict, int], tuple[Offset, int]]
) -> np.ndarray:
    """Spatial loss (PHI-S units) of the same function as a student, for every view and every offset of the student.

    Args:
        run: the run.
        teacher: whose features.
        view_set: of which set.
        distort: placement, number of rows → the offset and the row that the features are taken for.
    """
    phi_s, geometry = phi_s_of(run, teacher), geometry_of(view_set)
    stored, pixels = run.arrays[f"teachers/{teacher}/{view_set}/spatial"][...], run.arrays[f"views/{view_set}/pixels"]
    losses = []
    for placement in run.table("placements", f"{teacher}/{view_set}"):
        canvas = pixels[placement["row"]]
        seen_at, row = distort(placement, len(stored))
        for offset in STUDENT_OFFSETS:
            student = to_stored(phi_s, quarters(window_of(canvas, offset, geometry.resolution), 16))
            rows, cols = (
                match_axis(
                    TokenAxis(start=mine, span=geometry.span, tokens=geometry.span),
                    TokenAxis(start=its, span=geometry.span, tokens=stored.shape[1]),
                )
                for mine, its in ((offset.row, seen_at.row), (offset.col, seen_at.col))
            )
            mapped, beside, common = match_tokens(student, stored[row], rows, cols)
            assert common.any()
            losses.append(np.square(mapped - beside)[common].mean())
    return np.array(losses)


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
