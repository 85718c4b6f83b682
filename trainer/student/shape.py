"""The sizes of a student's outputs at every resolution of a run, and what it cannot do there."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import final

import torch

from storage_schemas.format.errors import Problem, SettingError
from trainer.student.student import Student, StudentOutput
from trainer.student.vit.backbone import VitBackbone
from trainer.student.vit.windows import fitting


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StudentShape:
    """Sizes of a student's outputs."""

    channels: int
    """Channels of a token."""
    summary_channels: int
    """Channels of a summary."""
    tokens: Mapping[int, int]
    """Tokens along one side of a window, for each resolution (pixels)."""


def measure_student(student: Student, resolutions: Iterable[int]) -> StudentShape:
    """Return the sizes of a student's outputs, and refuse one that cannot see every window of the run.

    A backbone of timm's is shown a black window of each resolution; a vision transformer with RADIO's additions is
    known without.

    Args:
        student: the student, whose mode is left as it was.
        resolutions: sides of the windows of the run (pixels).

    Raises:
        SettingError: a resolution does not divide into its tokens, its backbone does not take it, or attention windows
            are named that divide no resolution.
    """
    sizes = sorted(set(resolutions))
    problems = list(_undivided(student, sizes))
    if problems:
        raise _refusal(problems)
    tokens = {size: size // student.stride for size in sizes}
    if isinstance(student.backbone, VitBackbone):
        _require_fitting(student.backbone, tokens)
        channels = student.backbone.channels
        return StudentShape(channels=channels, summary_channels=channels, tokens=tokens)
    return _look_at_all(student, tokens)


def _undivided(student: Student, sizes: Iterable[int]) -> Iterator[Problem]:
    stride = student.stride
    for size in sizes:
        if size % stride:
            found = f"its tokens are {stride} px wide, and {size} is not a multiple of {stride}"
            yield Problem(place=f"{student.name} at {size} px", found=found)


def _require_fitting(backbone: VitBackbone, tokens: Mapping[int, int]) -> None:
    idle = [
        window
        for window in backbone.settings.windows
        if not any(fitting([window], along_a_side) for along_a_side in tokens.values())
    ]
    if idle:
        grids = ", ".join(f"{count} ({size} px)" for size, count in tokens.items())
        fix = f"leave it out of vit.windows; the tokens along a side are {grids}"
        found = "divides no resolution of this run into more than one window"
        problems = [Problem(place=f"window of {window} tokens", found=found, fix=fix) for window in idle]
        raise SettingError("vit.windows", problems)


def _look_at_all(student: Student, tokens: Mapping[int, int]) -> StudentShape:
    training = student.training
    student.eval()
    looks = {size: _look(student, size, along_a_side) for size, along_a_side in tokens.items()}
    student.train(training)
    outputs = [look for look in looks.values() if isinstance(look, StudentOutput)]
    if len(outputs) < len(looks):
        raise _refusal(
            [
                Problem(place=f"{student.name} at {size} px", found=look)
                for size, look in looks.items()
                if isinstance(look, str)
            ]
        )
    channels, summary_channels = outputs[0].spatial.shape[3], outputs[0].summaries.shape[2]
    return StudentShape(channels=channels, summary_channels=summary_channels, tokens=tokens)


def _look(student: Student, size: int, tokens: int) -> StudentOutput | str:
    """Return the student's output on one window, or why there is none."""
    try:
        with torch.no_grad():
            output = student(torch.zeros(1, 3, size, size))
    except Exception as error:  # what a backbone raises at a size it cannot take is its own affair
        return f"the backbone does not take this size: {type(error).__name__}: {error}"
    rows, cols = output.spatial.shape[1:3]
    if (rows, cols) != (tokens, tokens) or output.summaries.ndim != 3:
        return f"gives {rows} × {cols} tokens and a summary of shape {tuple(output.summaries.shape)}"
    return output


def _refusal(problems: list[Problem]) -> SettingError:
    fix = "choose another student, or leave these view sets out with data.proportions"
    return SettingError("student", [*problems, Problem(place="what to do", found=fix)])
