"""The student: a backbone that maps pixels in [0, 1] to tokens, and to summaries for its teachers."""

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
from trainer.student.vit.build import build_vit
from trainer.student.vit.names import is_extended

DEFAULT_VIT = VitSettings()
"""The default settings of RADIO's additions."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StudentOutput:
    """A student's output for a batch of windows."""

    spatial: Float[Tensor, "batch rows cols channels"]
    """Tokens of the last layer."""
    summaries: Float[Tensor, "batch slots summary_channels"]
    """One class token for each teacher with a summary, in the order of `Student.summarised`. A backbone as timm builds
    it has a single summary: the vector that it would give to a classifier."""


@final
class Student(nn.Module):
    """A backbone with its pixel normalisation inside."""

    def __init__(
        self,
        name: str,
        image_size: int | None = None,
        vit: VitSettings = DEFAULT_VIT,
        summarised: Sequence[str] = (),
    ) -> None:
        """Build the backbone from random weights.

        Args:
            name: a preset, a timm model, or `radio_` and a timm vision transformer; see `TrainRecipe.student`.
            image_size: image side (pixels) that a timm model's position table is made for; None for timm's default.
            vit: settings of RADIO's additions.
            summarised: names of the teachers with a summary. A student with the additions has a class token for each.

        Raises:
            SettingError: there is no such student, or it does not have one of the settings.
        """
        super().__init__()
        self.name, self.image_size, self.summarised = name, image_size, tuple(summarised)
        self.backbone: Any
        _require_its_settings(name, image_size, vit)
        if is_extended(name):
            self.backbone, statistics = build_vit(name, vit, len(self.summarised))
        else:
            self.backbone, statistics = build_timm(name, image_size)
        self.mean: Tensor
        self.std: Tensor
        for statistic, values in zip(("mean", "std"), statistics, strict=True):
            # stored with the weights, which are useless without it
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
        uniforms: Float[Tensor, "batch uniforms"] | None = None,
    ) -> StudentOutput:
        """Return the tokens and summaries of images.

        Args:
            pixels: RGB in [0, 1].
            window: side of the windows (tokens) in which most blocks attend; None for global attention. Only vision
                transformers with RADIO's additions have windows.
            uniforms: numbers from [0, 1) for each view, as in `ViewBatch`: such a student draws its positions from them
                in training. None for the positions of evaluation. Other students ignore them.

        Raises:
            SettingError: a window for a student that has none, or one that does not divide the token grid.
        """
        normal = (pixels - self.mean) / self.std
        if isinstance(self.backbone, VitBackbone):
            spatial, summaries = self.backbone(normal, window=window, uniforms=uniforms)
            return StudentOutput(spatial=spatial, summaries=summaries)
        if window is not None:
            fix = "only vision transformers with RADIO's additions have windows"
            found = f"cannot attend in windows of {window} tokens"
            raise SettingError("window", [Problem(place=self.name, found=found, fix=fix)])
        spatial, summary = timm_output(self.backbone, normal)
        return StudentOutput(spatial=spatial, summaries=summary[:, None])

    def summary_slot(self, teacher: str) -> int:
        """Return the index of a teacher's summary."""
        return self.summarised.index(teacher) if isinstance(self.backbone, VitBackbone) else 0

    def draw_window(self, resolution: int, key: Key) -> int | None:
        """Draw the attention window (tokens) of one training step; None is global attention.

        Args:
            resolution: side of the views (pixels).
            key: seed, step and view set, so that all processes of a run, and a resumed run, draw the same window.
        """
        extended = isinstance(self.backbone, VitBackbone)
        return self.backbone.draw_window(resolution, key) if extended else None


def _require_its_settings(student: str, image_size: int | None, vit: VitSettings) -> None:
    if is_extended(student) and image_size is not None:
        found, fix = f"{student} has a position grid for all sizes", "drop image_size, or set vit.position_grid"
        raise SettingError("student", [Problem(place="image_size", found=found, fix=fix)])
    if not is_extended(student) and vit != DEFAULT_VIT:
        changed = [name for name in vit.__slots__ if getattr(vit, name) != getattr(DEFAULT_VIT, name)]
        found = f"has no effect on {student}, which is as timm builds it"
        fix = f"leave it at its default, or choose a preset or radio_{student}"
        raise SettingError("student", [Problem(place=f"vit.{name}", found=found, fix=fix) for name in changed])
