"""The oracle at every resolution of C-RADIOv4, in every mode, at every pair of windows; and what a mosaic costs."""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from oracle_sets import (
    OracleSet,
    Placed,
    Seen,
    as_recorded,
    cell_beside,
    cut_one_token_off,
    cut_where_it_lies,
    losses,
    mirrored,
    mirrored_within_tokens,
    one_token_down,
    one_token_right,
    oracle_set,
)
from oracle_teachers import AbstractQuarters
from PIL import Image
from quarter_oracle import offset_in
from stage_runs import LOCAL, StageRun, own, run_stages, write_colours

from pipeline.config import CalibrationConfig, Recipe, TeacherChoice, ViewsConfig
from pipeline.features.extraction import plan_extraction
from pipeline.features.stage import extract_teacher
from pipeline.recipes.demo_images import copy_photographs
from pipeline.views.placements import offset_key
from pipeline.views.sampling import draw_set
from storage_schemas.format.geometry import CanvasGeometry
from storage_schemas.format.views import draw_offset
from teachers.own import own_class

LOW, HIGH = (128, 192, 224, 256, 384, 432), (512, 768, 1024, 1152)
SETS = [f"low-{side}" for side in LOW] + [f"high-{side}" for side in HIGH]
PER_SIDE = dict(zip(SETS, (9, 6, 5, 4, 3, 2, 2, 1, 1, 1), strict=True))
"""k of a canvas of 72 tokens."""
MODES = [
    *((teacher, view_set) for teacher in ("direct", "canvas") for view_set in SETS),
    ("fixed", "low-384"),
    ("tiled", "high-1152"),
]
"""Where a teacher's token is a student's, in grid and in scale."""
NOTHING, TENFOLD = 1e-4, 1e-3
"""Loss of what is right (PHI-S units), and least loss of an error of one token."""

modes = pytest.mark.parametrize(("teacher", "view_set"), MODES)


