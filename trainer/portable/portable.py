"""A finished student in other libraries' formats.

Each is written, read back and compared with the student; only what agrees is kept.
"""

import importlib.util
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import final

import safetensors.torch
import timm
import torch
from jaxtyping import Float
from torch import Tensor, nn

from storage_schemas.format.errors import AbstractStillhouseError, ContractError, MissingError, Problem, SettingError
from storage_schemas.objects.publish import replace_whole
from trainer.export import ExportedStudent
from trainer.portable.options import Format
from trainer.portable.picture_size import PictureSize
from trainer.student.model import ModelOutput
from trainer.student.timm_backbone import build_timm, timm_output
from trainer.student.vit.backbone import VitBackbone

FILES: Mapping[Format, str] = {"timm": "backbone.safetensors", "torch": "student.pt2", "onnx": "student.onnx"}
"""Format → what the file is called."""
TOLERANCE = 1e-3
"""Largest difference from the student, as a share of an output's largest value."""


@final
class FlatStudent(nn.Module):
    """A student whose outputs are a row of tensors: what a program of another library can give."""

    def __init__(self, student: ExportedStudent, window: int | None) -> None:
        super().__init__()
        self.student, self.window = student, window

    def forward(self, pixels: Float[Tensor, "batch 3 height width"]) -> tuple[Tensor, ...]:
        """Look at pictures, RGB in [0, 1]; the outputs are in the order of `named_outputs`."""
        return tuple(named_outputs(self.student(pixels, window=self.window)).values())


def named_outputs(output: ModelOutput) -> dict[str, Tensor]:
    """Return a student's outputs by name: its own tokens and summaries, then those of every teacher's head."""
    own = {"spatial": output.student.spatial, "summaries": output.student.summaries}
    heads = {f"{name}_spatial": tokens for name, tokens in output.spatial.items()}
    heads |= {f"{name}_summary": summary for name, summary in output.summary.items()}
    return {name: tensor for name, tensor in (own | heads).items() if tensor.numel()}


def write_portable(student: ExportedStudent, kind: Format, size: PictureSize, folder: Path) -> Path:
    """Write a student in another library's format.

    Args:
        student: as `trainer.load` gives it.
        kind: `timm` for the backbone alone, `torch` for a program of torch.export, `onnx` for one of ONNX.
        size: of the pictures that a program is for; timm's backbones take any.
        folder: where to.

    Returns:
        The file.

    Raises:
        SettingError: a size that the student cannot take, or a backbone that timm cannot build.
        MissingError: ONNX is not installed.
        ContractError: what was written does not compute what the student does.
    """
    stride = student.student.stride
    _require_whole_tokens(stride, size)
    examples = [_pictures(count, sides) for count, sides in enumerate(size.examples(stride), 1)]
    folder.mkdir(parents=True, exist_ok=True)
    with torch.no_grad(), tempfile.TemporaryDirectory(dir=folder, prefix=".portable-") as beside:
        made = Path(beside, FILES[kind])
        try:
            differences = _WRITERS[kind](student, size, examples, made)
        except AbstractStillhouseError:
            raise
        except Exception as error:  # what a tracer raises at a model that it cannot follow is its own affair
            raise _not_writable(student, kind, size, error) from error
        _require_agreement(kind, differences)
        for file in sorted(Path(beside).iterdir(), reverse=True):  # ONNX keeps large weights in a file beside its own
            replace_whole(file, folder / file.name)
    return folder / FILES[kind]


def _pictures(count: int, sides: tuple[int, int]) -> Tensor:
    return torch.rand(count, 3, *sides, generator=torch.Generator().manual_seed(0))


def _not_writable(student: ExportedStudent, kind: Format, size: PictureSize, error: Exception) -> SettingError:
    free = size.height is None
    said = next(iter(str(error).splitlines()), "")[:200]
    found = (
        f"cannot be written for {'pictures of any size' if free else 'these pictures'}: {type(error).__name__}: {said}"
    )
    fix = "name one size, with --height and --width" if free else ""
    return SettingError(f"format {kind}", [Problem(place=student.student.name, found=found, fix=fix)])


