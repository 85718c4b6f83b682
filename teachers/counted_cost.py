"""Counting a teacher's floating-point operations with PyTorch's own counter."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from teachers.base import AbstractTeacher
from teachers.build import build_teacher


def counted_flop(source: str, side: int, weights: str) -> int:
    """Return the floating-point operations of one square input, counted while a teacher runs once on the CPU.

    Args:
        source: `module:Class`.
        side: of the input (pixels).
        weights: what the class is built with.

    Raises:
        SettingError: there is no such class, or it does not take these weights.
    """
    return flop_of(build_teacher(source, weights=weights), side)


def flop_of(teacher: AbstractTeacher, side: int) -> int:
    """Return the floating-point operations of one square input of `side` pixels, on the teacher's own device."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        teacher.features(torch.zeros(1, 3, side, side, device=teacher.device))
    return int(counter.get_total_flops())