def write_noise(folder: Path, names: list[str]) -> Path:
    """Write images with seeded colours that differ from one patch to the next at every resolution."""
    folder.mkdir()
    for number, name in enumerate(names):
        coarse = np.random.default_rng(number).integers(0, 256, (48, 48, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((288, 288), Image.Resampling.BICUBIC)
        image.save(folder / name, compress_level=1)
    return folder


def names_that_meet_every_offset(config: ViewsConfig, modes: Sequence[tuple[str, str]]) -> list[str]:
    """Choose names of images, of which all that is drawn follows, so that each mode has a view at every offset."""
    every = set(itertools.product(range(config.margin + 1), repeat=2))
    lacking, chosen = {mode: set(every) for mode in modes}, []
    for name in (f"{number}.png" for number in itertools.count()):
        view_set = draw_set(name, 0, config)
        geometry = CanvasGeometry(resolution=view_set.resolution, patch=config.patch, margin=config.margin)
        meets = {
            mode: draw_offset(geometry, config.teacher_shifts, offset_key(config.seed, name, 0, mode[0]))
            for mode, offsets in lacking.items()
            if mode[1] == view_set.name and offsets
        }
        if meets and all((at.row, at.col) in lacking[mode] for mode, at in meets.items()):
            chosen.append(name)
            for mode, at in meets.items():
                lacking[mode].remove((at.row, at.col))
        if not any(lacking.values()):
            break
    return chosen


def run_at_every_offset(modes: Sequence[tuple[str, str]], teachers: Sequence[TeacherChoice], root: Path) -> StageRun:
    """Cut nine views of every set that some modes name, at nine different offsets of every teacher."""
    sides = {int(view_set.partition("-")[2]) for _, view_set in modes}
    views = ViewsConfig(
        seed=3,
        low=tuple(side for side in LOW if side in sides),
        high=tuple(side for side in HIGH if side in sides),
        high_share=0.4,
        heldout=0.1,
    )
    recipe = Recipe(name="resolutions", views=views, teachers=tuple(teachers), calibration=CalibrationConfig(views=20))
    images = write_noise(root / "images", names_that_meet_every_offset(views, modes))
    return run_stages(recipe, images, root / "cache")


@pytest.fixture(scope="session")
def resolutions_run(tmp_path_factory: pytest.TempPathFactory) -> StageRun:
    """Every set, by the teachers whose grid is the student's at every resolution."""
    teachers = [own(f"oracle_teachers:{name}", batch=4) for name in ("Direct", "Canvas")]
    return run_at_every_offset(MODES[:-2], teachers, tmp_path_factory.mktemp("resolutions"))


@pytest.fixture(scope="session")
def mode_runs(resolutions_run: StageRun, tmp_path_factory: pytest.TempPathFactory) -> dict[str, StageRun]:
    """By teacher; with the two sets at which a fixed teacher's grid is the student's."""
    fixed = "oracle_teachers:Fixed"
    teachers = [own(fixed, batch=4), own(fixed, name="tiled", tiles=3, batch=4)]
    native = run_at_every_offset(MODES[-2:], teachers, tmp_path_factory.mktemp("native"))
    return {"direct": resolutions_run, "canvas": resolutions_run, "fixed": native, "tiled": native}


@modes
def test_a_student_that_is_its_teacher_has_no_loss_at_any_pair_of_windows(
    mode_runs: dict[str, StageRun], teacher: str, view_set: str
) -> None:
    oracle = oracle_set(mode_runs[teacher], teacher, view_set)
    assert len(oracle.placements) == 9
    assert {offset_in(placed) for placed in oracle.placements} == set(oracle.offsets)
    found = losses(oracle, as_recorded)
    assert found.shape == (9, 9)
    assert found.max() < NOTHING


@pytest.mark.parametrize("wrong", [one_token_down, one_token_right, mirrored, mirrored_within_tokens])
@modes
def test_an_error_of_one_token_or_a_flip_is_seen(
    mode_runs: dict[str, StageRun], teacher: str, view_set: str, wrong: Callable[[OracleSet, Placed], Seen]
) -> None:
    oracle = oracle_set(mode_runs[teacher], teacher, view_set)
    assert losses(oracle, wrong, views=2).min() > TENFOLD


@pytest.mark.parametrize("view_set", [name for name in SETS if PER_SIDE[name] > 1])
def test_a_swapped_cell_is_seen(resolutions_run: StageRun, view_set: str) -> None:
    oracle = oracle_set(resolutions_run, "canvas", view_set)
    assert losses(oracle, cell_beside, views=2).min() > TENFOLD


@pytest.mark.parametrize("view_set", SETS[:-1])
def test_a_window_cut_one_token_off_its_corner_is_seen(resolutions_run: StageRun, view_set: str) -> None:
    oracle = oracle_set(resolutions_run, "canvas", view_set)
    assert losses(oracle, cut_where_it_lies, views=1).max() < NOTHING
    assert losses(oracle, cut_one_token_off, views=1).min() > TENFOLD


PER_SPAN = {8: 9, 12: 6, 14: 5, 16: 4, 24: 3, 27: 2, 32: 2, 48: 1}
"""Side of a window (patches) → k of a canvas of 72 tokens: all that the resolutions have, but for two more of 1."""
SOURCES = {2: "Small", 16: ""}
"""Patch of teachers and student (pixels) → what the teachers' classes are called by."""


def named(run: StageRun, span: int) -> str:
    """The set of the windows of so many patches."""
    side = span * run.recipe.views.patch
    return f"low-{side}" if side in run.recipe.views.low else f"high-{side}"


@pytest.fixture(scope="session", params=[2, pytest.param(16, marks=pytest.mark.slow)], ids="patch-{}".format)
def full_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> StageRun:
    """More views in every set than a mosaic holds, in several shards; windows by a rounded normal."""
    root, patch = tmp_path_factory.mktemp("full"), request.param
    recipe = Recipe(
        name="full",
        views=ViewsConfig(
            seed=5,
            patch=patch,
            low=tuple(span * patch for span in PER_SPAN if span < 48),
            low_proportions=(100, 50, 32, 24, 16, 8, 8),
            high=(48 * patch,),
            high_share=0.03,
            draws=9,
            shifts="rounded-normal",
            shift_sd=0.8,
            tokens_per_shard=5184,
        ),
        teachers=tuple(
            own(f"oracle_teachers:{SOURCES[patch]}{name}", batch=3) for name in ("Direct", "Canvas", "Fixed")
        ),
        calibration=CalibrationConfig(views=20),
    )
    return run_stages(recipe, write_noise(root / "images", [f"{number}.png" for number in range(40)]), root / "cache")


def teacher_of(run: StageRun, rule: str) -> str:
    """The name of the run's teacher of a size rule."""
    return next(choice.name for choice in run.recipe.teachers if choice.name.endswith(rule))


@pytest.mark.parametrize(("span", "per_side"), PER_SPAN.items())
def test_every_cell_of_a_full_mosaic_gives_back_the_view_that_lies_in_it(
    full_run: StageRun, span: int, per_side: int
) -> None:
    oracle = oracle_set(full_run, teacher_of(full_run, "canvas"), named(full_run, span))
    assert {placed["cell"] for placed in oracle.placements} == set(range(per_side**2))
    assert losses(oracle, as_recorded).max() < NOTHING


def shown_of(run: StageRun, teacher: str, view_set: str) -> int:
    """Extract one set once more, PHI-S being frozen, and count the inputs that the teacher is shown."""
    records = list((run.where / "tables/shards/teachers" / teacher / view_set).rglob("*.*"))
    assert records
    for record in records:
        record.unlink()
    choice = run.recipe.teacher(teacher)
    kind = own_class(choice.source)
    assert issubclass(kind, AbstractQuarters)
    kind.shown = 0
    extract_teacher(plan_extraction(run.cache, run.recipe, choice), LOCAL, str)
    return kind.shown


@pytest.mark.parametrize(("span", "per_side"), PER_SPAN.items())
def test_a_mosaic_costs_one_forward_where_the_padded_way_costs_one_for_each_view(
    full_run: StageRun, span: int, per_side: int
) -> None:
    view_set = named(full_run, span)
    views = len(full_run.table("views", view_set))
    assert views > per_side**2
    assert shown_of(full_run, teacher_of(full_run, "canvas"), view_set) == -(-views // per_side**2)
    assert shown_of(full_run, teacher_of(full_run, "direct"), view_set) == views


def test_windows_lie_as_the_recipe_says_and_details_are_cut_where_they_lie(full_run: StageRun) -> None:
    teacher = teacher_of(full_run, "fixed")
    placed = [row for span in PER_SPAN for row in full_run.table("placements", f"{teacher}/{named(full_run, span)}")]
    starts = [row[axis] for row in placed for axis in ("offset_row", "offset_col")]
    # a normal draw of deviation 0.8 is within half a patch of its mean in 0.468 of all cases
    np.testing.assert_allclose(np.bincount(starts) / len(starts), (0.266, 0.468, 0.266), atol=0.06)
    oracle = oracle_set(full_run, teacher, named(full_run, 24))
    assert losses(oracle, as_recorded).max() < NOTHING
    assert losses(oracle, one_token_down).min() > TENFOLD


def run_of(sources: tuple[str, ...], resolution: int, images: Path, where: Path) -> StageRun:
    """Show each image once, at one resolution."""
    recipe = Recipe(
        name="unequal",
        views=ViewsConfig(seed=1, low=(resolution,), high=(), heldout=0.1),
        teachers=tuple(own(f"oracle_teachers:{name}", batch=4) for name in sources),
        calibration=CalibrationConfig(views=20),
    )
    return run_stages(recipe, images, where)


@pytest.fixture(scope="session")
def photographs_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, StageRun]:
    """The photographs that ship inside scikit-image, seen by teachers whose grids or scales are not the student's."""
    root = tmp_path_factory.mktemp("photographs")
    copy_photographs(str(root / "images"))
    sources = {224: ("DirectFourteen", "CanvasFourteen"), 432: ("Fixed", "FixedFourteen", "CanvasFourteen")}
    return {
        f"low-{side}": run_of(names, side, root / "images", root / f"cache-{side}") for side, names in sources.items()
    }


@pytest.mark.parametrize(
    ("teacher", "view_set"), [("canvas-14", "low-224"), ("canvas-14", "low-432"), ("fixed-14", "low-432")]
)
def test_on_photographs_a_patch_of_14_pixels_beside_one_of_16_loses_nothing_where_grids_agree(
    photographs_runs: dict[str, StageRun], teacher: str, view_set: str
) -> None:
    oracle = oracle_set(photographs_runs[view_set], teacher, view_set)
    assert losses(oracle, as_recorded).max() < NOTHING
    for wrong in (one_token_down, one_token_right):
        assert losses(oracle, wrong, views=5).min() > TENFOLD


@pytest.mark.parametrize(
    ("teacher", "view_set", "bound"),
    [
        ("direct-14", "low-224", 0.06),  # 16 tokens beside 14
        ("fixed", "low-432", 0.06),  # 24 beside 27
    ],
)
def test_on_photographs_unequal_grids_lose_little_and_every_view_less_than_by_an_error_of_one_patch(
    photographs_runs: dict[str, StageRun], teacher: str, view_set: str, bound: float
) -> None:
    # quarters of a coarser token are no means of the finer ones' quarters: edges within a token are lost, by nature
    oracle = oracle_set(photographs_runs[view_set], teacher, view_set)
    found = losses(oracle, as_recorded).mean(axis=1)
    assert found.mean() < bound
    for wrong in (one_token_down, one_token_right):
        planted = losses(oracle, wrong).mean(axis=1)
        assert (planted > found).all()
        assert planted.mean() > 3 * found.mean()


CLOSE_UP = 16
"""Side of the part of a photograph that is seen close up (pixels): within a token there is at most one edge."""


def write_close_ups(folder: Path) -> Path:
    """Write, of each photograph, the part that varies most, enlarged."""
    copy_photographs(str(folder / "whole"))
    for path in sorted((folder / "whole").iterdir()):
        photograph = Image.open(path).convert("RGB")
        rows, cols = photograph.height // CLOSE_UP, photograph.width // CLOSE_UP
        grey = np.asarray(photograph.convert("L"), dtype=np.float64)[: rows * CLOSE_UP, : cols * CLOSE_UP]
        spread = grey.reshape(rows, CLOSE_UP, cols, CLOSE_UP).std(axis=(1, 3))
        row, col = (CLOSE_UP * int(place) for place in np.unravel_index(spread.argmax(), spread.shape))
        part = photograph.crop((col, row, col + CLOSE_UP, row + CLOSE_UP))
        part.resize((64, 64), Image.Resampling.BICUBIC).save(folder / f"{path.stem}.png")
        path.unlink()
    return folder


@pytest.fixture(scope="session")
def close_ups(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photographs, seen close up."""
    return write_close_ups(tmp_path_factory.mktemp("close-ups"))


@pytest.fixture(scope="session")
def close_up_run(close_ups: Path, tmp_path_factory: pytest.TempPathFactory) -> StageRun:
    """Every window that C-RADIOv4 has, with patches of 4 px, beside 24 tokens and beside 3 × 3 tiles of them."""
    views = ViewsConfig(
        seed=2,
        patch=4,
        low=tuple(span * 4 for span in (8, 12, 14, 16, 27)),
        high=tuple(span * 4 for span in (32, 48, 64)),
        high_share=3 / 8,
        draws=6,
        heldout=0.1,
        canvas_tokens=0,
        tokens_per_shard=10**6,
    )
    source = "oracle_teachers:FourFixed"
    recipe = Recipe(
        name="close-ups",
        views=views,
        teachers=(own(source), own(source, name="four-tiled", tiles=3)),
        calibration=CalibrationConfig(views=1000),
    )
    return run_stages(recipe, close_ups, tmp_path_factory.mktemp("close-up") / "cache")


CLOSE_UP_BOUNDS = {
    ("four-fixed", 8): 0.02,
    ("four-fixed", 12): 0.004,
    ("four-fixed", 14): 0.003,
    ("four-fixed", 16): 0.003,
    ("four-fixed", 27): 0.0006,
    ("four-fixed", 32): 0.0015,
    ("four-fixed", 48): 0.0012,
    ("four-fixed", 64): 0.0035,
    ("four-tiled", 32): 0.0015,
    ("four-tiled", 48): 0.0003,
    ("four-tiled", 64): 0.0002,
}
"""Teacher, side of a window (patches) → largest mean loss on photographs seen close up (PHI-S units)."""


def test_the_page_says_these_bounds() -> None:
    page = (Path(__file__).parents[3] / "docs" / "geometry.md").read_text()
    table = page.partition("| tokens of the student |")[2].partition("\n\n")[0].splitlines()
    spans, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in (table[0], *table[2:]))
    said = {
        (teacher, int(span)): float(bound)
        for teacher, (_, *bounds) in zip(("four-fixed", "four-tiled"), rows, strict=True)
        for span, bound in zip(spans, bounds, strict=True)
        if bound
    }
    assert said == CLOSE_UP_BOUNDS


def require_tenfold(oracle: OracleSet, bound: float) -> None:
    """Check that an error of one token costs ten times the bound of the truth, and in every view more than the truth.

    A view may show next to nothing: there the rounding of pixels is all that is lost, and what an error costs is little
    more.
    """
    found = losses(oracle, as_recorded).mean(axis=1)
    assert found.mean() < bound
    for wrong in (one_token_down, one_token_right):
        planted = losses(oracle, wrong).mean(axis=1)
        assert planted.mean() > 10 * bound
        assert (planted > found).all()


@pytest.mark.parametrize(("teacher", "span", "bound"), [(*mode, bound) for mode, bound in CLOSE_UP_BOUNDS.items()])
def test_on_photographs_seen_close_up_unequal_grids_lose_a_tenth_of_what_an_error_of_one_token_does(
    close_up_run: StageRun, teacher: str, span: int, bound: float
) -> None:
    require_tenfold(oracle_set(close_up_run, teacher, named(close_up_run, span)), bound)


@pytest.mark.parametrize(
    ("source", "resolution", "bound"), [("DirectFourteen", 224, 0.003), ("Fixed", 432, 0.0008)], ids=["16-14", "24-27"]
)
def test_so_do_the_sizes_that_teachers_have(
    close_ups: Path, tmp_path: Path, source: str, resolution: int, bound: float
) -> None:
    run = run_of((source,), resolution, close_ups, tmp_path / "cache")
    require_tenfold(oracle_set(run, run.recipe.teachers[0].name, f"low-{resolution}"), bound)


def test_on_smooth_colours_24_tokens_beside_27_lose_a_tenth_of_what_an_error_of_one_patch_does(tmp_path: Path) -> None:
    run = run_of(("Fixed",), 432, write_colours(tmp_path / "images", 8), tmp_path / "cache")
    oracle = oracle_set(run, "fixed", "low-432")
    bound = 0.006
    assert losses(oracle, as_recorded).max() < bound
    for wrong in (one_token_down, one_token_right):
        assert losses(oracle, wrong).min() > 10 * bound
