"""A student's outputs by name, and how far those of another program are from them."""

from collections.abc import Callable, Mapping, Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from trainer.export import ExportedStudent
from trainer.portable.portable_format import ExportTask
from trainer.portable.positions import with_computed_positions
from trainer.student.blocks import group_name, parse_groups
from trainer.student.model import ModelOutput


@final
class FlatStudent(nn.Module):
    """A student whose output is a tuple of tensors, as programs of other libraries need it."""

    def __init__(
        self, student: ExportedStudent, window: int | None, blocks: Sequence[str] = (), *, normalise: bool = False
    ) -> None:
        """Wrap a student.

        Args:
            student: the student.
            window: side of the attention windows (tokens); None for global attention.
            blocks: intermediate blocks whose features are outputs too; see `ExportedStudent.with_blocks`.
            normalise: whether these are in normal units.
        """
        super().__init__()
        self.student, self.window, self.blocks, self.normalise = student, window, tuple(blocks), normalise

    def forward(self, pixels: Float[Tensor, "batch 3 height width"]) -> tuple[Tensor, ...]:
        """Run the student on images, RGB in [0, 1]. The outputs are in the order of `named`."""
        return tuple(self.named(pixels).values())

    def named(self, pixels: Float[Tensor, "batch 3 height width"]) -> dict[str, Tensor]:
        """Run the student on images, and return its outputs by name."""
        if not self.blocks:
            return named_outputs(self.student(pixels, window=self.window))
        output, maps = self.student.with_blocks(pixels, self.blocks, window=self.window, normalise=self.normalise)
        names = map(group_name, parse_groups(self.blocks, self.student.student))
        return named_outputs(output) | dict(zip(names, maps, strict=True))


def named_outputs(output: ModelOutput) -> dict[str, Tensor]:
    """Return a student's outputs by name: its own tokens and summaries, then the outputs of all heads."""
    own = {"spatial": output.student.spatial, "summaries": output.student.summaries}
    heads = {f"{name}_spatial": tokens for name, tokens in output.spatial.items()}
    heads |= {f"{name}_summary": summary for name, summary in output.summary.items()}
    return {name: tensor for name, tensor in (own | heads).items() if tensor.numel()}


def flat(task: ExportTask, student: ExportedStudent) -> FlatStudent:
    """Return a student, the task's own or one with other weights, with the outputs that the task asks for."""
    return FlatStudent(student, task.size.window, task.blocks, normalise=task.normalise).eval()


def traceable(task: ExportTask) -> FlatStudent:
    """Return the student of an export in the form that tracers can follow."""
    return flat(task, with_computed_positions(task.student))


def traced(examples: Sequence[Tensor]) -> tuple[Tensor]:
    """Return the input with which a program is traced."""
    # the tracer would treat a batch size of 1, or one equal to the number of tokens, as fixed
    return (examples[0][:1].expand(5, -1, -1, -1).contiguous(),)


def compare(
    student: FlatStudent, examples: Sequence[Tensor], program: Callable[[Tensor], Sequence[Tensor]]
) -> dict[str, float]:
    """Compare a program with the student at every example, and return the largest difference of each output."""
    found = []
    for pixels in examples:
        pairs = zip(student.named(pixels).items(), program(pixels), strict=True)
        found.append({name: difference(output, other) for (name, output), other in pairs})
    return largest(*found)


def difference(expected: Tensor, found: Tensor) -> float:
    """Return the largest difference between two outputs, relative to the largest value of the expected one."""
    return float((expected - found).abs().max() / expected.abs().max())


def largest(*differences: Mapping[str, float]) -> dict[str, float]:
    """Return the largest difference of each output; NaN counts as largest."""
    return {name: float(torch.tensor([found[name] for found in differences]).max()) for name in differences[0]}
