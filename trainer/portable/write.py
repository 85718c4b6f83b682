"""Writing a finished student in the formats of other libraries.

What is written is read back and compared with the student; it is kept only if they agree.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch

from storage_schemas.format.errors import AbstractStillhouseError, ContractError, Problem, SettingError
from storage_schemas.objects.publish import replace_whole
from trainer.export import ExportedStudent
from trainer.portable.formats import FORMATS
from trainer.portable.image_size import ImageSize
from trainer.portable.options import Format
from trainer.portable.portable_format import ExportTask, PortableFormat
from trainer.student.blocks import parse_groups

_ONE_SIZE = "choose one size with --height and --width"
_ANOTHER_FORMAT = "choose another --format"


def write_portable(
    student: ExportedStudent,
    kind: Format,
    size: ImageSize,
    folder: Path,
    blocks: tuple[str, ...] = (),
    *,
    normalise: bool = False,
) -> Path:
    """Write a student in the format of another library.

    Args:
        student: the student, as `trainer.load` returns it.
        kind: the format; see `ExportOptions.format`.
        size: size of the images that a program is for. Formats that are not programs ignore it.
        folder: folder that the file, or the format's own folder, is written to.
        blocks: intermediate blocks whose features a program gives too; see `ExportedStudent.with_blocks`.
        normalise: whether these are in normal units.

    Returns:
        Path of the file, or of the format's own folder.

    Raises:
        SettingError: a size that the student does not support, or a student that the format cannot hold.
        MissingError: a library of the format is not installed.
        ContractError: the outputs of what was written differ from those of the student.
    """
    form = FORMATS[kind]
    if form.tokens is not None and size == ImageSize(window=size.window):
        side = form.tokens * student.student.stride
        size = ImageSize(height=side, width=side, window=size.window)
    _require_whole_tokens(student.student.stride, size)
    _require_blocks(kind, form, blocks, normalise)
    if blocks:
        parse_groups(blocks, student.student)  # before hours of tracing
    folder.mkdir(parents=True, exist_ok=True)
    with torch.no_grad(), tempfile.TemporaryDirectory(dir=folder, prefix=".portable-") as beside:
        path = Path(beside, form.made)
        task = ExportTask(student=student, size=size, blocks=blocks, normalise=normalise, path=path)
        if form.last:
            task.path.mkdir()
        differences = _written(kind, form, task)
        _require_agreement(kind, form, size, differences)
        _give_names(task.path if form.last else Path(beside), folder / form.made if form.last else folder, form.last)
    return folder / form.made


def _written(kind: Format, form: PortableFormat, task: ExportTask) -> Mapping[str, float]:
    try:
        return form.write(task)
    except AbstractStillhouseError:
        raise
    except Exception as error:  # each tracer has its own way to reject a model that it cannot follow
        if not form.is_traced:
            raise
        raise _not_writable(kind, task, error) from error


def _give_names(made: Path, folder: Path, last: str) -> None:
    """Move the files of an export into their folder; `last` is absent from the folder while others are replaced."""
    folder.mkdir(exist_ok=True)
    if last:
        folder.joinpath(last).unlink(missing_ok=True)
    files = sorted(made.iterdir(), reverse=True)  # ONNX writes large weights into a second file
    for file in sorted(files, key=lambda file: file.name == last):
        replace_whole(file, folder / file.name)


def _not_writable(kind: Format, task: ExportTask, error: Exception) -> SettingError:
    free = task.size.height is None
    first_line = next(iter(str(error).splitlines()), "")[:200]
    sizes = "images of any size" if free else "images of this size"
    found = f"cannot be written for {sizes}: {type(error).__name__}: {first_line}"
    fix = _ONE_SIZE if free else _ANOTHER_FORMAT
    return SettingError(f"format {kind}", [Problem(place=task.name, found=found, fix=fix)])


def _require_blocks(kind: Format, form: PortableFormat, blocks: tuple[str, ...], normalise: bool) -> None:
    if blocks and not form.has_blocks:
        problem = Problem(
            place="--blocks", found=f"{kind} has no outputs for them", fix="choose the format torch or onnx"
        )
        raise SettingError(f"format {kind}", [problem])
    if normalise and not blocks:
        problem = Problem(
            place="--normalise", found="there are no blocks to bring to normal units", fix="give --blocks"
        )
        raise SettingError(f"format {kind}", [problem])


def _require_whole_tokens(stride: int, size: ImageSize) -> None:
    if (size.height is None) != (size.width is None):
        found, fix = "only one of the two is given", "give both, or neither for images of any size"
        raise SettingError("image", [Problem(place="--height and --width", found=found, fix=fix)])
    if size.height is not None and size.width is not None and (size.height % stride or size.width % stride):
        found = f"its sides are not multiples of {stride} px, the side of a token"
        place = f"image of {size.height} × {size.width} px"
        raise SettingError("image", [Problem(place=place, found=found, fix="choose another --height and --width")])


def _require_agreement(kind: Format, form: PortableFormat, size: ImageSize, differences: Mapping[str, float]) -> None:
    fix = _ONE_SIZE if form.is_traced and size.height is None else _ANOTHER_FORMAT
    problems = [
        Problem(place=name, found=f"differs from the student by {value:.1e}, relative to the largest value", fix=fix)
        for name, value in differences.items()
        if not value <= form.tolerance
    ]
    if problems:
        raise ContractError(f"format {kind}", problems)
