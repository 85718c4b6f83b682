"""One view with its teachers' features, as a user's own program reads it from a cache."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int64, UInt8

from storage_schemas.format.encodings import Coding, as_numbers
from storage_schemas.format.errors import ContractError, MissingError, Problem
from storage_schemas.format.geometry import CanvasGeometry, cut_windows
from storage_schemas.format.phi_s import PhiS, to_raw
from storage_schemas.format.views import Split, ViewSet
from storage_schemas.open_shards import OpenShards, SlotValues
from storage_schemas.row_ranges import RowRanges, joined_ranges
from storage_schemas.sharded_array import ShardedArray

Units = Literal["phi-s", "raw"]
"""Units of spatial features. `phi-s`: as the cache stores them, zero mean and unit variance per channel. `raw`: as the
teacher gave them. Summaries are in raw units always."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TeacherFeatures:
    """What one teacher gave for one view."""

    spatial: Float32[np.ndarray, "tokens tokens channels"]
    """Tokens of the teacher's window, row by row from the top left, in the units asked for."""
    summary: Float32[np.ndarray, " summary_channels"] | None
    """Summary of the window (raw teacher units); None for a teacher that has no summary."""
    offset: Int64[np.ndarray, "2"]
    """Where the teacher's window starts in the canvas (row, column; patches)."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CachedView:
    """One view: its canvas, where it comes from, and what each teacher gave for it."""

    view_set: ViewSet
    row: int
    """Row slot in the view set."""
    image: str
    """Key of the source image."""
    split: Split
    geometry: CanvasGeometry
    """Sizes of the canvas, of a window in it, and of a patch."""
    pixels: UInt8[np.ndarray, "side side 3"]
    """The canvas: RGB, 0 to 255, rows from the top."""
    teachers: Mapping[str, TeacherFeatures]
    """By name of the teacher."""

    def window(self, offset: Int64[np.ndarray, "2"], *, channels_first: bool = False) -> UInt8[np.ndarray, "_ _ _"]:
        """Cut a window from the canvas: the pixels that a student or a teacher sees.

        Args:
            offset: where it starts (row, column; patches), 0 to `geometry.margin` each.
            channels_first: lay the channels out before the rows, as PyTorch wants them.

        Returns:
            RGB, 0 to 255: `[resolution, resolution, 3]`, or `[3, resolution, resolution]` with `channels_first`.

        Raises:
            ContractError: a window that starts there does not lie in the canvas.
        """
        if not ((offset >= 0) & (offset <= self.geometry.margin)).all():
            found = f"{offset.tolist()} patches, expected 0 to {self.geometry.margin} along each axis"
            raise ContractError("window", [Problem(place="offset", found=found)])
        return cut_windows(self.pixels[None], self.geometry, offset[None], channels_first=channels_first)[0]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TeacherReader:
    """One teacher's features of one view set, open for reading."""

    spatial: ShardedArray
    summary: ShardedArray | None
    offsets: SlotValues
    """Where the teacher's window starts in the canvas of each row slot (row, column; patches)."""
    coding: Coding
    """What the stored spatial entries stand for."""
    phi_s: PhiS | None
    """The map that leads back to raw units; None to read PHI-S units."""

    def read(self, row: int) -> TeacherFeatures:
        """Read the features of one view; see `ViewReader.read`."""
        stored = as_numbers(self.spatial.read([row])[0], self.coding)
        return TeacherFeatures(
            spatial=stored.astype(np.float32) if self.phi_s is None else to_raw(self.phi_s, stored),
            summary=None if self.summary is None else self.summary.read([row])[0],
            offset=self.offsets[row],
        )


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ViewReader:
    """The views of one set, open for reading, with the features of its teachers. It may be sent to other processes.

    Records, tables and indices are read with the shards that are read from, and dropped when others are opened.
    """

    view_set: ViewSet
    geometry: CanvasGeometry
    """Sizes of a canvas, of a window in it, and of a patch."""
    pixels: ShardedArray
    described: OpenShards[pa.Table]
    """Rows of the `views` table, by shard, in order of row."""
    find_rows: Callable[[], Sequence[Mapping[Split, RowRanges]]]
    """Finds the row slots of the views of each generation, by split."""
    teachers: Mapping[str, TeacherReader]
    """By name of the teacher."""

    def rows(self, split: Split | None = None) -> Int64[np.ndarray, " views"]:
        """Return the row slots that hold a view.

        Row slots of views that could not be cut hold none, so the numbers need not follow one another. Every call reads
        how many views each shard holds.

        Args:
            split: `train` or `heldout`; None for both.
        """
        wanted: tuple[Split, ...] = ("train", "heldout") if split is None else (split,)
        return joined_ranges([rows[name] for rows in self.find_rows() for name in wanted])[:]

    def read(self, row: int) -> CachedView:
        """Read one view and what each teacher gave for it.

        Args:
            row: its row slot; `rows` lists those that hold a view.

        Raises:
            MissingError: no view fills the row slot.
            CorruptionError: stored bytes are not those that were committed.
        """
        shard = row // self.pixels.spec.rows_per_shard
        described = table_row(self.described.of([shard])[shard], row)
        if described is None:
            found = "no view fills this row slot: it was rejected, or none was drawn for it"
            raise MissingError("view", [Problem(place=f"{self.view_set.name}/{row}", found=found)])
        return CachedView(
            view_set=self.view_set,
            row=row,
            image=described["image"],
            split=described["split"],
            geometry=self.geometry,
            pixels=self.pixels.read([row])[0],
            teachers={name: teacher.read(row) for name, teacher in self.teachers.items()},
        )


def table_row(table: pa.Table, row: int) -> dict[str, Any] | None:
    """Return the line of a table for a row slot, by column, or None where there is none.

    Args:
        table: `views` or `placements`, in order of row.
        row: the row slot.
    """
    rows = table["row"].to_numpy()
    place = int(np.searchsorted(rows, row))
    return table.slice(place, 1).to_pylist()[0] if place < len(rows) and rows[place] == row else None
