"""Running a teacher over views in every mode: windows as they are, details, tiles, or mosaics of several windows.

Shapes: n views, r the window's side (pixels of the canvas), t its tokens, C channels.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from pipeline.features.teacher import RunningTeacher
from pipeline.features.tiling import ViewFeatures, features_of, fixed_features
from pipeline.inventory.inputs import mosaic_layout, views_per_input
from pipeline.views.placements import Placement, window_starts
from pipeline.workers.prefetch import ahead
from storage_schemas.format.errors import ContractError, Problem
from storage_schemas.format.geometry import CanvasGeometry, cut_windows
from storage_schemas.format.mosaic import MosaicLayout
from storage_schemas.format.teacher import TeacherSpec
from storage_schemas.format.views import ViewSet, tiles_along
from storage_schemas.sharded_array import ShardedArray
from teachers.base import AbstractTeacher, normalise


def view_features(
    running: RunningTeacher,
    view_set: ViewSet,
    source: ShardedArray,
    geometry: CanvasGeometry,
    placements: Sequence[Placement],
) -> Iterator[ViewFeatures]:
    """Run a teacher over views, in their order, and yield their features batch by batch.

    Args:
        running: the teacher.
        view_set: the set of the views.
        source: the array `pixels`, or for a fixed teacher its `detail`.
        geometry: the canvas.
        placements: of consecutive rows; for a canvas teacher they begin with a whole mosaic.

    Raises:
        ContractError: the teacher returned NaN or infinity; the rows are named.
    """
    step = running.batch * views_per_input(running.spec, geometry)
    batches = [placements[first : first + step] for first in range(0, len(placements), step)]
    pixels = ahead(source.read, [[placement.row for placement in batch] for batch in batches])
    for batch, canvases in zip(batches, pixels, strict=True):
        try:
            yield _forward(running, view_set, canvases, geometry, batch)
        except ContractError as error:
            found = f"rows {batch[0].row} to {batch[-1].row} of {source.spec.path}"
            raise ContractError(error.subject, [*error.problems, Problem(place="views", found=found)]) from error


def _forward(
    running: RunningTeacher,
    view_set: ViewSet,
    pixels: UInt8[np.ndarray, "views side side 3"],
    geometry: CanvasGeometry,
    placements: Sequence[Placement],
) -> ViewFeatures:
    teacher, spec = running.teacher, running.spec
    if spec.size_rule == "fixed":
        return fixed_features(running, _normalised(pixels, teacher), tiles_along(spec, view_set))
    windows = _normalised(cut_windows(pixels, geometry, window_starts(placements)), teacher)
    if spec.size_rule == "any":
        return features_of(running.encode(windows))
    layout = mosaic_layout(spec, geometry)
    maps = features_of(running.encode(mosaic_inputs(windows, spec, layout, placements))).maps
    cells = {layer: cut_cells(spatial, layout, placements) for layer, spatial in maps.items()}
    return ViewFeatures(maps=cells, summary=None)


def mosaic_inputs(
    windows: Float[Tensor, "views 3 resolution resolution"],
    spec: TeacherSpec,
    layout: MosaicLayout,
    placements: Sequence[Placement],
) -> Float[Tensor, "mosaics 3 native native"]:
    """Lay normalised windows out in mosaics, each at the top left of its cell; zero (the mean colour) is between them.

    A window is resized first, antialiased, so that its t patches become t patches of the teacher: tokens match tokens.
    """
    side = layout.window_tokens * spec.patch
    if side != windows.shape[-1]:
        windows = interpolate(windows, size=(side, side), mode=spec.resample, antialias=True, align_corners=False)
    mosaics = -(-len(placements) // layout.capacity)
    inputs = windows.new_zeros(mosaics, 3, spec.native, spec.native)
    for position, (window, placement) in enumerate(zip(windows, placements, strict=True)):
        row, col = (start * spec.patch for start in _corner(layout, placement))
        inputs[position // layout.capacity, :, row : row + side, col : col + side] = window
    return inputs


def cut_cells(
    spatial: Float[Tensor, "mosaics canvas canvas channels"], layout: MosaicLayout, placements: Sequence[Placement]
) -> Float[Tensor, "views tokens tokens channels"]:
    """Cut each view's tokens out of the tokens of its mosaic."""
    tokens = layout.window_tokens
    cells = []
    for position, placement in enumerate(placements):
        row, col = _corner(layout, placement)
        cells.append(spatial[position // layout.capacity, row : row + tokens, col : col + tokens])
    return torch.stack(cells)


def _corner(layout: MosaicLayout, placement: Placement) -> tuple[int, int]:
    if placement.cell is None:
        raise ContractError("placement", [Problem(place=f"row {placement.row}", found="has no cell in a mosaic")])
    corner = layout.corner(placement.cell)
    return corner.row, corner.col


def _normalised(pixels: np.ndarray, teacher: AbstractTeacher) -> Tensor:
    return normalise(torch.from_numpy(pixels).to(teacher.device), teacher.spec)
