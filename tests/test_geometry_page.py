"""`docs/geometry.md` says what the geometry is."""

import re
from pathlib import Path

import numpy as np
import pytest

from storage_schemas.format.geometry import CanvasGeometry, TokenAxis, match_axis
from storage_schemas.format.mosaic import MosaicLayout
from storage_schemas.format.views import Shifts, draw_offset

PAGE = (Path(__file__).parent.parent / "docs" / "geometry.md").read_text()
MOSAICS = [tuple(map(int, row)) for row in re.findall(r"^\| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", PAGE, re.M)]


@pytest.mark.parametrize("row", MOSAICS)
def test_the_table_of_mosaics_is_right(row: tuple[int, ...]) -> None:
    layout = MosaicLayout(canvas_tokens=72, window_tokens=row[0] // 16)
    assert row[1:] == (layout.window_tokens, layout.per_side, layout.cell_tokens, layout.capacity)


def test_the_table_of_mosaics_has_every_resolution() -> None:
    assert [row[0] for row in MOSAICS] == [128, 192, 224, 256, 384, 432, 512, 768, 1024, 1152]


def test_the_drawn_windows_meet_where_they_are_drawn() -> None:
    student, teacher = (1, 0), (0, 2)
    assert f"teacher at {teacher}, student at {student}" in PAGE
    counts = [
        match_axis(TokenAxis(start=own, span=8, tokens=8), TokenAxis(start=its, span=8, tokens=8)).common.sum()
        for own, its in zip(student, teacher, strict=True)
    ]
    assert f"Ω, {counts[0]} × {counts[1]} of 8 × 8 tokens" in PAGE


def test_the_shares_of_offsets_are_right() -> None:
    *shares, together = map(float, re.findall(r"\| (0\.\d\d), (0\.\d\d), (0\.\d\d) \| (0\.\d+) \|$", PAGE, re.M)[0])
    geometry = CanvasGeometry(resolution=128, patch=16, margin=2)
    drawn = [draw_offset(geometry, Shifts(distribution="rounded-normal"), (number,)).row for number in range(20_000)]
    np.testing.assert_allclose(np.bincount(drawn) / len(drawn), shares, atol=0.015)
    assert abs(float(np.sum(np.square(np.bincount(drawn) / len(drawn)))) ** 2 - together) < 0.01
