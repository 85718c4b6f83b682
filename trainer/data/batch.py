"""One batch of one view set: what the student sees, and what each teacher said."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from storage_schemas.format.views import ViewSet


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TeacherTargets:
    """What one teacher said of the views of a batch."""

    spatial: Float[Tensor, "batch rows cols channels"]
    """ŷ (PHI-S units), in the stored type."""
    summary: Float[Tensor, "batch summary_channels"] | None
    """y (raw teacher units); None for a teacher without a summary."""
    start: Int64[Tensor, "batch 2"]
    """Start of the teacher's window in the canvas (row, column; patches)."""

    def to(self, device: torch.device) -> "TeacherTargets":
        """Return the same on a device."""
        summary = None if self.summary is None else self.summary.to(device, non_blocking=True)
        return TeacherTargets(
            spatial=self.spatial.to(device, non_blocking=True),
            summary=summary,
            start=self.start.to(device, non_blocking=True),
        )

    def pin_memory(self) -> "TeacherTargets":
        """Return the same in memory that a GPU copies from directly; the data loader asks for it by this name."""
        summary = None if self.summary is None else self.summary.pin_memory()
        return TeacherTargets(spatial=self.spatial.pin_memory(), summary=summary, start=self.start.pin_memory())


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Look:
    """Another window of every view of a batch: what the moving average of the student sees (v4 eq 2)."""

    pixels: UInt8[Tensor, "batch 3 resolution resolution"]
    """RGB, 0 to 255."""
    start: Int64[Tensor, "batch 2"]
    """Start of the window in the canvas (row, column; patches)."""
    draws: Float[Tensor, "batch 5"]
    """As in `ViewBatch`."""

    def to(self, device: torch.device) -> "Look":
        """Return the same on a device."""
        return Look(**{name: getattr(self, name).to(device, non_blocking=True) for name in self.__slots__})

    def pin_memory(self) -> "Look":
        """Return the same in memory that a GPU copies from directly; the data loader asks for it by this name."""
        return Look(**{name: getattr(self, name).pin_memory() for name in self.__slots__})


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ViewBatch:
    """Views of one set, each in the student's own window."""

    view_set: ViewSet
    pixels: UInt8[Tensor, "batch 3 resolution resolution"]
    """RGB, 0 to 255."""
    start: Int64[Tensor, "batch 2"]
    """Start of the student's window in the canvas (row, column; patches)."""
    draws: Float[Tensor, "batch 5"]
    """Each view's own numbers, uniform in [0, 1), fresh at every meeting with the student: what it may draw at random
    in training, whatever step, worker or process the view is met in."""
    targets: Mapping[str, TeacherTargets]
    """By teacher: those that have seen the set."""
    second: Look | None = None
    """What the student's moving average sees, where it is asked."""

    def to(self, device: torch.device) -> "ViewBatch":
        """Return the same on a device."""
        return ViewBatch(
            view_set=self.view_set,
            pixels=self.pixels.to(device, non_blocking=True),
            start=self.start.to(device, non_blocking=True),
            draws=self.draws.to(device, non_blocking=True),
            targets={name: one.to(device) for name, one in self.targets.items()},
            second=None if self.second is None else self.second.to(device),
        )

    def pin_memory(self) -> "ViewBatch":
        """Return the same in memory that a GPU copies from directly; the data loader asks for it by this name."""
        return ViewBatch(
            view_set=self.view_set,
            pixels=self.pixels.pin_memory(),
            start=self.start.pin_memory(),
            draws=self.draws.pin_memory(),
            targets={name: one.pin_memory() for name, one in self.targets.items()},
            second=None if self.second is None else self.second.pin_memory(),
        )


def unit_pixels(pixels: UInt8[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 height width"]:
    """Return 8-bit pixels as float32 in [0, 1]."""
    return pixels.float() / 255
