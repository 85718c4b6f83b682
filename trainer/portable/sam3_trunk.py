"""The format `sam3`: a student's head for SAM3, as a program in the place of SAM3's image trunk."""

import json
from pathlib import Path
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from storage_schemas.format.errors import Problem, SettingError
from trainer.export import ExportedStudent
from trainer.portable import sam3_adapters
from trainer.portable.outputs import difference, largest, traced
from trainer.portable.portable_format import ExportTask
from trainer.portable.positions import with_computed_positions

TEACHER = "sam3"
"""The teacher whose head it is."""
TOKENS = 72
"""Rows and columns of tokens of SAM3 itself: 1008 px in patches of 14. A student with patches of 16 takes 1152 px."""


@final
class Sam3Tokens(nn.Module):
    """A student's head for SAM3 on SAM3's own images: RGB in [-1, 1], where the student takes [0, 1]."""

    def __init__(self, student: ExportedStudent, window: int | None = None) -> None:
        """Take the head from a student.

        Args:
            student: a student of a teacher named `sam3`.
            window: side of the windows (tokens) in which most blocks attend; None for global attention.

        Raises:
            SettingError: the student has no such teacher.
        """
        super().__init__()
        taught = student.card["teachers"]
        if TEACHER not in taught:
            found = f"has no teacher {TEACHER}, but {', '.join(taught)}"
            fix = "export a student that learnt from it"
            raise SettingError("format sam3", [Problem(place=student.student.name, found=found, fix=fix)])
        self.student, self.window = student, window
        self.patch = student.student.stride
        self.side = TOKENS * self.patch
        self.channels: int = taught[TEACHER]["channels"]

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch rows columns channels"]:
        """Return tokens in the units of SAM3's trunk, in the type of the student's weights."""
        if not torch.compiler.is_compiling():  # a program would keep this type, and refuse to be converted to another
            images = images.to(self.student.student.mean.dtype)
        return self.student.model(images / 2 + 0.5, [TEACHER], window=self.window).spatial[TEACHER]


def write_sam3(task: ExportTask) -> dict[str, float]:
    """Write the program and the adapters, load the program with the adapters, and compare it with the student.

    Raises:
        SettingError: the student has no teacher `sam3`, the image is not square, or the window does not divide its
            token grid.
    """
    if task.size.height != task.size.width:
        found, fix = f"image of {task.size.height} × {task.size.width} px", "SAM3 takes square images"
        raise SettingError("format sam3", [Problem(place="--height and --width", found=found, fix=fix)])
    live = Sam3Tokens(task.student, task.size.window)
    examples = [images * 2 - 1 for images in task.examples()]
    expected = [live(images) for images in examples]  # first: it refuses what the student does not support
    traceable = Sam3Tokens(with_computed_positions(task.student), task.size.window).eval()
    program = torch.export.export(traceable, traced(examples), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, task.path / "trunk.pt2")
    adapters = Path(sam3_adapters.__file__)
    task.path.joinpath("sam3_adapters.py").write_bytes(adapters.read_bytes())
    facts = {
        "student": task.name,
        "side": task.size.height,
        "patch": live.patch,
        "channels": live.channels,
        "window": task.size.window,
        "teacher": task.student.card["teachers"][TEACHER],
    }
    task.path.joinpath("trunk.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    tokens = sam3_adapters.load_tokens(task.path)
    pairs = zip(expected, examples, strict=True)
    return largest(*({"sam3_spatial": difference(output, tokens(images))} for output, images in pairs))
