"""Views: the names of view sets, the splits, and the draws that place a teacher's window in a view."""

import re
from dataclasses import dataclass
from typing import Literal, final, get_args

import numpy as np

from storage_schemas.errors import ContractError, Problem
from storage_schemas.geometry import CanvasGeometry, Offset
from storage_schemas.mosaic import MosaicLayout
from storage_schemas.seeds import Key, uniforms
from storage_schemas.teacher import TeacherSpec

Partition = Literal["low", "high"]
Split = Literal["train", "heldout"]
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


def draw_offset(geometry: CanvasGeometry, key: Key) -> Offset:
    """Draw where a window starts, uniformly over the margin, each axis on its own.

    Args:
        geometry: the canvas; offsets are 0 … margin (patches) along each axis.
        key: `(recipe seed, image key, draw, "offset", participant)`, so that every teacher has its own.
    """
    row, col = np.floor(uniforms(key, 2) * (geometry.margin + 1)).astype(int).tolist()
    return Offset(row=row, col=col)


def teacher_tokens(spec: TeacherSpec, geometry: CanvasGeometry) -> int:
    """Return the tokens along one side of a window as the teacher sees it.

    Raises:
        ContractError: the teacher cannot see a window of this resolution in whole tokens.
    """
    if spec.size_rule == "fixed":
        return spec.native_tokens
    if spec.size_rule == "canvas":
        return MosaicLayout(canvas_tokens=spec.native_tokens, window_tokens=geometry.span).window_tokens
    if geometry.resolution % spec.patch:
        found = f"{geometry.resolution} px is not a multiple of the patch of {spec.name}, {spec.patch} px"
        raise ContractError(f"teacher {spec.name}", [Problem(place="resolution", found=found)])
    return geometry.resolution // spec.patch
