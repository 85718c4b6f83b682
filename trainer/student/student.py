"""The student: a backbone that takes pixels in [0, 1] and gives tokens, and summaries for its teachers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from storage_schemas.format.errors import Problem, SettingError
from storage_schemas.format.seeds import Key
from trainer.settings.student import VitSettings
from trainer.student.timm_backbone import build_timm, timm_output
from trainer.student.vit.backbone import VitBackbone
from trainer.student.vit.build import build_vit, is_extended

UNTOUCHED = VitSettings()
"""RADIO's additions as they are when nobody sets them."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StudentOutput:
    """What a student says of a batch of windows."""

    spatial: Float[Tensor, "batch rows cols channels"]
    """Tokens of the last layer."""
    summaries: Float[Tensor, "batch slots summary_channels"]
    """One class token for each teacher with a summary, in the order of `Student.summarised`; of a backbone without
    such tokens, the one vector that it would hand to a classifier."""


@final
class Student(nn.Module):
    """A backbone with its normalisation inside."""

    def __init__(
        self,
        name: str,
        image_size: int | None = None,
        vit: VitSettings = UNTOUCHED,
        summarised: Sequence[str] = (),
    ) -> None:
        """Build the backbone from random weights.

        Args:
            name: a preset, a timm model, or `radio_` and a timm vision transformer; see `TrainRecipe.student`.
            image_size: side (pixels) that a timm model's position table is laid out for; None for its own.
            vit: RADIO's additions.
            summarised: names of the teachers with a summary. A student with the additions has a class token for each.

        Raises:
            SettingError: there is no such student, or a setting means nothing to it.
        """
        super().__init__()
        self.name, self.summarised = name, tuple(summarised)
        self.backbone: Any
        _require_meaning(name, image_size, vit)
        if is_extended(name):
            self.backbone, statistics = build_vit(name, vit, len(self.summarised))
        else:
            self.backbone, statistics = build_timm(name, image_size)
        self.mean: Tensor
        self.std: Tensor
        for statistic, values in zip(("mean", "std"), statistics, strict=True):
            # kept with the weights, which are of no use without it
            self.register_buffer(statistic, torch.tensor(values).reshape(1, 3, 1, 1))

    @property
    def stride(self) -> int:
        """Side of a token (pixels)."""
        extended = isinstance(self.backbone, VitBackbone)
        return self.backbone.patch if extended else self.backbone.feature_info[-1]["reduction"]

    def forward(
        self,
        pixels: Float[Tensor, "batch 3 height width"],
        *,
        window: int | None = None,
        draws: Float[Tensor, "batch draws"] | None = None,
    ) -> StudentOutput:
        """Look at windows.

        Args:
            pixels: RGB in [0, 1].
            window: side of the windows (tokens) that most blocks of a vision transformer with RADIO's additions attend
                in; None for attention everywhere.
            draws: each view's own, uniform in [0, 1): what such a student draws its positions from in training. None
                for the positions of evaluation. Other students draw nothing.

        Raises:
            SettingError: a window for a student that has none, or that does not divide the pictures.
        """
        normal = (pixels - self.mean) / self.std
        if isinstance(self.backbone, VitBackbone):
            spatial, summaries = self.backbone(normal, window=window, draws=draws)
            return StudentOutput(spatial=spatial, summaries=summaries)
        if window is not None:
            fix = "only vision transformers with RADIO's additions attend in windows of any size"
            raise SettingError("window", [Problem(place=self.name, found=f"has no windows of {window}", fix=fix)])
        spatial, summary = timm_output(self.backbone, normal)
        return StudentOutput(spatial=spatial, summaries=summary[:, None])

    def summary_slot(self, teacher: str) -> int:
        """Return which of the summaries belongs to a teacher."""
        return self.summarised.index(teacher) if isinstance(self.backbone, VitBackbone) else 0

    def draw_window(self, resolution: int, key: Key) -> int | None:
        """Draw the windows (tokens) of one training step at a resolution (pixels); None: attention everywhere.

        Args:
            resolution: of the views.
            key: seed, step and view set, so that all processes of a run draw alike, and a resumed one again.
        """
        extended = isinstance(self.backbone, VitBackbone)
        return self.backbone.draw_window(resolution, key) if extended else None


def _require_meaning(student: str, image_size: int | None, vit: VitSettings) -> None:
    if is_extended(student) and image_size is not None:
        found, fix = f"{student} has a grid of positions for every size", "drop it, or set vit.position_grid"
        raise SettingError("student", [Problem(place="image_size", found=found, fix=fix)])
    if not is_extended(student) and vit != UNTOUCHED:
        set_here = [name for name in vit.__slots__ if getattr(vit, name) != getattr(UNTOUCHED, name)]
        found = f"means nothing to {student}, which is as timm builds it"
        fix = f"leave it as it is, or take a preset or radio_{student}"
        raise SettingError("student", [Problem(place=f"vit.{name}", found=found, fix=fix) for name in set_here])
