"""The student: any timm backbone, from random weights, that takes pixels in [0, 1] and gives tokens and a summary."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, final

import timm
import torch
from jaxtyping import Float
from torch import Tensor, nn

from storage_schemas.errors import Problem, SettingError


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StudentOutput:
    """What a student says of a batch of windows."""

    spatial: Float[Tensor, "batch rows cols channels"]
    """Tokens of the last layer."""
    summary: Float[Tensor, "batch summary_channels"]
    """What the backbone would hand to a classifier."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StudentShape:
    """Sizes of a student's outputs."""

    channels: int
    """Channels of a token."""
    summary_channels: int
    """Channels of the summary."""
    tokens: Mapping[int, int]
    """Tokens along one side of a window, for each resolution (pixels)."""


@final
class Student(nn.Module):
    """A timm backbone with its own normalisation inside."""

    def __init__(self, name: str, image_size: int | None = None) -> None:
        """Build the backbone from random weights.

        Args:
            name: a timm model.
            image_size: side (pixels) its position table is laid out for; None for the backbone's own.

        Raises:
            SettingError: timm has no such model, or it takes no image size.
        """
        super().__init__()
        self.backbone = _create(name, image_size)
        self.mean: Tensor
        self.std: Tensor
        for statistic in ("mean", "std"):
            values = torch.tensor(self.backbone.pretrained_cfg[statistic]).reshape(1, 3, 1, 1)
            self.register_buffer(statistic, values)  # kept with the weights, which are of no use without it

    def forward(self, pixels: Float[Tensor, "batch 3 height width"]) -> StudentOutput:
        """Look at windows.

        Args:
            pixels: RGB in [0, 1].
        """
        last, [spatial] = self.backbone.forward_intermediates(
            (pixels - self.mean) / self.std, indices=1, norm=True, output_fmt="NCHW"
        )
        summary = self.backbone.forward_head(last, pre_logits=True)
        return StudentOutput(spatial=spatial.permute(0, 2, 3, 1), summary=summary)


def measure_student(student: Student, name: str, resolutions: Iterable[int]) -> StudentShape:
    """Look at one black window of each resolution, and refuse a student that cannot.

    Args:
        student: the student, whose mode is left as it was.
        name: its timm name, for the error.
        resolutions: sides of the windows of the run (pixels).

    Raises:
        SettingError: a resolution does not divide into its patches, or its backbone does not take it.
    """
    training = student.training
    student.eval()
    measured = {resolution: _look(student, resolution) for resolution in sorted(set(resolutions))}
    student.train(training)
    problems = [
        Problem(place=f"{name} at {resolution} px", found=found)
        for resolution, found in measured.items()
        if isinstance(found, str)
    ]
    if problems:
        fix = "choose another student, or leave these view sets out with data.proportions"
        raise SettingError("student", [*problems, Problem(place="what to do", found=fix)])
    outputs = {size: output for size, output in measured.items() if isinstance(output, StudentOutput)}
    any_output = next(iter(outputs.values()))
    return StudentShape(
        channels=any_output.spatial.shape[3],
        summary_channels=any_output.summary.shape[1],
        tokens={resolution: output.spatial.shape[1] for resolution, output in outputs.items()},
    )


def _look(student: Student, resolution: int) -> StudentOutput | str:
    """Return the student's output on one window, or why there is none."""
    stride = student.backbone.feature_info[-1]["reduction"]
    if resolution % stride:
        return f"its tokens are {stride} px wide, and {resolution} is not a multiple of {stride}"
    try:
        with torch.no_grad():
            output = student(torch.zeros(1, 3, resolution, resolution))
    except Exception as error:  # what a backbone raises at a size it cannot take is its own affair
        return f"the backbone does not take this size: {type(error).__name__}: {error}"
    rows, cols = output.spatial.shape[1:3]
    if (rows, cols) != (resolution // stride, resolution // stride) or output.summary.ndim != 2:
        return f"gives {rows} × {cols} tokens and a summary of shape {tuple(output.summary.shape)}"
    return output


def _create(name: str, image_size: int | None) -> Any:
    if not timm.is_model(name):
        near = difflib.get_close_matches(name.partition(".")[0], timm.list_models(), n=3, cutoff=0.5)
        fix = f"nearest: {', '.join(near)}" if near else "`timm.list_models()` lists them"
        raise SettingError("student", [Problem(place=name, found="is no timm model", fix=fix)])
    sized = {} if image_size is None else {"img_size": image_size}
    try:
        # position tables are resampled to each window: a ViT's setting, which other families do not know
        return _build(name, dynamic_img_size=True, **sized)
    except TypeError as error:
        if "dynamic_img_size" not in str(error):
            raise _takes_no(name, error) from error
    try:
        return _build(name, **sized)
    except TypeError as error:
        raise _takes_no(name, error) from error


def _build(name: str, **settings: Any) -> Any:
    return timm.create_model(name, pretrained=False, num_classes=0, **settings)


def _takes_no(name: str, error: TypeError) -> SettingError:
    return SettingError("student", [Problem(place=name, found=f"cannot be built: {error}", fix="drop image_size")])
