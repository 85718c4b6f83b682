"""Writing a finished student in the formats of other libraries.

A file is written, read back and compared with the student; it is kept only if they agree.
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
from trainer.portable.image_size import ImageSize
from trainer.portable.options import Format
from trainer.portable.positions import with_computed_positions
from trainer.portable.trial import with_trial_weights
from trainer.student.model import ModelOutput
from trainer.student.timm_backbone import build_timm, timm_output
from trainer.student.vit.backbone import VitBackbone

FILES: Mapping[Format, str] = {"timm": "backbone.safetensors", "torch": "student.pt2", "onnx": "student.onnx"}
"""Format → name of the file."""
TOLERANCE = 1e-4
"""Largest difference from the student, relative to the largest value of an output. Rounding gives about 1e-6; with the
weights of the trial, positions of another image size give 0.08 to 0.3."""
_ONE_SIZE = "choose one size with --height and --width"
_ANOTHER_FORMAT = "choose another --format"


@final
class FlatStudent(nn.Module):
    """A student whose output is a tuple of tensors, as programs of other libraries need it."""

    def __init__(self, student: ExportedStudent, window: int | None) -> None:
        super().__init__()
        self.student, self.window = student, window

    def forward(self, pixels: Float[Tensor, "batch 3 height width"]) -> tuple[Tensor, ...]:
        """Run the student on images, RGB in [0, 1]. The outputs are in the order of `named_outputs`."""
        return tuple(named_outputs(self.student(pixels, window=self.window)).values())


def named_outputs(output: ModelOutput) -> dict[str, Tensor]:
    """Return a student's outputs by name: its own tokens and summaries, then the outputs of all heads."""
    own = {"spatial": output.student.spatial, "summaries": output.student.summaries}
    heads = {f"{name}_spatial": tokens for name, tokens in output.spatial.items()}
    heads |= {f"{name}_summary": summary for name, summary in output.summary.items()}
    return {name: tensor for name, tensor in (own | heads).items() if tensor.numel()}


def write_portable(student: ExportedStudent, kind: Format, size: ImageSize, folder: Path) -> Path:
    """Write a student in the format of another library.

    Args:
        student: the student, as `trainer.load` returns it.
        kind: `timm` for the backbone alone, `torch` for a program of torch.export, `onnx` for an ONNX graph.
        size: size of the images that a program is for. The format `timm` ignores it.
        folder: folder of the file.

    Returns:
        Path of the file.

    Raises:
        SettingError: a size that the student does not support, or a backbone that timm cannot build.
        MissingError: ONNX is not installed.
        ContractError: the outputs of the written file differ from those of the student.
    """
    stride = student.student.stride
    _require_whole_tokens(stride, size)
    examples = [_images(count, sides) for count, sides in enumerate(size.examples(stride), 1)]
    folder.mkdir(parents=True, exist_ok=True)
    with torch.no_grad(), tempfile.TemporaryDirectory(dir=folder, prefix=".portable-") as beside:
        made = Path(beside, FILES[kind])
        try:
            differences = _WRITERS[kind](student, size, examples, made)
        except AbstractStillhouseError:
            raise
        except Exception as error:  # each tracer has its own way to reject a model that it cannot follow
            raise _not_writable(student, kind, size, error) from error
        _require_agreement(kind, size, differences)
        for file in sorted(Path(beside).iterdir(), reverse=True):  # ONNX writes large weights into a second file
            replace_whole(file, folder / file.name)
    return folder / FILES[kind]


def _images(count: int, sides: tuple[int, int]) -> Tensor:
    return torch.rand(count, 3, *sides, generator=torch.Generator().manual_seed(0))


def _not_writable(student: ExportedStudent, kind: Format, size: ImageSize, error: Exception) -> SettingError:
    free = size.height is None
    first_line = next(iter(str(error).splitlines()), "")[:200]
    sizes = "images of any size" if free else "images of this size"
    found = f"cannot be written for {sizes}: {type(error).__name__}: {first_line}"
    fix = _ONE_SIZE if free else _ANOTHER_FORMAT
    return SettingError(f"format {kind}", [Problem(place=student.student.name, found=found, fix=fix)])


def _require_whole_tokens(stride: int, size: ImageSize) -> None:
    if (size.height is None) != (size.width is None):
        found, fix = "only one of the two is given", "give both, or neither for images of any size"
        raise SettingError("image", [Problem(place="--height and --width", found=found, fix=fix)])
    if size.height is not None and size.width is not None and (size.height % stride or size.width % stride):
        found = f"its sides are not multiples of {stride} px, the side of a token"
        place = f"image of {size.height} × {size.width} px"
        raise SettingError("image", [Problem(place=place, found=found, fix="choose another --height and --width")])


