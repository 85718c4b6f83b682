"""The sizes of a student's outputs at every resolution of a run; refuses resolutions that it does not support."""

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
    """Return the sizes of a student's outputs; refuse a student that does not support every resolution of the run.

    A timm backbone is run on a black window of each resolution. The sizes of a vision transformer with RADIO's
    additions are known without running it.

    Args:
        student: the student; its training mode does not change.
        resolutions: sides of the windows of the run (pixels).

    Raises:
        SettingError: a resolution is not a multiple of the student's tokens, its backbone rejects it, or an attention
            window fits no resolution.
    """
    sizes = sorted(set(resolutions))
    problems = list(_not_multiples(student, sizes))
    if problems:
        raise _refusal(problems)
    tokens = {size: size // student.stride for size in sizes}
    if isinstance(student.backbone, VitBackbone):
        _require_fitting(student.backbone, tokens)
        channels = student.backbone.channels
        return StudentShape(channels=channels, summary_channels=channels, tokens=tokens)
    return _shape_of_outputs(student, tokens)


def _not_multiples(student: Student, sizes: Iterable[int]) -> Iterator[Problem]:
    stride = student.stride
    for size in sizes:
        if size % stride:
            found = f"{size} is not a multiple of {stride}, the side of its tokens (px)"
            yield Problem(place=f"{student.name} at {size} px", found=found)


def _require_fitting(backbone: VitBackbone, tokens: Mapping[int, int]) -> None:
    useless = [
        window
        for window in backbone.settings.windows
        if not any(fitting([window], tokens_per_side) for tokens_per_side in tokens.values())
    ]
    if useless:
        grids = ", ".join(f"{count} ({size} px)" for size, count in tokens.items())
        fix = f"leave it out of vit.windows; the tokens along a side are {grids}"
        found = "does not divide the tokens of any resolution of this run into several windows"
        problems = [Problem(place=f"window of {window} tokens", found=found, fix=fix) for window in useless]
        raise SettingError("vit.windows", problems)


def _shape_of_outputs(student: Student, tokens: Mapping[int, int]) -> StudentShape:
    training = student.training
    student.eval()
    results = {size: _output(student, size, tokens_per_side) for size, tokens_per_side in tokens.items()}
    student.train(training)
    outputs = [result for result in results.values() if isinstance(result, StudentOutput)]
    if len(outputs) < len(results):
        raise _refusal(
            [
                Problem(place=f"{student.name} at {size} px", found=result)
                for size, result in results.items()
                if isinstance(result, str)
            ],
            # a family without resampled position tables can be built for one size only
            "for a run of one resolution, set image_size to it; else " if student.image_size is None else "",
        )
    channels, summary_channels = outputs[0].spatial.shape[3], outputs[0].summaries.shape[2]
    return StudentShape(channels=channels, summary_channels=summary_channels, tokens=tokens)


def _output(student: Student, size: int, tokens: int) -> StudentOutput | str:
    """Return the student's output for one window, or a text that says why there is none."""
    try:
        with torch.no_grad():
            output = student(torch.zeros(1, 3, size, size))
    except Exception as error:  # each backbone has its own way to reject a size
        first_line = next(iter(str(error).splitlines()), "")
        return f"the backbone does not support this size: {type(error).__name__}: {first_line}"
    rows, cols = output.spatial.shape[1:3]
    if (rows, cols) != (tokens, tokens):
        return (
            f"the output has {rows} × {cols} tokens instead of {tokens} × {tokens}, one for every {student.stride} px"
        )
    if output.summaries.ndim != 3:
        return f"the summary has the shape {tuple(output.summaries.shape)}, not one vector for each image"
    return output


def _refusal(problems: list[Problem], first: str = "") -> SettingError:
    fix = f"{first}choose another student, or leave these view sets out with data.proportions"
    return SettingError("student", [*problems, Problem(place="what to do", found=fix)])
