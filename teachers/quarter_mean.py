"""A teacher whose features can be checked by eye: the mean colour of each quarter of a patch.

It has twelve channels, because an exact Hadamard matrix exists for 12 and not for 3. It takes quarters, because the
mean of a whole patch would not show a flip. It has no parameters and adds no noise: a student that computes the same
function has a loss of zero.
"""

from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from storage_schemas.format.teacher import Precision, SizeRule, TeacherSpec
from teachers.base import AbstractTeacher
from teachers.output import TeacherOutput


def _spec(name: str, *, patch: int, native: int, size_rule: SizeRule) -> TeacherSpec:
    return TeacherSpec(
        name=name,
        model="quarter_mean",
        dim=12,
        summary_dim=None if size_rule == "canvas" else 12,
        patch=patch,
        size_rule=size_rule,
        native=native,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        licence="Apache-2.0",
    )


def quarter_means(
    images: Float[Tensor, "batch 3 height width"], patch: int
) -> Float[Tensor, "batch rows cols channels"]:
    """Return the mean colour of each quarter of each patch.

    Args:
        images: sides that are multiples of `patch`.
        patch: side (pixels), even.

    Returns:
        `[batch, rows, cols, 12]`: top left, top right, bottom left, bottom right, each red, green, blue.
    """
    half = patch // 2
    quarters = nn.functional.avg_pool2d(images, half).unflatten(3, (-1, 2)).unflatten(2, (-1, 2))
    # batch, colour, rows, down, cols, across -> batch, rows, cols, down, across, colour
    return quarters.permute(0, 2, 4, 3, 5, 1).flatten(3)


class AbstractQuarterMean(AbstractTeacher):
    """The computation. Subclasses declare which sizes they accept."""

    def __init__(self, *, spec: TeacherSpec, device: str, precision: Precision) -> None:
        """Build a teacher without weights."""
        super().__init__(spec=spec, network=nn.Identity(), device=device, precision=precision)

    def features(self, images: Float[Tensor, "batch 3 height width"]) -> TeacherOutput:
        """Return the means of quarters; the summary, where the spec has one, is their mean over all patches."""
        spatial = quarter_means(images, self.spec.patch)
        summary = None if self.spec.summary_dim is None else spatial.mean(dim=(1, 2))
        return TeacherOutput(summary=summary, spatial=spatial)


@final
class QuarterMean(AbstractQuarterMean):
    """Accepts any size; patch 16."""

    declared = _spec("quarter-mean", patch=16, native=256, size_rule="any")


@final
class QuarterMeanFixed(AbstractQuarterMean):
    """Accepts 192 px only; patch 16: 12 × 12 tokens."""

    declared = _spec("quarter-mean-fixed", patch=16, native=192, size_rule="fixed")


@final
class QuarterMeanCanvas(AbstractQuarterMean):
    """Accepts a canvas of 336 px only; patch 14: 24 × 24 tokens; no summary."""

    declared = _spec("quarter-mean-canvas", patch=14, native=336, size_rule="canvas")
