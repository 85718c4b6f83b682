"""A student with weights for a trial: every part of it counts, so that no fault of a program stays hidden."""

import copy

import torch
from torch import nn

from trainer.export import ExportedStudent


def with_trial_weights(student: ExportedStudent) -> ExportedStudent:
    """Return a copy of a student with seeded weights of ordinary size.

    In a student that is trained little, blocks hardly change their tokens (layer scale starts near 0) and attention is
    nearly even (weights start small). A program with wrong positions then differs from it by less than rounding in
    other students. With these weights each block and each position changes the output by about its own size.

    Args:
        student: it does not change.
    """
    trial, draws = copy.deepcopy(student), torch.Generator().manual_seed(0)
    matrices = {id(part.weight) for part in trial.modules() if isinstance(part, nn.Linear | nn.Conv2d)}
    for weight in trial.parameters():
        normal = torch.randn(weight.shape, generator=draws)
        if id(weight) in matrices:
            weight.data = normal / weight[0].numel() ** 0.5
        elif weight.ndim > 1:  # tokens and tables of positions
            weight.data = normal
        else:  # gains, layer scales and biases
            weight.data = 1 + 0.2 * normal
    return trial
