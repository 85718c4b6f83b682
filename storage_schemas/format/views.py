"""Views: the names of view sets, the splits, and the draws that place a window in a view."""

import math
import re
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, final, get_args

import numpy as np

from storage_schemas.format.errors import ContractError, Problem
from storage_schemas.format.geometry import CanvasGeometry, Offset
from storage_schemas.format.mosaic import MosaicLayout
from storage_schemas.format.seeds import Key, uniforms
from storage_schemas.format.teacher import TeacherSpec

Partition = Literal["low", "high"]
Split = Literal["train", "heldout"]
ShiftDistribution = Literal["uniform", "rounded-normal"]
_NAME = re.compile(f"({'|'.join(get_args(Partition))})-([1-9][0-9]{{0,5}})")


@final
@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class ViewSet:
    """All views of one resolution in one partition. Row i of every array in a set is the same view."""

    partition: Partition
    resolution: int
    """Side of the window (pixels)."""

    @property
    def name(self) -> str:
        """The set's name in the cache, such as `low-256`."""
        return f"{self.partition}-{self.resolution}"

    @classmethod
    def parse(cls, name: str) -> "ViewSet":
        """Read a set's name back; anything else is refused."""
        parts = _NAME.fullmatch(name)
        if parts is None:
            raise ContractError("view set", [Problem(place=name, found="is no name such as low-256 or high-1152")])
        return cls(partition=parts[1], resolution=int(parts[2]))  # type: ignore[arg-type]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Shifts:
    """How windows lie about the margin."""

    distribution: ShiftDistribution = "uniform"
    """`uniform`: every offset alike. `rounded-normal`: whole patches about the middle of the margin, as the nearest
    offset to a normal draw; what would leave the margin stays at its edge."""
    sd: float = 0.5
    """Standard deviation of the normal draw (patches); nothing to `uniform`."""

    def __post_init__(self) -> None:
        if self.distribution not in get_args(ShiftDistribution):
            known = " or ".join(get_args(ShiftDistribution))
            problem = Problem(place="distribution", found=f"{self.distribution!r} is not known", fix=known)
            raise ContractError("shifts", [problem])
        if not 0 < self.sd < math.inf:
            raise ContractError("shifts", [Problem(place="sd", found=f"{self.sd} patches is no positive width")])


UNIFORM = Shifts()
"""Every offset alike."""


def draw_offset(geometry: CanvasGeometry, shifts: Shifts, key: Key) -> Offset:
    """Draw where a window starts, each axis on its own.

    With m the margin and z from a normal distribution of mean 0 and the given deviation, a rounded normal offset is
    m/2 + z rounded and clipped to 0 … m: for an even m the middle, moved by whole patches.

    Source: v4 section 2.3 gives no distribution; the public trainer moves a teacher by a normal draw of 0.5 patches,
    rounded, about a crop that it shares with the student.

    Args:
        geometry: the canvas; offsets are 0 … margin (patches) along each axis.
        shifts: their distribution.
        key: `(recipe seed, image key, draw, "offset", participant)`, so that every teacher has its own.
    """
    drawn = uniforms(key, 2)
    if shifts.distribution == "uniform":
        row, col = np.floor(drawn * (geometry.margin + 1)).astype(int).tolist()
    else:
        row, col = np.searchsorted(_normal_edges(geometry.margin, shifts.sd), drawn, side="right").tolist()
    return Offset(row=row, col=col)


def teacher_tokens(spec: TeacherSpec, view_set: ViewSet, geometry: CanvasGeometry) -> int:
    """Return the tokens along one side of a window as the teacher's features have it.

    Raises:
        ContractError: the teacher cannot see a window of this resolution in whole tokens.
    """
    if spec.size_rule == "fixed":
        return spec.native_tokens * tiles_along(spec, view_set)
    if spec.size_rule == "canvas":
        return MosaicLayout(canvas_tokens=spec.native_tokens, window_tokens=geometry.span).window_tokens
    if geometry.resolution % spec.patch:
        found = f"{geometry.resolution} px is not a multiple of the patch of {spec.name}, {spec.patch} px"
        raise ContractError(f"teacher {spec.name}", [Problem(place="resolution", found=found)])
    return geometry.resolution // spec.patch


def tiles_along(spec: TeacherSpec, view_set: ViewSet) -> int:
    """Return how many times its native tokens a fixed teacher has along one side of a window.

    That is more than 1 in the high partition only.
    """
    return spec.tiles if view_set.partition == "high" else 1


def detail_side(spec: TeacherSpec, view_set: ViewSet) -> int:
    """Return the side of a fixed teacher's detail (pixels): its native side, times the tiles along a side.

    The upsampler `bilinear` has no tiles.
    """
    return spec.native * (1 if spec.upsampler == "bilinear" else tiles_along(spec, view_set))


def _normal_edges(margin: int, sd: float) -> np.ndarray:
    """Chance that a rounded normal offset is 0, at most 1, … at most margin − 1: half-way points are its edges."""
    normal = NormalDist(mu=margin / 2, sigma=sd)
    return np.array([normal.cdf(offset + 0.5) for offset in range(margin)])
