"""Placements: at which offset each teacher sees each view, and for a canvas teacher in which mosaic and cell."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from pipeline.inventory.inputs import mosaic_layout
from storage_schemas.format.geometry import CanvasGeometry, Offset
from storage_schemas.format.mosaic import MosaicLayout, draw_cells
from storage_schemas.format.tables import PLACEMENTS
from storage_schemas.format.teacher import TeacherSpec
from storage_schemas.format.views import Shifts, ViewSet, draw_offset


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """How one teacher saw one view."""

    row: int
    """Row of the view in its set."""
    offset: Offset
    """Where the teacher's window starts in the canvas (patches)."""
    mosaic: int | None = None
    """First row slot of its mosaic; None for a teacher without mosaics."""
    cell: int | None = None
    """Its cell in the mosaic, counted row by row."""


def place_views(
    spec: TeacherSpec, seed: int, shifts: Shifts, view_set: ViewSet, geometry: CanvasGeometry, views: pa.Table
) -> list[Placement]:
    """Place the views of one shard for one teacher.

    A mosaic takes the next k² row slots of the shard. A shard is a whole number of mosaics, so no mosaic spans two
    shards, and only the last mosaic of a shard may be partly empty.

    Args:
        spec: the teacher.
        seed: the recipe's seed.
        shifts: how the recipe distributes offsets.
        view_set: the set.
        geometry: the set's canvas.
        views: the shard's rows of the `views` table, in order.
    """
    offsets = [
        draw_offset(geometry, shifts, offset_key(seed, image, draw, spec.forward_of))
        for image, draw in zip(views["image"].to_pylist(), views["draw"].to_pylist(), strict=True)
    ]
    rows = views["row"].to_pylist()
    if spec.size_rule != "canvas":
        return [Placement(row=row, offset=offset) for row, offset in zip(rows, offsets, strict=True)]
    layout = mosaic_layout(spec, geometry)
    cells = [cell for first in rows[:: layout.capacity] for cell in mosaic_cells(layout, spec, seed, view_set, first)]
    return [
        Placement(row=row, offset=offset, mosaic=rows[position - position % layout.capacity], cell=cells[position])
        for position, (row, offset) in enumerate(zip(rows, offsets, strict=True))
    ]


def source_rows(
    spec: TeacherSpec, seed: int, view_set: ViewSet, geometry: CanvasGeometry, placements: list[Placement]
) -> list[int | None]:
    """Return the row slot that each view had when a canvas teacher saw it, computed from its mosaic and cell.

    An export numbers its views anew, and keeps the mosaics of the cache that it came from.

    Returns:
        Row slots; None for a view whose cell its mosaic does not have.
    """
    layout, rows, drawn = mosaic_layout(spec, geometry), list[int | None](), dict[int, list[int]]()
    for placement in placements:
        mosaic, cell = placement.mosaic, placement.cell
        if mosaic is None or cell is None or cell not in range(layout.capacity):
            rows.append(None)
            continue
        if mosaic not in drawn:
            drawn[mosaic] = mosaic_cells(layout, spec, seed, view_set, mosaic)
        rows.append(mosaic + drawn[mosaic].index(cell))
    return rows


def mosaic_cells(layout: MosaicLayout, spec: TeacherSpec, seed: int, view_set: ViewSet, first_row: int) -> list[int]:
    """Return the cell of each member of the mosaic that starts at a row slot."""
    return draw_cells(layout, (seed, view_set.name, first_row, "cells", spec.forward_of))


def placements_of(table: pa.Table) -> list[Placement]:
    """Read placements back from their table."""
    return [
        Placement(
            row=row["row"],
            offset=Offset(row=row["offset_row"], col=row["offset_col"]),
            mosaic=row["mosaic"],
            cell=row["cell"],
        )
        for row in table.to_pylist()
    ]


def window_starts(placements: Sequence[Placement]) -> Int64[np.ndarray, "views 2"]:
    """Return where each view's window starts in its canvas (row, column; patches)."""
    starts = [(placement.offset.row, placement.offset.col) for placement in placements]
    return np.array(starts, dtype=np.int64).reshape(-1, 2)


def placements_table(placements: list[Placement]) -> pa.Table:
    """Return placements as rows of their table."""
    rows = [
        {
            "row": placement.row,
            "offset_row": placement.offset.row,
            "offset_col": placement.offset.col,
            "mosaic": placement.mosaic,
            "cell": placement.cell,
        }
        for placement in placements
    ]
    return pa.Table.from_pylist(rows, PLACEMENTS)


def offset_key(seed: int, image: str, draw: int, teacher: str) -> tuple[int | str, ...]:
    """Return the key that seeds a teacher's offset in a view."""
    return (seed, image, draw, "offset", teacher)
