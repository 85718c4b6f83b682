"""One teacher's features of one view set, beside what the student says of the same canvases; and planted errors."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import product
from typing import Any, final

import numpy as np
from quarter_oracle import offset_in, phi_s_of, quarters, resized
from stage_runs import StageRun

from storage_schemas.format.geometry import AxisMatch, CanvasGeometry, Offset, TokenAxis, match_axis, match_tokens
from storage_schemas.format.mosaic import MosaicLayout
from storage_schemas.format.phi_s import PhiS, to_stored

Placed = Mapping[str, Any]
Seen = tuple[Offset, np.ndarray]
"""Where a teacher is thought to have seen a view, and what it is thought to have said of it (PHI-S units)."""


@final
@dataclass(frozen=True, kw_only=True)
class OracleSet:
    """What is stored of one view set and of one teacher's features of it."""

    run: StageRun
    teacher: str
    view_set: str

    @cached_property
    def students(self) -> dict[int, np.ndarray]:
        """What the student says of the canvases asked for so far."""
        return {}

    @cached_property
    def geometry(self) -> CanvasGeometry:
        views = self.run.recipe.views
        return CanvasGeometry(resolution=int(self.view_set.partition("-")[2]), patch=views.patch, margin=views.margin)

    @cached_property
    def placements(self) -> list[dict[str, Any]]:
        return self.run.table("placements", f"{self.teacher}/{self.view_set}")

    @cached_property
    def stored(self) -> np.ndarray:
        return self.run.arrays[f"teachers/{self.teacher}/{self.view_set}/spatial"][...]

    @cached_property
    def pixels(self) -> np.ndarray:
        return self.run.arrays[f"views/{self.view_set}/pixels"][...]

    @cached_property
    def phi_s(self) -> PhiS:
        return phi_s_of(self.run, self.teacher)

    @cached_property
    def layout(self) -> MosaicLayout:
        tokens = self.run.spec(self.teacher).native_tokens
        return MosaicLayout(canvas_tokens=tokens, window_tokens=self.geometry.span)

    @cached_property
    def offsets(self) -> list[Offset]:
        """Every offset that a window can have."""
        return [Offset(row=row, col=col) for row, col in product(range(self.geometry.margin + 1), repeat=2)]

    def mosaic(self, first: int) -> list[dict[str, Any]]:
        """The placements of the mosaic that starts at a row."""
        return [placed for placed in self.placements if placed["mosaic"] == first]

    def window(self, placed: Placed) -> np.ndarray:
        """The pixels that the teacher saw of a view."""
        offset, patch, side = offset_in(dict(placed)), self.geometry.patch, self.geometry.resolution
        return self.pixels[placed["row"]][patch * offset.row :, patch * offset.col :][:side, :side]

    def said(self, pixels: np.ndarray) -> np.ndarray:
        """What the teacher says of pixels of its own scale, in PHI-S units."""
        return to_stored(self.phi_s, quarters(pixels, self.run.spec(self.teacher).patch))

    def student(self, row: int) -> np.ndarray:
        """What the same function says of every patch of a canvas: a window's tokens are a part of it."""
        if row not in self.students:
            self.students[row] = to_stored(self.phi_s, quarters(self.pixels[row], self.geometry.patch))
        return self.students[row]


@cache
def oracle_set(run: StageRun, teacher: str, view_set: str) -> OracleSet:
    """Read a set once for all tests."""
    return OracleSet(run=run, teacher=teacher, view_set=view_set)


def losses(oracle: OracleSet, plant: Callable[[OracleSet, Placed], Seen], views: int | None = None) -> np.ndarray:
    """Spatial loss (PHI-S units) of the same function as a student.

    Args:
        oracle: the set.
        plant: where each view is thought to have been seen, and what was said of it.
        views: how many of the set's; all when None.

    Returns:
        [views, offsets of the student].
    """
    return np.array([_of_view(oracle, placed, plant) for placed in oracle.placements[:views]])


