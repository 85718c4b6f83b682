"""The loss of a step over all training processes, and the check that it is a number."""

import torch
from lightning import Trainer

from storage_schemas.format.errors import ContractError, Problem


def mean_over_processes(trainer: Trainer, values: list[torch.Tensor]) -> list[float]:
    """Return the mean of each value over all training processes. Every process must call this."""
    stacked = torch.stack([value.detach().float() for value in values])
    return trainer.strategy.reduce(stacked, reduce_op="mean").tolist()


def require_finite(loss: float, step: int) -> float:
    """Return a loss if it is finite.

    Raises:
        ContractError: it is infinite or NaN.
    """
    if loss - loss != 0:
        fix = (
            "lower optimiser.lr, increase optimiser.warmup, or set optimiser.gradient_clip, and resume from the last "
            "checkpoint with --running.accept-changes True"
        )
        raise ContractError("training", [Problem(place=f"step {step}", found=f"the loss is {loss}", fix=fix)])
    return loss
