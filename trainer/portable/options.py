"""The command line of `export`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

import tyro

from storage_schemas.format.errors import Problem, SettingError

Format = Literal["timm", "torch", "onnx"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """Write a finished student in another library's format, checked against the student itself."""

    student: Path = Path()
    """Folder of a finished run: what `trainer.load` reads."""
    format: Format = "torch"
    """`torch`: a program of torch.export (student.pt2); `onnx`: an ONNX graph (student.onnx); `timm`: the weights of a
    backbone that is as timm builds it (backbone.safetensors), for timm.create_model(…, checkpoint_path=…)."""
    height: int | None = None
    """Height of the pictures that the program is made for (pixels); none, and then no width either: any size of at
    least two tokens a side, or two attention windows. How many at once is free in any case."""
    width: int | None = None
    """Width of the pictures that the program is made for (pixels)."""
    window: int | None = None
    """Side of the attention windows (tokens) of the program; none: attention everywhere."""
    to: Path | None = None
    """Folder that the file is written to; none: the student's own."""


def export_options(arguments: Sequence[str]) -> ExportOptions:
    """Read the command line of `export`. A wrong one ends the process with status 2 and says why.

    Raises:
        SettingError: no student is named.
    """
    options = tyro.cli(ExportOptions, prog="python -m trainer export", args=list(arguments))
    if options.student == Path():
        fix = "--student runs/…, the folder of a finished run"
        raise SettingError("student", [Problem(place="--student", found="is not given", fix=fix)])
    return options
