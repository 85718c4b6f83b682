"""FSDP2: weights, gradients and optimiser in shards, of which every training process holds one."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from trainer.student.model import DistilledModel


def shard(model: DistilledModel, mesh: DeviceMesh) -> None:
    """Shard a model in place: every block and every head is gathered when its turn comes, the rest with the model.

    From then on only the model itself can be called, for it is what gathers. One in shards is left as it is.

    Args:
        model: student and heads, whole, and the same on every process.
        mesh: the processes, in one line.
    """
    if isinstance(model, FSDPModule):
        return
    for unit in (*_blocks(model.student.backbone), *model.heads.values()):
        fully_shard(unit, mesh=mesh)
    # by itself the outermost would stay whole after a look that nothing learns from
    fully_shard(model, mesh=mesh, reshard_after_forward=True)


@contextmanager
def whole(model: DistilledModel) -> Iterator[None]:
    """Hold every weight of a model whole, so that processes may look at different numbers of pictures; all must enter.

    Args:
        model: in shards, or whole as it is.
    """
    units = [part for part in model.modules() if isinstance(part, FSDPModule)]
    for unit in units:
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()
    yield
    for unit in units:
        unit.reshard()
        unit.set_reshard_after_forward(True, recurse=False)


def renumbered(state: dict[str, Any], optimiser: torch.optim.Optimizer, module: nn.Module) -> dict[str, Any]:
    """Return an optimiser's state with parameters numbered as the module has them, not by groups.

    Lightning takes numbers for the module's where a sharded run goes on from weights that were whole. Without shards it
    makes no difference: torch goes by places in the groups.

    Args:
        state: of the optimiser.
        optimiser: whose groups hold parameters of the module.
        module: that is trained.
    """
    numbers = {id(parameter): number for number, parameter in enumerate(module.parameters())}
    of = [numbers[id(parameter)] for group in optimiser.param_groups for parameter in group["params"]]
    groups = [{**group, "params": [of[place] for place in group["params"]]} for group in state["param_groups"]]
    return {"state": {of[place]: held for place, held in state["state"].items()}, "param_groups": groups}


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the outermost parts that come in a row, such as a transformer's blocks, where they hold weights."""
    for part in module.children():
        if isinstance(part, nn.Sequential | nn.ModuleList):
            yield from (one for one in part if any(True for _ in one.parameters()))
        else:
            yield from _blocks(part)
