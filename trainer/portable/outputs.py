"""A student's outputs by name, and how far those of another program are from them."""

from collections.abc import Callable, Mapping, Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from trainer.export import ExportedStudent
from trainer.portable.portable_format import ExportTask
from trainer.portable.positions import with_computed_positions
from trainer.student.model import ModelOutput


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


def traceable(task: ExportTask) -> FlatStudent:
    """Return the student of an export in the form that tracers can follow."""
    return FlatStudent(with_computed_positions(task.student), task.size.window).eval()


def traced(examples: Sequence[Tensor]) -> tuple[Tensor]:
    """Return the input with which a program is traced."""
    # the tracer would treat a batch size of 1, or one equal to the number of tokens, as fixed
    return (examples[0][:1].expand(5, -1, -1, -1).contiguous(),)


def compare(
    student: ExportedStudent,
    window: int | None,
    examples: Sequence[Tensor],
    program: Callable[[Tensor], Sequence[Tensor]],
) -> dict[str, float]:
    """Compare a program with the student at every example, and return the largest difference of each output."""
    found = []
    for pixels in examples:
        expected = named_outputs(student(pixels, window=window))
        pairs = zip(expected.items(), program(pixels), strict=True)
        found.append({name: difference(output, other) for (name, output), other in pairs})
    return largest(*found)


def difference(expected: Tensor, found: Tensor) -> float:
    """Return the largest difference between two outputs, relative to the largest value of the expected one."""
    return float((expected - found).abs().max() / expected.abs().max())


def largest(*differences: Mapping[str, float]) -> dict[str, float]:
    """Return the largest difference of each output; NaN counts as largest."""
    return {name: float(torch.tensor([found[name] for found in differences]).max()) for name in differences[0]}
