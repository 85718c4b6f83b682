"""The moving average of a student's weights."""

import torch
from torch import nn


def share_kept(step: int, decay: float) -> float:
    """Return the share of the average that a step leaves: the decay, and less than that near the start.

        min(d, (1 + t) / (10 + t))

    The weights that a run begins with know nothing, and should not outlast the first steps. Source: the decay is MESA's
    (arXiv:2205.14083); the ramp is TensorFlow's and timm's, for the papers give none.

    Args:
        step: t, steps that the average has taken in before.
        decay: d.
    """
    return min(decay, (1 + step) / (10 + step))


@torch.no_grad()
def take_in(average: nn.Module, model: nn.Module, kept: float) -> None:
    """Move an average towards a model's weights; counters, which cannot be averaged, are copied.

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
