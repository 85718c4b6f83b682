"""The training processes of a run: which of them speaks and writes, and how they exchange what they observed."""

import os
from typing import Any, TypeVar

from storage_schemas.format.errors import Problem, SettingError

RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")
"""Environment variables in which torchrun, Lightning and Slurm give the number of a process."""
BY_TORCHRUN = ("RANK", "GROUP_RANK")
"""Those that torchrun alone sets."""

Observed = TypeVar("Observed")


def require_launcher(processes: int) -> None:
    """Refuse a process whose number comes from a scheduler that did not start it as a part of this run.

    Such a process would take itself for another than the first: it would train in silence, and write nothing.

    Args:
        processes: how many processes the run has.

    Raises:
        SettingError: with every variable that does not fit.
    """
    problems = [problem for name in RANKS if (problem := _rank_problem(name, processes)) is not None]
    if problems:
        raise SettingError("number of this process", problems)


def _rank_problem(name: str, processes: int) -> Problem | None:
    value = os.environ.get(name, "0")
    fix = f"unset {name}, or start every process of the run with torchrun, srun or make train EXECUTOR=ray"
    if not (value.isascii() and value.isdecimal()):
        return Problem(place=name, found=f"is {value!r}, not a number", fix=fix)
    if int(value) >= processes:
        found = f"is {value}, but this run has {processes} process{'es' * (processes > 1)}, counted from 0"
        return Problem(place=name, found=found, fix=f"{fix}; --running.devices and --running.nodes set their number")
    if name in BY_TORCHRUN and int(value) and "TORCHELASTIC_RUN_ID" not in os.environ:
        return Problem(place=name, found=f"is {value}, but torchrun did not start this process", fix=fix)
    return None


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
