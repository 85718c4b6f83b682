"""Placements: offsets by key, mosaics of neighbouring rows, cells by key, and the way back from a cell to a row."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from pipeline.views.placements import (
    Placement,
    mosaic_cells,
    place_views,
    placements_of,
    placements_table,
    source_rows,
    window_starts,
)
from storage_schemas.format.geometry import CanvasGeometry, Offset
from storage_schemas.format.mosaic import MosaicLayout
from storage_schemas.format.teacher import TeacherSpec
from storage_schemas.format.views import Shifts, ViewSet, draw_offset

LOW_48 = ViewSet(partition="low", resolution=48)
GEOMETRY = CanvasGeometry(resolution=48, patch=16, margin=2)
SHIFTS = Shifts()
FREE = TeacherSpec(
    name="free",
    model="free",
    dim=8,
    summary_dim=None,
    patch=16,
    size_rule="any",
    native=48,
    mean=(0.5,) * 3,
    std=(0.5,) * 3,
)
MOSAIC = replace(FREE, name="mosaic", model="mosaic", size_rule="canvas", native=112)
"""Seven tokens a side: four windows of three tokens."""
FIRST, COUNT = 8, 10


def views() -> pa.Table:
    """Rows 8 to 17 of a set: two mosaics and a half."""
    rows = range(FIRST, FIRST + COUNT)
    return pa.table({"row": list(rows), "image": [f"{row}.jpg" for row in rows], "draw": [row % 3 for row in rows]})


def offset_of(row: int, teacher: str) -> Offset:
    """The offset that the format gives a view."""
    return draw_offset(GEOMETRY, SHIFTS, (5, f"{row}.jpg", row % 3, "offset", teacher))


def placed(spec: TeacherSpec) -> list[Placement]:
    return place_views(spec, 5, SHIFTS, LOW_48, GEOMETRY, views())


def test_a_teacher_without_mosaics_has_an_offset_of_its_own_for_each_view() -> None:
    found = placed(FREE)
    assert found == [Placement(row=row, offset=offset_of(row, "free")) for row in range(FIRST, FIRST + COUNT)]
    assert [placement.offset for placement in placed(replace(FREE, name="other"))] != [p.offset for p in found]


def test_a_mosaic_takes_the_next_rows_and_gives_each_a_cell_drawn_for_it() -> None:
    found = placed(MOSAIC)
    assert [placement.offset for placement in found] == [offset_of(row, "mosaic") for row in range(8, 18)]
    assert [placement.mosaic for placement in found] == [8, 8, 8, 8, 12, 12, 12, 12, 16, 16]
    for first in (8, 12, 16):
        cells = [placement.cell for placement in found if placement.mosaic == first]
        layout = MosaicLayout(canvas_tokens=7, window_tokens=3)
        drawn = mosaic_cells(layout, MOSAIC, 5, LOW_48, first)
        assert cells == drawn[: len(cells)]
        assert sorted(drawn) == [0, 1, 2, 3]


def test_cells_differ_with_the_seed_the_set_the_mosaic_and_the_teacher() -> None:
    layout = MosaicLayout(canvas_tokens=60, window_tokens=3)
    base = mosaic_cells(layout, MOSAIC, 5, LOW_48, 8)
    others = [
        mosaic_cells(layout, MOSAIC, 6, LOW_48, 8),
        mosaic_cells(layout, MOSAIC, 5, ViewSet(partition="high", resolution=48), 8),
        mosaic_cells(layout, MOSAIC, 5, LOW_48, 12),
        mosaic_cells(layout, replace(MOSAIC, name="other"), 5, LOW_48, 8),
    ]
    assert all(sorted(cells) == list(range(400)) for cells in (base, *others))
    assert max(abs(np.corrcoef(base, cells)[0, 1]) for cells in others) < 0.2


def test_cells_are_the_same_in_every_release() -> None:
    # another release may finish a cache: these values are part of the format
    layout = MosaicLayout(canvas_tokens=9, window_tokens=3)
    assert mosaic_cells(layout, MOSAIC, 5, LOW_48, 8) == [8, 6, 2, 1, 0, 5, 7, 4, 3]


def test_the_row_that_a_view_had_is_found_again_from_its_cell() -> None:
    found = placed(MOSAIC)
    moved = [replace(placement, row=row) for row, placement in enumerate(reversed(found))]
    assert source_rows(MOSAIC, 5, LOW_48, GEOMETRY, moved) == list(range(17, 7, -1))


@pytest.mark.parametrize("change", [{"cell": 4}, {"cell": -1}, {"cell": None}, {"mosaic": None}])
def test_a_view_without_a_cell_of_its_mosaic_has_no_row(change: dict[str, int | None]) -> None:
    first, second, *_ = placed(MOSAIC)
    rows = source_rows(MOSAIC, 5, LOW_48, GEOMETRY, [replace(first, **change), second])
    assert rows == [None, second.row], "the next view is found all the same"


def test_placements_are_read_back_from_their_table() -> None:
    for spec in (FREE, MOSAIC):
        assert placements_of(placements_table(placed(spec))) == placed(spec)


def test_window_starts_are_rows_and_columns() -> None:
    offsets = [Offset(row=0, col=1), Offset(row=2, col=0)]
    starts = window_starts([Placement(row=row, offset=offset) for row, offset in enumerate(offsets)])
    assert starts.tolist() == [[0, 1], [2, 0]]
    assert window_starts([]).shape == (0, 2)
