"""What a teacher costs to run: floating-point operations, counted without weights and without running."""

import functools

import torch
from torch.utils.flop_counter import FlopCounterMode

from teachers.base import AbstractTeacher
from teachers.build import build_teacher, family_of
from teachers.sizes import token_grid
from teachers.source import entry_of, is_own, spec_of


@functools.cache
def tflop_per_input(source: str, side: int, weights: str = "own") -> float:
    """Return the cost of one square input, in 10¹² floating-point operations; a multiply-add counts as two.

    Matrix products, convolutions and attention are counted, as PyTorch's own counter does. A model of the catalogue is
    counted on the meta device. A class of the user's own, which may hold tensors anywhere, is run once on the CPU.

    Args:
        source: a name in the catalogue, or `module:Class`.
        side: of the input (pixels).
        weights: what a class of the user's own is built with. A model of the catalogue costs the same with any.

    Raises:
        SettingError: a size that the teacher does not accept, or no such source.
    """
    token_grid(spec_of(source), side, side)
    teacher = build_teacher(source, weights=weights) if is_own(source) else _without_numbers(source)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        teacher.features(torch.zeros(1, 3, side, side, device=teacher.device))
    return float(counter.get_total_flops()) / 1e12


def _without_numbers(source: str) -> AbstractTeacher:
    entry = entry_of(source)
    family = family_of(entry)
    return family.teacher(spec=entry.spec, network=family.skeleton(entry), device="meta", precision="fp32")
