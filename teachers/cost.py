"""What a teacher costs to run: floating-point operations of one forward, computed from the catalogue without torch."""

import functools

from teachers.entry import CatalogueEntry
from teachers.kinds import LIBRARIES, kind_of
from teachers.sizes import token_grid
from teachers.source import entry_of, spec_of

COLOURS = 3
"""Channels of an input."""


@functools.cache
def tflop_per_input(source: str, side: int, weights: str = "own") -> float:
    """Return the cost of one square input, in 10¹² floating-point operations; a multiply-add counts as two.

    Matrix products, convolutions and attention are counted, as PyTorch's `FlopCounterMode` does. The cost of a model of
    the catalogue is computed by `multiply_adds`, and equals what that counter finds. A class of the user's own is
    built and run once on the CPU under the counter, and a library's model on the meta device, without weights.

    Args:
        source: a name in the catalogue, `timm:<model.tag>`, or `module:Class`.
        side: of the input (pixels).
        weights: what a class of the user's own is built with. A model of the catalogue costs the same with any.

    Raises:
        SettingError: a size that the teacher does not accept, or no such source.
    """
    kind = kind_of(source)
    if kind in LIBRARIES:
        from teachers.library import library_flop  # imports torch

        return library_flop(source, side) / 1e12
    rows, cols = token_grid(spec_of(source), side, side)
    if kind == "catalogue":
        return 2 * multiply_adds(entry_of(source), rows * cols) / 1e12
    from teachers.counted_cost import counted_flop  # imports torch, as the class itself does

    return counted_flop(source, side, weights) / 1e12


def multiply_adds(entry: CatalogueEntry, patches: int) -> int:
    """Return the multiply-adds of one forward of a model of the catalogue.

    With P patches of p × p pixels, T = P + prefix tokens, C channels and an MLP of m matrices with H hidden channels:

        embedding                     P · 3p² · C
        each block that sees A tokens T · (4C² + 2AC + mCH)
        attention pooling (SigLIP2)   2PC² + 2PC + 2C² + 2CH

    A is T in a block with global attention, and the tokens of a window in one with windowed attention. m is 2, or 3
    for a SwiGLU. The pooling has one query: keys and values of all patches, then the query's own projections and MLP.

    Args:
        entry: the model.
        patches: in one input.
    """
    channels, block = entry.spec.dim, entry.block
    tokens = patches + entry.prefix_tokens
    windowed = entry.blocks - block.global_blocks if block.window else 0
    total = patches * COLOURS * entry.spec.patch**2 * channels
    total += (entry.blocks - windowed) * _block(entry, tokens, tokens)
    total += windowed * _block(entry, tokens, block.window**2)
    return total + (_pooling(entry, patches) if entry.family == "siglip2" else 0)


def _block(entry: CatalogueEntry, tokens: int, attended: int) -> int:
    channels = entry.spec.dim
    return tokens * (4 * channels**2 + 2 * attended * channels + _mlp(entry))


def _pooling(entry: CatalogueEntry, patches: int) -> int:
    channels = entry.spec.dim
    return 2 * patches * channels**2 + 2 * patches * channels + 2 * channels**2 + _mlp(entry)


def _mlp(entry: CatalogueEntry) -> int:
    matrices = 3 if entry.block.gated else 2
    return matrices * entry.spec.dim * entry.block.hidden
