"""The training processes of a run: which of them speaks and writes, and how they put together what they saw."""

import os
from typing import Any, TypeVar

RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")
"""Where launchers say which process this is: torchrun, Lightning, Slurm."""

Seen = TypeVar("Seen")


def is_first() -> bool:
    """Say whether this is the process that speaks and writes: the first of the run, or the only one."""
    return all(int(os.environ.get(name, 0)) == 0 for name in RANKS)


def gather(seen: Seen) -> list[Seen]:
    """Return what every process of the run saw, in the order of their ranks; all of them must ask.

    Args:
        seen: of this process; its tensors are on the CPU.
    """
    import torch  # a finished run says so without it

    if not torch.distributed.is_initialized():
        return [seen]
    from_all: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(from_all, seen)
    return from_all
