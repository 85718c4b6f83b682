"""What a format of another library is: the name of what is written, and the function that writes and reads it back."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from trainer.export import ExportedStudent
from trainer.portable.image_size import ImageSize

TOLERANCE = 1e-4
"""Largest difference from the student, relative to the largest value of an output. Rounding gives about 1e-6; with the
weights of the trial, positions of another image size give 0.08 to 0.3."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExportTask:
    """One export: what is written, for which images, and where."""

    student: ExportedStudent
    """The student, as `trainer.load` returns it."""
    size: ImageSize
    """Size of the images that a program is for."""
    blocks: tuple[str, ...] = ()
    """Intermediate blocks, or ranges of them, whose features a program gives too; see `ExportedStudent.with_blocks`."""
    normalise: bool = False
    """Whether these are in normal units."""
    path: Path
    """The file to write; for a format that is a folder, an empty folder to write into."""

    @property
    def name(self) -> str:
        """Name of the student, as messages give it."""
        return self.student.student.name

    def examples(self) -> list[Tensor]:
        """Return batches of random images for comparisons with the student; the first is the one that is traced.

        Returns:
            RGB in [0, 1], `[count, 3, height, width]`, at the sizes of `ImageSize.examples`: one image of the first
            size, two of the second, and so on.
        """
        sizes = self.size.examples(self.student.student.stride)
        return [random_images(count, *sides) for count, sides in enumerate(sizes, 1)]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PortableFormat:
    """A format that a student can be written in."""

    made: str
    """Name of the file or folder that is written."""
    write: Callable[[ExportTask], Mapping[str, float]]
    """Writes the student, reads back what was written, runs it, and returns for each output its largest difference from
    the student's, relative to the largest value of that output."""
    last: str = ""
    """For a folder, its file that gets its name last: without it, other libraries do not open the folder. Empty for a
    single file."""
    is_traced: bool = False
    """Whether a tracer makes a program of the student. A tracer may fail at free image sizes and succeed at one."""
    tokens: int | None = None
    """Tokens along the sides of the images that a program is for where the user gives no size; None for any size."""
    has_blocks: bool = False
    """Whether it can give features of intermediate blocks too."""
    tolerance: float = TOLERANCE
    """Largest difference that is accepted."""


def random_images(count: int, height: int, width: int) -> Tensor:
    """Return seeded random images, RGB in [0, 1], `[count, 3, height, width]`."""
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))
