"""The moving average of a student's weights."""

import torch
from torch import nn


def decay_at(step: int, decay: float) -> float:
    """Return the decay of the moving average at a step; it is smaller near the start.

        min(d, (1 + t) / (10 + t))

    The ramp makes the average forget the random weights that a run begins with. Source: the decay is that of MESA
    (arXiv:2205.14083); the papers give no ramp, this one is that of TensorFlow and timm.

    Args:
        step: t, updates of the average before this one.
        decay: d.
    """
    return min(decay, (1 + step) / (10 + step))


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