def _write_timm(student: ExportedStudent, _size: ImageSize, examples: Sequence[Tensor], path: Path) -> dict[str, float]:
    name, backbone = student.student.name, student.student.backbone
    if isinstance(backbone, VitBackbone):
        found, fix = "has RADIO's additions, which timm cannot build", "choose the format torch or onnx"
        raise SettingError("format timm", [Problem(place=name, found=found, fix=fix)])
    state = {name: value.contiguous() for name, value in backbone.state_dict().items()}
    path.write_bytes(safetensors.torch.save(state))  # `save_file` makes files that only their owner can read
    reloaded, _ = build_timm(name, student.card["image_size"])
    timm.models.load_checkpoint(reloaded, str(path))
    normal = (examples[0] - student.student.mean) / student.student.std
    outputs = zip(timm_output(backbone, normal), timm_output(reloaded.eval(), normal), strict=True)
    return {name: _difference(*pair) for name, pair in zip(("spatial", "summary"), outputs, strict=True)}


def _write_torch(student: ExportedStudent, size: ImageSize, examples: Sequence[Tensor], path: Path) -> dict[str, float]:
    flat, trial = _flat(student, size), with_trial_weights(student)
    program = torch.export.export(flat, _traced(examples), dynamic_shapes=size.free(student.student.stride))
    tried = program.module()
    tried.load_state_dict(FlatStudent(trial, size.window).state_dict())
    differences = _compare(trial, size, examples, tried)
    torch.export.save(program, path)
    return _largest(differences, _compare(student, size, examples, torch.export.load(path).module()))


def _write_onnx(student: ExportedStudent, size: ImageSize, examples: Sequence[Tensor], path: Path) -> dict[str, float]:
    if missing := [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]:
        fix = "pip install 'stillhouse[onnx]'"
        raise MissingError("ONNX", [Problem(place=name, found="is not installed", fix=fix) for name in missing])
    # a graph has its weights inside, so the trial is a graph of its own
    differences = _write_graph(with_trial_weights(student), size, examples, path)
    return _largest(differences, _write_graph(student, size, examples, path))


def _write_graph(student: ExportedStudent, size: ImageSize, examples: Sequence[Tensor], path: Path) -> dict[str, float]:
    import onnxruntime

    names = list(named_outputs(student(examples[0], window=size.window)))
    torch.onnx.export(
        _flat(student, size),
        _traced(examples),
        path,
        input_names=["pixels"],
        output_names=names,
        dynamic_shapes=size.free(student.student.stride),
        dynamo=True,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(pixels: Tensor) -> list[Tensor]:
        return [torch.from_numpy(output) for output in session.run(names, {"pixels": pixels.numpy()})]

    return _compare(student, size, examples, run)


_WRITERS: Mapping[Format, Callable[[ExportedStudent, ImageSize, Sequence[Tensor], Path], dict[str, float]]] = {
    "timm": _write_timm,
    "torch": _write_torch,
    "onnx": _write_onnx,
}


def _flat(student: ExportedStudent, size: ImageSize) -> FlatStudent:
    return FlatStudent(with_computed_positions(student), size.window).eval()


def _largest(*differences: Mapping[str, float]) -> dict[str, float]:
    """Return the largest difference of each output; NaN counts as largest."""
    return {name: float(torch.tensor([found[name] for found in differences]).max()) for name in differences[0]}


def _traced(examples: Sequence[Tensor]) -> tuple[Tensor]:
    # the tracer would treat a batch size of 1, or one equal to the number of tokens, as fixed
    return (examples[0][:1].expand(5, -1, -1, -1).contiguous(),)


def _compare(
    student: ExportedStudent,
    size: ImageSize,
    examples: Sequence[Tensor],
    program: Callable[[Tensor], Sequence[Tensor]],
) -> dict[str, float]:
    """Compare a program with the student at every example, and return the largest differences."""
    differences: dict[str, list[float]] = {}
    for pixels in examples:
        expected = named_outputs(student(pixels, window=size.window))
        for (name, output), found in zip(expected.items(), program(pixels), strict=True):
            differences.setdefault(name, []).append(_difference(output, found))
    return {name: float(torch.tensor(values).max()) for name, values in differences.items()}  # NaN counts as largest


def _difference(expected: Tensor, found: Tensor) -> float:
    return float((expected - found).abs().max() / expected.abs().max())


def _require_agreement(kind: Format, size: ImageSize, differences: Mapping[str, float]) -> None:
    fix = _ONE_SIZE if size.height is None else _ANOTHER_FORMAT
    problems = [
        Problem(place=name, found=f"differs from the student by {value:.1e}, relative to the largest value", fix=fix)
        for name, value in differences.items()
        if not value <= TOLERANCE
    ]
    if problems:
        raise ContractError(f"format {kind}", problems)
