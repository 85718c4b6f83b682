"""The moving average of a student's weights."""

import torch
from torch import nn


def decay_at(step: int, decay: float, *, ramp: bool) -> float:
    """Return the decay of the moving average at a step: d, or with a ramp less near the start.

        d                              without a ramp
        min(d, (1 + t) / (10 + t))     with a ramp

    The ramp makes the average forget the random weights that a run begins with. Source: C-RADIOv4 has an average of
    decay 0.9996 for the whole of training, and its author names no ramp (NVlabs/RADIO#181, 2026-05-20); this one is
    that of TensorFlow and timm.

    Args:
        step: t, updates of the average before this one.
        decay: d.
        ramp: whether the decay rises at the start.
    """
    return min(decay, (1 + step) / (10 + step)) if ramp else decay


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, kept: float) -> None:
    """Move an average towards a model's weights. Integer buffers, such as counters, are copied.

        w̃ ← k w̃ + (1 − k) w

    Args:
        average: w̃, changed in place.
        model: w.
        kept: k.
    """
    latest = model.state_dict()
    for name, value in average.state_dict().items():
        if value.is_floating_point():
            value.lerp_(latest[name], 1 - kept)
        else:
            value.copy_(latest[name])
