"""The features of a student's intermediate blocks: single ones, or means over groups of them; with a normaliser.

RADIOv2.5 (section 4.5, finding 8, table 7) selects single blocks (sparse: 7-15-23-31 of a ViT-H), or the means of
consecutive blocks (dense: 0-9, 10-19, 20-30, 31). Features are those of the patches after a block, before any norm of
the backbone.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from storage_schemas.format.errors import Problem, SettingError
from trainer.student.student import Student
from trainer.student.vit.backbone import VitBackbone
from trainer.student.vit.positions import Count
from trainer.student.vit.windows import from_windows

BlockGroup = range
"""Consecutive blocks, counted from 0, whose features are averaged; a single block is a range of length 1."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BlockNormaliser:
    """Brings the features of every block to mean 0 and mean variance 1, so that blocks can be added or compared.

        normal = (features − μ) / φ,   φ² = tr Σ / C

    μ is the mean of a block's features, Σ their covariance over C channels. The scale is that of PHI-S, without its
    rotation: angles between centred features stay.
    """

    mean: Float[Tensor, "blocks channels"]
    """μ of each block."""
    scale: Float[Tensor, " blocks"]
    """φ of each block."""

    def __call__(self, features: Tensor, block: int) -> Tensor:
        """Return a block's features `[…, channels]` in normal units."""
        mean, scale = (values[block].to(features.device, features.dtype) for values in (self.mean, self.scale))
        return (features - mean) / scale


def parse_groups(texts: Sequence[str | int | range], student: Student) -> list[BlockGroup]:
    """Return groups of blocks from what a user writes.

    Args:
        texts: for each group a block (`7`, or `-1` for the last), or the first and the last of several (`0-9`).
        student: the student.

    Raises:
        SettingError: a text is neither; or the student has no such block, or no blocks of one size.
    """
    count = len(blocks_of(student))
    groups, problems = list[BlockGroup](), list[Problem]()
    for text in texts:
        group = text if isinstance(text, range) else _parsed(str(text), count)
        if group is None or not len(group) or group.step != 1 or group[0] < 0 or group[-1] >= count:
            fix = f"{student.name} has the blocks 0 to {count - 1}: give one, or the first and last of several as 0-9"
            problems.append(Problem(place=str(text), found="is no block and no range of blocks", fix=fix))
        else:
            groups.append(group)
    if problems:
        raise SettingError("blocks", problems)
    return groups


def group_name(group: BlockGroup) -> str:
    """Return the name of a group's output: `block_7`, or `blocks_0_9`."""
    return f"block_{group[0]}" if len(group) == 1 else f"blocks_{group[0]}_{group[-1]}"


def blocks_of(student: Student) -> list[nn.Module]:
    """Return the blocks of a student.

    Raises:
        SettingError: its backbone is not a row of transformer blocks.
    """
    blocks = getattr(student.backbone, "blocks", None)
    if not isinstance(blocks, nn.ModuleList | nn.Sequential) or not hasattr(student.backbone, "patch_embed"):
        fix = "only vision transformers have blocks whose features are of one size"
        found = f"is a {type(student.backbone).__name__}, which is not a row of blocks"
        raise SettingError("blocks", [Problem(place=student.name, found=found, fix=fix)])
    return list(blocks)


@contextmanager
def observed_blocks(student: Student, groups: Sequence[BlockGroup]) -> Iterator[dict[int, Tensor]]:
    """Collect what the blocks of some groups give while the student runs in the block of code, once.

    Yields:
        Block → its output; it is filled while the student runs.
    """
    outputs: dict[int, Tensor] = {}
    wanted, blocks = sorted({block for group in groups for block in group}), blocks_of(student)

    def keep(index: int) -> Any:
        def observe(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            outputs[index] = output

        return observe

    handles = [blocks[index].register_forward_hook(keep(index)) for index in wanted]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def block_maps(
    student: Student,
    pixels: Float[Tensor, "batch 3 height width"],
    outputs: Mapping[int, Tensor],
    window: int | None = None,
) -> dict[int, Float[Tensor, "batch rows columns channels"]]:
    """Return the maps of blocks from what they gave: patches alone, in their places in the image.

    Args:
        student: the student.
        pixels: the images that it ran on.
        outputs: what `observed_blocks` collected.
        window: side of the attention windows (tokens) that it ran with; None for global attention.

    Raises:
        SettingError: a block gives another number of tokens than the backbone's last map has.
    """
    rows, columns = (side // student.stride for side in pixels.shape[2:])
    return {
        block: _map(student, block, output, (pixels.shape[0], rows, columns), window)
        for block, output in outputs.items()
    }


def group_means(
    groups: Sequence[BlockGroup], maps: Mapping[int, Tensor], normaliser: BlockNormaliser | None
) -> list[Float[Tensor, "batch rows columns channels"]]:
    """Return the mean over the blocks of each group; with a normaliser, of features in normal units."""
    if normaliser is not None:
        maps = {block: normaliser(features, block) for block, features in maps.items()}
    return [torch.stack([maps[block] for block in group]).mean(dim=0) for group in groups]


def _parsed(text: str, count: int) -> BlockGroup | None:
    first, dash, last = text.partition("-") if not text.startswith("-") else (text, "", "")
    try:
        start = int(first) if int(first) >= 0 else count + int(first)
        return range(start, int(last) + 1) if dash else range(start, start + 1)
    except ValueError:
        return None


def _map(student: Student, block: int, output: Tensor, grid: tuple[Count, Count, Count], window: int | None) -> Tensor:
    backbone, (batch, rows, columns) = student.backbone, grid
    if output.ndim == 4 and tuple(output.shape[:3]) == grid:
        return output
    prefix = _prefix_tokens(student)
    if window is None:
        patches = output[:, prefix:]
        # a tracer would fix the size of the images by this comparison
        if not torch.compiler.is_compiling() and (output.ndim != 3 or patches.shape[1] != rows * columns):
            raise _other_size(student, block, output, grid)
        return patches.reshape(batch, rows, columns, -1)
    # in windows of their own, class tokens and registers are there only where each window has a copy of them
    apart = not backbone.everywhere[block] and backbone.settings.window_tokens == "apart"
    cells = output if apart else output[:, prefix:]
    cells = cells.reshape(batch, -1, window * window, cells.shape[-1])
    return from_windows(cells, window, rows, columns)


def _prefix_tokens(student: Student) -> int:
    backbone = student.backbone
    if isinstance(backbone, VitBackbone):
        return len(backbone.class_tokens) + len(backbone.registers)
    return int(getattr(backbone, "num_prefix_tokens", 0))


def _other_size(student: Student, block: int, output: Tensor, grid: tuple[Count, Count, Count]) -> SettingError:
    found = f"gives {list(output.shape)} for {grid[1]} × {grid[2]} tokens"
    fix = "only vision transformers have blocks whose features are of one size"
    return SettingError("blocks", [Problem(place=f"{student.name}, block {block}", found=found, fix=fix)])
