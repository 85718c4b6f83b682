"""One batch of one view set: the student's input, and every teacher's stored features."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int64, Shaped, UInt8
from torch import Tensor

from storage_schemas.format.errors import Problem, SettingError
from storage_schemas.format.views import ViewSet

Change = Callable[[Tensor], Tensor]
"""A function that is applied to every tensor of a batch."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TeacherTargets:
    """One teacher's features of the views of a batch."""

    spatial: Shaped[Tensor, "batch rows cols stored"]
    """ŷ, as it is stored: floats in PHI-S units, or integers of which the token maps make numbers on their device."""
    summary: Float[Tensor, "batch summary_channels"] | None
    """y (raw teacher units); None for a teacher without a summary."""
    start: Int64[Tensor, "batch 2"]
    """Start of the teacher's window in the canvas (row, column; patches)."""

    def changed(self, change: Change) -> "TeacherTargets":
        """Apply a function to every tensor."""
        summary = None if self.summary is None else change(self.summary)
        return TeacherTargets(spatial=change(self.spatial), summary=summary, start=change(self.start))


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SecondView:
    """A second window of every view of a batch: the input of the student's moving average (v4 eq 2)."""

    pixels: UInt8[Tensor, "batch 3 resolution resolution"]
    """RGB, 0 to 255."""
    start: Int64[Tensor, "batch 2"]
    """Start of the window in the canvas (row, column; patches)."""
    uniforms: Float[Tensor, "batch 5"]
    """As in `ViewBatch`."""

    def changed(self, change: Change) -> "SecondView":
        """Apply a function to every tensor."""
        return SecondView(pixels=change(self.pixels), start=change(self.start), uniforms=change(self.uniforms))


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ViewBatch:
    """Views of one set, each cut to the student's window."""

    view_set: ViewSet
    pixels: UInt8[Tensor, "batch 3 resolution resolution"]
    """RGB, 0 to 255."""
    start: Int64[Tensor, "batch 2"]
    """Start of the student's window in the canvas (row, column; patches)."""
    uniforms: Float[Tensor, "batch 5"]
    """Five numbers from [0, 1) for each view, drawn again each time the view is used. Per-view augmentation in training
    uses only these, so it does not depend on the step, the worker or the process."""
    targets: Mapping[str, TeacherTargets]
    """By teacher: those that have features of this view set."""
    second: SecondView | None = None
    """The second window; None where the run has no MESA."""

    def changed(self, change: Change) -> "ViewBatch":
        """Apply a function to every tensor."""
        return ViewBatch(
            view_set=self.view_set,
            pixels=change(self.pixels),
            start=change(self.start),
            uniforms=change(self.uniforms),
            targets={name: target.changed(change) for name, target in self.targets.items()},
            second=None if self.second is None else self.second.changed(change),
        )

    def to(self, device: torch.device) -> "ViewBatch":
        """Return the same batch on a device."""
        return self.changed(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "ViewBatch":
        """Return the same batch in page-locked memory. PyTorch's data loader calls this method by its name."""
        return self.changed(lambda tensor: tensor.pin_memory())


def collate_views(batches: Sequence[ViewBatch]) -> ViewBatch:
    """Join batches along the batch axis: the `collate_fn` of a `ViewDataset`.

    Args:
        batches: at least one, all of the same view set and without second windows.

    Raises:
        SettingError: they are of different view sets.
    """
    first = batches[0]
    if len(batches) == 1:
        return first
    if len(names := sorted({batch.view_set.name for batch in batches})) > 1:
        fix = "make one data loader for each view set"
        raise SettingError("batch", [Problem(place=", ".join(names), found="cannot be one batch", fix=fix)])
    return ViewBatch(
        view_set=first.view_set,
        pixels=torch.cat([batch.pixels for batch in batches]),
        start=torch.cat([batch.start for batch in batches]),
        uniforms=torch.cat([batch.uniforms for batch in batches]),
        targets={name: _joined([batch.targets[name] for batch in batches]) for name in first.targets},
    )


def unit_pixels(pixels: UInt8[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 height width"]:
    """Return 8-bit pixels as float32 in [0, 1]."""
    return pixels.float() / 255


def _joined(targets: Sequence[TeacherTargets]) -> TeacherTargets:
    summaries = [target.summary for target in targets if target.summary is not None]
    return TeacherTargets(
        spatial=torch.cat([target.spatial for target in targets]),
        summary=torch.cat(summaries) if summaries else None,
        start=torch.cat([target.start for target in targets]),
    )