def _require_whole_tokens(stride: int, size: PictureSize) -> None:
    if (size.height is None) != (size.width is None):
        found, fix = "height and width go together", "name both, or neither for pictures of any size"
        raise SettingError("picture", [Problem(place="--height and --width", found=found, fix=fix)])
    if size.height is not None and size.width is not None and (size.height % stride or size.width % stride):
        found = f"its sides are not multiples of {stride} px, what a token covers"
        place = f"picture of {size.height} × {size.width} px"
        raise SettingError("picture", [Problem(place=place, found=found, fix="choose another --height and --width")])


def _write_timm(
    student: ExportedStudent, _size: PictureSize, examples: Sequence[Tensor], path: Path
) -> dict[str, float]:
    name, backbone = student.student.name, student.student.backbone
    if isinstance(backbone, VitBackbone):
        found, fix = "has RADIO's additions, which timm cannot build", "take the format torch or onnx"
        raise SettingError("format timm", [Problem(place=name, found=found, fix=fix)])
    state = {name: value.contiguous() for name, value in backbone.state_dict().items()}
    safetensors.torch.save_file(state, path)
    back, _ = build_timm(name, student.card["image_size"])
    timm.models.load_checkpoint(back, str(path))
    normal = (examples[0] - student.student.mean) / student.student.std
    looks = zip(timm_output(backbone, normal), timm_output(back.eval(), normal), strict=True)
    return {what: _difference(*look) for what, look in zip(("spatial", "summary"), looks, strict=True)}


def _write_torch(
    student: ExportedStudent, size: PictureSize, examples: Sequence[Tensor], path: Path
) -> dict[str, float]:
    flat = FlatStudent(student, size.window).eval()
    program = torch.export.export(flat, _traced(examples), dynamic_shapes=size.free(student.student.stride))
    torch.export.save(program, path)
    return _compare(student, size, examples, torch.export.load(path).module())


def _write_onnx(
    student: ExportedStudent, size: PictureSize, examples: Sequence[Tensor], path: Path
) -> dict[str, float]:
    if absent := [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]:
        fix = "pip install 'stillhouse[onnx]'"
        raise MissingError("ONNX", [Problem(place=name, found="is not installed", fix=fix) for name in absent])
    import onnxruntime

    names = list(named_outputs(student(examples[0], window=size.window)))
    torch.onnx.export(
        FlatStudent(student, size.window).eval(),
        _traced(examples),
        path,
        input_names=["pixels"],
        output_names=names,
        dynamic_shapes=size.free(student.student.stride),
        dynamo=True,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return _compare(
        student,
        size,
        examples,
        lambda seen: [torch.from_numpy(one) for one in session.run(names, {"pixels": seen.numpy()})],
    )


_WRITERS: Mapping[Format, Callable[[ExportedStudent, PictureSize, Sequence[Tensor], Path], dict[str, float]]] = {
    "timm": _write_timm,
    "torch": _write_torch,
    "onnx": _write_onnx,
}


def _traced(examples: Sequence[Tensor]) -> tuple[Tensor]:
    # one picture, or as many as the example has tokens, would be taken for a number that matters
    return (examples[0][:1].expand(5, -1, -1, -1).contiguous(),)


def _compare(
    student: ExportedStudent,
    size: PictureSize,
    examples: Sequence[Tensor],
    program: Callable[[Tensor], Sequence[Tensor]],
) -> dict[str, float]:
    """Compare a program with the student at every example, and return the largest differences."""
    differences: dict[str, list[float]] = {}
    for pixels in examples:
        expected = named_outputs(student(pixels, window=size.window))
        for (name, one), other in zip(expected.items(), program(pixels), strict=True):
            differences.setdefault(name, []).append(_difference(one, other))
    return {name: float(torch.tensor(found).max()) for name, found in differences.items()}  # NaN is the largest


def _difference(expected: Tensor, found: Tensor) -> float:
    return float((expected - found).abs().max() / expected.abs().max())


def _require_agreement(kind: Format, differences: Mapping[str, float]) -> None:
    problems = [
        Problem(place=name, found=f"differs from the student by {value:.1e} of its largest value")
        for name, value in differences.items()
        if not value <= TOLERANCE
    ]
    if problems:
        raise ContractError(f"format {kind}", problems)
