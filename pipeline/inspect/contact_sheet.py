"""Drawing a contact sheet: rows of labelled pictures, with the outlines of windows and cells."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import final

from PIL import Image, ImageDraw

from storage_schemas.format.geometry import CanvasGeometry, Offset
from storage_schemas.format.mosaic import MosaicLayout
from storage_schemas.objects.publish import write_whole

COLOURS = ("#ff7f0e", "#2fb4ff", "#4bd14b", "#c98bff", "#ff5c7a", "#d9c24a")
"""Colours of the teachers' windows, in order; after the last they start again."""
STUDENT_COLOUR = "#ffffff"
CELL_COLOUR = "#ffff00"
SIDE = 320
"""Side of a picture (pixels)."""
GAP = 12
"""Space between pictures (pixels)."""
LINE = 16
"""Height of a line of text (pixels)."""
LEGEND = 120
"""Width of an entry of the legend (pixels)."""
PEN = 2
"""Width of an outline (pixels)."""
BACKGROUND = "#202020"
TEXT = "#d0d0d0"


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Picture:
    """A picture of `SIDE` pixels, and the label below it."""

    label: str
    image: Image.Image


def colours(teachers: int) -> list[str]:
    """Return the colour of each teacher's window, then the student's."""
    return [*islice(cycle(COLOURS), teachers), STUDENT_COLOUR]


def with_windows(canvas: Image.Image, geometry: CanvasGeometry, offsets: Sequence[Offset]) -> Image.Image:
    """Outline windows on a canvas.

    Each outline is smaller than the one before by the width of the pen, so that equal windows do not hide one another.

    Args:
        canvas: at its own size.
        geometry: of the canvas.
        offsets: where each teacher's window starts, then the student's.
    """
    picture = _scaled(canvas)
    pen, scale = ImageDraw.Draw(picture), SIDE / geometry.side
    for order, (offset, colour) in enumerate(zip(offsets, colours(len(offsets) - 1), strict=True)):
        left, top = (round(start * geometry.patch * scale) + order * PEN for start in (offset.col, offset.row))
        length = round(geometry.resolution * scale) - 1 - 2 * order * PEN
        pen.rectangle((left, top, left + length, top + length), outline=colour, width=PEN)
    return picture


def with_cells(mosaic: Image.Image, layout: MosaicLayout) -> Image.Image:
    """Outline where windows lie in a mosaic: each at the top left corner of its cell."""
    picture = _scaled(mosaic)
    pen, scale = ImageDraw.Draw(picture), SIDE / layout.canvas_tokens
    length = round(layout.window_tokens * scale) - 1
    for cell in range(layout.capacity):
        corner = layout.corner(cell)
        left, top = round(corner.col * scale), round(corner.row * scale)
        pen.rectangle((left, top, left + length, top + length), outline=CELL_COLOUR, width=PEN)
    return picture


def lay_out(rows: Sequence[Sequence[Picture]], teachers: Sequence[str]) -> Image.Image:
    """Return the sheet: a legend, then the rows.

    Args:
        rows: the pictures of each row.
        teachers: their names for the legend, in the order of their windows.
    """
    legend = list(zip([*teachers, "a student"], colours(len(teachers)), strict=True))
    width = GAP + max(max(len(row) for row in rows) * (SIDE + GAP), len(legend) * LEGEND)
    step = SIDE + LINE + GAP
    sheet = Image.new("RGB", (width, 2 * GAP + LINE + len(rows) * step), BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    for position, (name, colour) in enumerate(legend):
        left = GAP + position * LEGEND
        pen.rectangle((left, GAP + 2, left + 8, GAP + 10), fill=colour)
        pen.text((left + 14, GAP), name, fill=colour)
    for down, row in enumerate(rows):
        for across, picture in enumerate(row):
            left, top = GAP + across * (SIDE + GAP), 2 * GAP + LINE + down * step
            sheet.paste(picture.image, (left, top))
            pen.text((left, top + SIDE + 2), picture.label, fill=TEXT)
    return sheet


def write_sheet(sheet: Image.Image, path: Path) -> None:
    """Write the sheet as PNG: the file appears complete, or not at all."""
    png = io.BytesIO()
    sheet.save(png, format="PNG")
    write_whole(path, png.getvalue())


def _scaled(picture: Image.Image) -> Image.Image:
    return picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
