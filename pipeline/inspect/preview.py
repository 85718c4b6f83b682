"""The pictures of `preview`: canvases with the windows of every teacher and of a student, and mosaics."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, UInt8
from PIL import Image

from pipeline.inspect.contact_sheet import Picture, with_cells, with_windows
from pipeline.inventory.inputs import mosaic_layout
from pipeline.views.placements import Placement, offset_key, place_views, window_starts
from storage_schemas.cache import Cache
from storage_schemas.format.errors import ContractError, MissingError, Problem
from storage_schemas.format.geometry import CanvasGeometry, cut_windows
from storage_schemas.format.layout import pixels_array, views_unit
from storage_schemas.format.manifest import ViewsManifest
from storage_schemas.format.mosaic import MosaicLayout
from storage_schemas.format.seeds import Key
from storage_schemas.format.teacher import Resample, TeacherSpec
from storage_schemas.format.views import Shifts, ViewSet, draw_offset
from storage_schemas.sharded_array import ShardedArray

STUDENT = "a student"
"""The student in the legend. Its windows are drawn for this picture only."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """What decides where windows lie."""

    seed: int
    """The recipe's seed."""
    shifts: Shifts
    """The recipe's distribution of offsets."""
    specs: tuple[TeacherSpec, ...]
    """Teachers whose windows are drawn, in the order of the legend."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ShownViews:
    """The first committed views of a set."""

    view_set: ViewSet
    geometry: CanvasGeometry
    table: pa.Table
    """The rows of one shard in the `views` table; it may hold fewer views than a full shard."""
    pixels: ShardedArray
    """The canvases of the set."""

    def canvases(self, count: int) -> UInt8[np.ndarray, "views side side 3"]:
        """Read the first canvases."""
        return self.pixels.read(self.table["row"].to_pylist()[:count])


def sheet_rows(cache: Cache, drawing: Drawing, count: int) -> list[list[Picture]]:
    """Return the pictures of a sheet: canvases, a row for each view set, then mosaics, a row for each canvas teacher.

    Args:
        cache: whose views are shown; sets without a committed view are left out.
        drawing: what decides where windows lie.
        count: how many canvases a row has.

    Raises:
        MissingError: no view is committed.
        ContractError: a window does not fit into a teacher's canvas.
    """
    shown = shown_views(cache)
    canvases = [canvas_pictures(views, drawing, count) for views in shown]
    mosaics = [
        [mosaic_picture(views, drawing, spec) for views in shown]
        for spec in drawing.specs
        if spec.size_rule == "canvas"
    ]
    return canvases + mosaics


def shown_views(cache: Cache) -> list[ShownViews]:
    """Return the first shard of each set that holds a view.

    Raises:
        MissingError: no set has one.
    """
    manifest = cache.views_manifest()
    found = list(_first_views(cache, manifest)) if manifest else []
    if not found:
        problem = Problem(place=cache.store.uri, found="no view is cut yet", fix="run `make views`")
        raise MissingError("views", [problem])
    return found


def canvas_pictures(views: ShownViews, drawing: Drawing, count: int) -> list[Picture]:
    """Return the first canvases of a set, with the outlines of every teacher's window and of a student's."""
    rows, geometry, pictures = views.table.slice(0, count).to_pylist(), views.geometry, []
    for row, canvas in zip(rows, views.canvases(count), strict=True):
        keys = [offset_key(drawing.seed, row["image"], row["draw"], spec.name) for spec in drawing.specs]
        offsets = [draw_offset(geometry, drawing.shifts, key) for key in keys]
        key: Key = (drawing.seed, row["image"], row["draw"], STUDENT)
        student = draw_offset(geometry, drawing.shifts, key)
        picture = with_windows(Image.fromarray(canvas), geometry, [*offsets, student])
        pictures.append(Picture(label=f"{views.view_set.name} row {row['row']}", image=picture))
    return pictures


def mosaic_picture(views: ShownViews, drawing: Drawing, spec: TeacherSpec) -> Picture:
    """Return the first mosaic of a set as a canvas teacher gets it, with the outlines of its windows."""
    layout = mosaic_layout(spec, views.geometry)
    table = views.table.slice(0, layout.capacity)
    placements = place_views(spec, drawing.seed, drawing.shifts, views.view_set, views.geometry, table)
    mosaic = mosaic_pixels(views.canvases(layout.capacity), views.geometry, spec, layout, placements)
    label = f"{spec.name}: {views.view_set.name}, {layout.per_side} x {layout.per_side}"
    return Picture(label=label, image=with_cells(Image.fromarray(mosaic), layout))


def mosaic_pixels(
    canvases: UInt8[np.ndarray, "views side side 3"],
    geometry: CanvasGeometry,
    spec: TeacherSpec,
    layout: MosaicLayout,
    placements: Sequence[Placement],
) -> UInt8[np.ndarray, "native native 3"]:
    """Return one mosaic as colours, laid out as `pipeline.features.forward.mosaic_inputs` lays out a teacher's input.

    That function normalises windows before it resamples them. Resampling is linear, so here it is done on the colours
    themselves; the teacher's mean colour stands where its input is zero.
    """
    side = layout.window_tokens * spec.patch
    mosaic = np.empty((spec.native, spec.native, 3), dtype=np.float32)
    mosaic[...] = 255 * np.array(spec.mean, dtype=np.float32)
    windows = cut_windows(canvases, geometry, window_starts(placements))
    for window, placement in zip(windows, placements, strict=True):
        if placement.cell is None:
            raise ContractError("placement", [Problem(place=f"row {placement.row}", found="has no cell in a mosaic")])
        corner = layout.corner(placement.cell)
        row, col = corner.row * spec.patch, corner.col * spec.patch
        mosaic[row : row + side, col : col + side] = _resampled(window, side, spec.resample)
    return np.rint(np.clip(mosaic, 0, 255)).astype(np.uint8)


def _resampled(
    window: UInt8[np.ndarray, "resolution resolution 3"], side: int, resample: Resample
) -> Float32[np.ndarray, "side side 3"]:
    """Resample a window with antialiasing, in float32: uint8 would be rounded and clipped after each direction."""
    if window.shape[0] == side:
        return window.astype(np.float32)
    method = Image.Resampling[resample.upper()]
    colours = [Image.fromarray(window[..., colour].astype(np.float32)) for colour in range(3)]
    return np.stack([np.asarray(colour.resize((side, side), method)) for colour in colours], axis=-1)


def _first_views(cache: Cache, manifest: ViewsManifest) -> Iterator[ShownViews]:
    for view_set, shape in manifest.sets.items():
        commits = cache.records(views_unit(view_set), manifest.digest)
        tables = (cache.shard_views(view_set, shard) for shard in sorted(commits))
        table = next((table for table in tables if table.num_rows), None)
        if table is not None:
            pixels = cache.array(pixels_array(view_set), commits)
            yield ShownViews(view_set=view_set, geometry=shape.geometry, table=table, pixels=pixels)