def _of_view(oracle: OracleSet, placed: Placed, plant: Callable[[OracleSet, Placed], Seen]) -> list[float]:
    span, canvas = oracle.geometry.span, oracle.student(placed["row"])
    seen_at, said = plant(oracle, placed)

    def match(mine: int, its: int) -> AxisMatch:
        student = TokenAxis(start=mine, span=span, tokens=span)
        return match_axis(student, TokenAxis(start=its, span=span, tokens=len(said)))

    found = []
    for offset in oracle.offsets:
        window = canvas[offset.row :, offset.col :][:span, :span]
        mapped, beside, common = match_tokens(
            window, said, match(offset.row, seen_at.row), match(offset.col, seen_at.col)
        )
        assert common.any()
        found.append(np.square(mapped - beside)[common].mean())
    return found


def as_recorded(oracle: OracleSet, placed: Placed) -> Seen:
    """The truth."""
    return offset_in(dict(placed)), oracle.stored[placed["row"]]


def one_token_down(oracle: OracleSet, placed: Placed) -> Seen:
    """A planted error: the teacher is thought to have seen the view one token lower."""
    offset, said = as_recorded(oracle, placed)
    return Offset(row=offset.row + patches_of_a_token(oracle, said), col=offset.col), said


def one_token_right(oracle: OracleSet, placed: Placed) -> Seen:
    """A planted error: the teacher is thought to have seen the view one token to the right."""
    offset, said = as_recorded(oracle, placed)
    return Offset(row=offset.row, col=offset.col + patches_of_a_token(oracle, said)), said


def patches_of_a_token(oracle: OracleSet, said: np.ndarray) -> int:
    """Whole patches in a token of the coarser grid: windows move by no less."""
    return max(1, round(oracle.geometry.span / len(said)))


def mirrored(oracle: OracleSet, placed: Placed) -> Seen:
    """A planted error: the teacher saw the view before it was flipped."""
    return offset_in(dict(placed)), oracle.said(oracle.window(placed)[:, ::-1])


def mirrored_within_tokens(oracle: OracleSet, placed: Placed) -> Seen:
    """A planted error: tokens lie where they should, but what each says is mirrored."""
    tokens = oracle.said(oracle.window(placed)[:, ::-1])
    return offset_in(dict(placed)), tokens[:, ::-1]


def cell_beside(oracle: OracleSet, placed: Placed) -> Seen:
    """A planted error: the features are those of the next view in the same mosaic."""
    members = [one["row"] for one in oracle.mosaic(placed["mosaic"])]
    return offset_in(dict(placed)), oracle.stored[members[(members.index(placed["row"]) + 1) % len(members)]]


def mosaic_tokens(oracle: OracleSet, first: int) -> np.ndarray:
    """What the teacher says of a whole mosaic, laid out by numpy from what the placements record."""
    spec, layout = oracle.run.spec(oracle.teacher), oracle.layout
    cells, side = layout.canvas_tokens // layout.window_tokens, layout.window_tokens * spec.patch
    step = layout.canvas_tokens // cells * spec.patch
    canvas = np.zeros((spec.native, spec.native, 3))
    for placed in oracle.mosaic(first):
        row, col = placed["cell"] // cells * step, placed["cell"] % cells * step
        window = oracle.window(placed)
        canvas[row : row + side, col : col + side] = window if len(window) == side else resized(window, side)
    return oracle.said(canvas)


def cut_from_mosaic(oracle: OracleSet, placed: Placed, down: int) -> Seen:
    """The tokens of a view cut out of its mosaic, so many tokens below where they lie."""
    layout, tokens = oracle.layout, mosaic_tokens(oracle, placed["mosaic"])
    cells = layout.canvas_tokens // layout.window_tokens
    step = layout.canvas_tokens // cells
    row, col = placed["cell"] // cells * step + down, placed["cell"] % cells * step
    return offset_in(dict(placed)), tokens[row:, col:][: layout.window_tokens, : layout.window_tokens]


def cut_where_it_lies(oracle: OracleSet, placed: Placed) -> Seen:
    """The truth, worked out from the mosaic."""
    return cut_from_mosaic(oracle, placed, 0)


def cut_one_token_off(oracle: OracleSet, placed: Placed) -> Seen:
    """A planted error: the corner of the cell is one token off, to where the canvas still has tokens."""
    cells = oracle.layout.canvas_tokens // oracle.layout.window_tokens
    last = placed["cell"] // cells == cells - 1
    return cut_from_mosaic(oracle, placed, -1 if last and cells > 1 else 1)
