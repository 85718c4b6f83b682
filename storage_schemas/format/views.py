"""Views: names of view sets, splits, and the random offsets of windows."""

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
    """`low` or `high`."""
    resolution: int
    """Side of the window (pixels)."""

    @property
    def name(self) -> str:
        """The set's name in the cache, such as `low-256`."""
        return f"{self.partition}-{self.resolution}"

    @classmethod
    def parse(cls, name: str) -> "ViewSet":
        """Read the name of a view set.

        Raises:
            ContractError: it is not such a name.
        """
        parts = _NAME.fullmatch(name)
        if parts is None:
            raise ContractError("view set", [Problem(place=name, found="is not a name such as low-256 or high-1152")])
        return cls(partition=parts[1], resolution=int(parts[2]))  # type: ignore[arg-type]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Shifts:
    """How the offsets of windows are distributed over the margin."""

    distribution: ShiftDistribution = "uniform"
    """`uniform`: every offset is equally likely. `rounded-normal`: a normal draw about the middle of the margin,
    rounded to whole patches and clipped to the margin."""
    sd: float = 0.5
    """Standard deviation of the normal draw (patches). `uniform` does not use it."""

    def __post_init__(self) -> None:
        if self.distribution not in get_args(ShiftDistribution):
            known = " or ".join(get_args(ShiftDistribution))
            problem = Problem(place="distribution", found=f"{self.distribution!r} is not known", fix=known)
            raise ContractError("shifts", [problem])
        if not 0 < self.sd < math.inf:
            raise ContractError("shifts", [Problem(place="sd", found=f"{self.sd} patches is not a positive width")])


UNIFORM = Shifts()
"""Every offset is equally likely."""


def draw_offset(geometry: CanvasGeometry, shifts: Shifts, key: Key) -> Offset:
    """Draw where a window starts, along each axis independently.

    With m the margin and z normal with mean 0 and the given deviation, a rounded-normal offset is m/2 + z, rounded and
    clipped to 0 … m. For an even m it is the middle, moved by whole patches.

    Source: v4 section 2.3 shifts windows by whole patches; its author gives the distribution in NVlabs/RADIO#181
    (2026-05-20): patch × N(0, 0.5), rounded, for the student and the teachers alike. There a shift has no bound; here
    draws beyond the margin are clipped to its edge, which at a margin of 2 are 3 in 1,000 along each axis.

    Args:
        geometry: the canvas.
        shifts: distribution of the offsets.
        key: for a teacher `(recipe seed, image key, draw, "offset", teacher)`, so that each has its own offset.

    Returns:
        The offset: 0 to margin along each axis (patches).
    """
    drawn = uniforms(key, 2)
    if shifts.distribution == "uniform":
        row, col = np.floor(drawn * (geometry.margin + 1)).astype(int).tolist()
    else:
        row, col = np.searchsorted(_normal_edges(geometry.margin, shifts.sd), drawn, side="right").tolist()
    return Offset(row=row, col=col)


def teacher_tokens(spec: TeacherSpec, view_set: ViewSet, geometry: CanvasGeometry) -> int:
    """Return how many tokens a teacher's features have along one side of a window.

    Args:
        spec: the teacher.
        view_set: the view set.
        geometry: its canvas.

    Raises:
        ContractError: a window of this resolution is not a whole number of the teacher's tokens.
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
    """Return the probabilities that a rounded normal offset is at most 0, at most 1, … at most margin − 1."""
    normal = NormalDist(mu=margin / 2, sigma=sd)
    return np.array([normal.cdf(offset + 0.5) for offset in range(margin)])
