"""The contact sheet: windows where the placements say, mosaics as a teacher is shown them, one file or none."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.__main__ import main
from pipeline.features.forward import mosaic_inputs
from pipeline.inspect.contact_sheet import (
    COLOURS,
    GAP,
    LINE,
    SIDE,
    colours,
    lay_out,
    with_cells,
    with_windows,
    write_sheet,
)
from pipeline.inspect.preview import (
    STUDENT,
    Drawing,
    canvas_pictures,
    mosaic_picture,
    mosaic_pixels,
    sheet_rows,
    shown_views,
)
from pipeline.inventory.teacher_maps import teacher_spec
from pipeline.views.placements import Placement, window_starts
from storage_schemas.cache import Cache
from storage_schemas.commits import record_path
from storage_schemas.format.errors import StorageError
from storage_schemas.format.geometry import CanvasGeometry, Offset, cut_windows
from storage_schemas.format.mosaic import MosaicLayout
from storage_schemas.format.teacher import TeacherSpec
from storage_schemas.format.views import draw_offset
from storage_schemas.objects.store import Store
from teachers.base import normalise

BLACK = (0, 0, 0)
SETTINGS = [
    *("--views.low", "192", "--views.high", "256", "--views.high-share", "0.4", "--views.draws", "2"),
    *("--views.heldout", "0.5", "--views.tokens-per-shard", "1152", "--views.canvas-tokens", "24"),
]
"""What the small run changes of the demo."""


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[start : start + 2], 16) for start in (1, 3, 5))


def opened(where: Path) -> Cache:
    return Cache(store=Store(uri=str(where)))


def drawing_of(run: Any) -> Drawing:
    specs = tuple(teacher_spec(choice) for choice in run.recipe.teachers)
    return Drawing(seed=run.recipe.views.seed, shifts=run.recipe.views.teacher_shifts, specs=specs)


def test_a_window_is_outlined_where_its_offset_puts_it() -> None:
    geometry = CanvasGeometry(resolution=128, patch=16, margin=2)  # 160 px, so a patch is a tenth of the picture
    picture = with_windows(Image.new("RGB", (160, 160)), geometry, [Offset(row=2, col=1), Offset(row=0, col=0)])
    pixels, patch = np.asarray(picture), SIDE // 10
    teacher = (pixels == rgb(COLOURS[0])).all(axis=-1)
    rows, cols = np.nonzero(teacher)
    assert (rows.min(), rows.max() + 1, cols.min(), cols.max() + 1) == (2 * patch, SIDE, patch, 9 * patch)
    student = (pixels == 255).all(axis=-1)
    rows, cols = np.nonzero(student)
    assert (rows.min(), rows.max() + 1, cols.min(), cols.max() + 1) == (2, 8 * patch - 2, 2, 8 * patch - 2)
    assert tuple(pixels[5 * patch, 5 * patch]) == BLACK


def test_equal_windows_do_not_hide_one_another() -> None:
    geometry = CanvasGeometry(resolution=128, patch=16, margin=0)
    picture = np.asarray(with_windows(Image.new("RGB", (128, 128)), geometry, [Offset(row=0, col=0)] * 9))
    along = {tuple(pixel) for pixel in picture[SIDE // 2, : SIDE // 2]}
    assert along == {BLACK, (255, 255, 255), *map(rgb, COLOURS)}
    assert colours(8) == [*COLOURS, *COLOURS[:2], "#ffffff"]


def test_a_cells_outline_encloses_its_window_alone() -> None:
    layout = MosaicLayout(canvas_tokens=40, window_tokens=15)  # cells of 20 tokens, 8 pixels to a token
    outlined = (np.asarray(with_cells(Image.new("RGB", (640, 640)), layout)) == (255, 255, 0)).all(axis=-1)
    expected = np.zeros((SIDE, SIDE), bool)
    for row, col in ((0, 0), (0, 160), (160, 0), (160, 160)):
        expected[row : row + 120, col : col + 120] = True
        expected[row + 2 : row + 118, col + 2 : col + 118] = False
    np.testing.assert_array_equal(outlined, expected)


def test_a_mosaic_shows_each_window_in_its_cell_and_the_mean_colour_elsewhere() -> None:
    spec = TeacherSpec(
        name="canvas",
        model="none",
        dim=8,
        summary_dim=None,
        patch=16,
        size_rule="canvas",
        native=128,
        mean=(0.5, 0.4, 0.2),
        std=(0.5, 0.25, 0.2),
    )
    geometry, layout = CanvasGeometry(resolution=48, patch=16, margin=1), MosaicLayout(canvas_tokens=8, window_tokens=3)
    canvases = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    places = [(Offset(row=1, col=0), 3), (Offset(row=0, col=1), 0), (Offset(row=1, col=1), 2)]
    placements = [Placement(row=row, offset=offset, mosaic=0, cell=cell) for row, (offset, cell) in enumerate(places)]
    expected = np.empty((128, 128, 3), np.uint8)
    expected[...] = (128, 102, 51)
    expected[64:112, 64:112] = canvases[0, 16:64, 0:48]
    expected[0:48, 0:48] = canvases[1, 0:48, 16:64]
    expected[64:112, 0:48] = canvases[2, 16:64, 16:64]
    np.testing.assert_array_equal(mosaic_pixels(canvases, geometry, spec, layout, placements), expected)


@pytest.mark.parametrize("resample", ["bilinear", "bicubic"])
@pytest.mark.parametrize("patch", [14, 16, 18])
def test_a_mosaic_shows_the_very_input_that_extract_makes(patch: int, resample: Any) -> None:
    spec = TeacherSpec(
        name="canvas",
        model="none",
        dim=8,
        summary_dim=None,
        patch=patch,
        size_rule="canvas",
        native=8 * patch,
        mean=(0.5, 0.4, 0.2),
        std=(0.5, 0.25, 0.2),
        resample=resample,
    )
    geometry, layout = CanvasGeometry(resolution=48, patch=16, margin=1), MosaicLayout(canvas_tokens=8, window_tokens=3)
    canvases = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    places = [(Offset(row=1, col=0), 3), (Offset(row=0, col=1), 0), (Offset(row=1, col=1), 2)]
    placements = [Placement(row=row, offset=offset, mosaic=0, cell=cell) for row, (offset, cell) in enumerate(places)]
    windows = normalise(torch.from_numpy(cut_windows(canvases, geometry, window_starts(placements))), spec)
    [seen] = mosaic_inputs(windows, spec, layout, placements).permute(0, 2, 3, 1).double().numpy()
    colours = np.clip((seen * spec.std + spec.mean) * 255, 0, 255)
    shown = mosaic_pixels(canvases, geometry, spec, layout, placements)
    assert np.abs(shown - colours).max() < 0.501, "the nearest colour, to rounding"


def test_windows_are_drawn_where_extract_recorded_them(small_run: Any) -> None:
    cache, drawing = opened(small_run.cache), drawing_of(small_run)
    for views in shown_views(cache):
        pictures = canvas_pictures(views, drawing, 3)
        recorded = [
            cache.placements(views.view_set, spec.name, cache.records(f"teachers/{spec.name}/{views.view_set.name}", d))
            for spec in drawing.specs
            if (d := cache.teacher_manifest(spec.name).digest)  # type: ignore[union-attr]
        ]
        rows = views.table.to_pylist()[:3]
        for position, (row, canvas, picture) in enumerate(zip(rows, views.canvases(3), pictures, strict=True)):
            places = [table.to_pylist()[position] for table in recorded]
            offsets = [Offset(row=place["offset_row"], col=place["offset_col"]) for place in places]
            student = draw_offset(views.geometry, drawing.shifts, (drawing.seed, row["image"], row["draw"], STUDENT))
            expected = with_windows(Image.fromarray(canvas), views.geometry, [*offsets, student])
            assert picture.label == f"{views.view_set.name} row {row['row']}"
            assert picture.image.tobytes() == expected.tobytes()


def test_the_mosaic_on_the_sheet_is_the_first_that_the_teacher_is_shown(small_run: Any) -> None:
    cache, drawing = opened(small_run.cache), drawing_of(small_run)
    spec = drawing.specs[-1]
    [views] = [shown for shown in shown_views(cache) if shown.view_set.name == "low-192"]
    commits = cache.records("teachers/quarter-mean-canvas/low-192", cache.teacher_manifest(spec.name).digest)  # type: ignore[union-attr]
    placements = [
        Placement(
            row=placement["row"],
            offset=Offset(row=placement["offset_row"], col=placement["offset_col"]),
            mosaic=placement["mosaic"],
            cell=placement["cell"],
        )
        for placement in cache.placements(views.view_set, spec.name, commits).to_pylist()[:4]
    ]
    layout = MosaicLayout(canvas_tokens=24, window_tokens=12)
    mosaic = mosaic_pixels(views.canvases(4), views.geometry, spec, layout, placements)
    picture = mosaic_picture(views, drawing, spec)
    assert picture.label == "quarter-mean-canvas: low-192, 2 x 2"
    assert picture.image.tobytes() == with_cells(Image.fromarray(mosaic), layout).tobytes()


def test_the_command_writes_a_row_for_each_set_and_each_canvas_teacher(
    small_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, sheet = opened(small_run.cache), tmp_path / "new" / "sheet.png"
    chosen = ["--teacher", "teachers.quarter_mean:QuarterMeanCanvas", "--canvases", "2"]
    arguments = ["preview", "--cache", str(small_run.cache), "--sheet", str(sheet), *chosen, *SETTINGS]
    assert main(arguments) == 0
    width, height = GAP + 2 * (SIDE + GAP), 2 * GAP + LINE + 3 * (SIDE + LINE + GAP)
    assert capsys.readouterr().out == f"preview: {width} x {height} pixels written to {sheet}\n"
    drawing = drawing_of(small_run)
    alone = Drawing(seed=drawing.seed, shifts=drawing.shifts, specs=drawing.specs[-1:])
    expected = lay_out(sheet_rows(cache, alone, 2), ["quarter-mean-canvas"])
    with Image.open(sheet) as written:
        assert written.tobytes() == expected.tobytes()
    assert main([*arguments, "--views.seed", "5"]) == 2
    assert "views.seed: the cache has 0, this run has 5" in capsys.readouterr().err


def test_a_set_of_which_nothing_is_committed_is_left_out(small_run: Any, copied: Path) -> None:
    for record in (copied / record_path("views/low-192", 0)).parent.glob("*.*"):
        record.unlink()
    rows = sheet_rows(opened(copied), drawing_of(small_run), 2)
    assert [[picture.label for picture in row] for row in rows] == [
        ["high-256 row 0", "high-256 row 1"],
        ["quarter-mean-canvas: high-256, 1 x 1"],
    ]


def test_a_cache_without_views_is_refused_and_no_sheet_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = tmp_path / "cache"
    assert main(["preview", "--cache", str(where), "--sheet", str(tmp_path / "sheet.png")]) == 2
    assert capsys.readouterr().err == f"error: views is missing:\n  {where}: no view is cut yet (run `make views`)\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sheet", "s"], "CACHE cannot be used:\n  --cache: is not given (make … CACHE=…)"),
        (["--cache", "c"], "SHEET cannot be used:\n  --sheet: is not given (make … SHEET=…)"),
        (
            ["--cache", "c", "--sheet", "s", "--canvases", "0"],
            "canvases cannot be used:\n  --canvases: 0 is less than 1",
        ),
    ],
)
def test_a_setting_that_cannot_work_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["preview", *arguments]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_a_sheet_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    write_sheet(Image.new("RGB", (3, 3), "red"), path)
    before = path.read_bytes()
    with pytest.raises(OSError, match="CMYK"):
        write_sheet(Image.new("CMYK", (3, 3)), path)  # what PNG cannot hold
    assert path.read_bytes() == before
    write_sheet(Image.new("RGB", (4, 4), "blue"), path)
    with Image.open(path) as written:
        assert written.size == (4, 4)
    (tmp_path / "taken").mkdir()
    with pytest.raises(StorageError, match="taken: cannot be written: Is a directory"):
        write_sheet(Image.new("RGB", (3, 3)), tmp_path / "taken")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sheet.png", "taken"]
