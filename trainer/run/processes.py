"""The training processes of a run: which of them speaks and writes, and how they exchange what they observed."""

import os
from typing import Any, TypeVar

RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")
"""Environment variables in which torchrun, Lightning and Slurm give the number of a process."""

Observed = TypeVar("Observed")


def is_first() -> bool:
    """Return whether this is the first process of the run, the one that speaks and writes."""
    return all(int(os.environ.get(name, 0)) == 0 for name in RANKS)


def is_started_by_first() -> bool:
    """Return whether the first process of this machine has started this one, instead of torchrun or Slurm."""
    started_by_others = "TORCHELASTIC_RUN_ID" in os.environ or "SLURM_NTASKS" in os.environ
    return int(os.environ.get("LOCAL_RANK", 0)) > 0 and not started_by_others


def gather(observed: Observed) -> list[Observed]:
    """Return the values of all processes, in the order of their ranks. Every process must call this.

    Args:
        observed: value of this process; its tensors are on the CPU.
    """
    import torch  # `train` uses this module, and a finished run does not need torch

    if not torch.distributed.is_initialized():
        return [observed]
    from_all: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(from_all, observed)
    return from_all
