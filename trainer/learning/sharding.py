"""FSDP2: weights, gradients and optimiser are sharded over the training processes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from trainer.student.model import DistilledModel


def shard(model: DistilledModel, mesh: DeviceMesh) -> None:
    """Shard a model in place. A block or a head is gathered when it runs; all other weights, when the model runs.

    Afterwards only the whole model can be called, because its call gathers the weights. A sharded model stays as it is.

    Args:
        model: student and heads, the same on every process.
        mesh: the processes, in one dimension.
    """
    if isinstance(model, FSDPModule):
        return
    for unit in sharded_units(model):
        fully_shard(unit, mesh=mesh)
    # without this, the root would stay gathered after a forward pass without a backward pass
    fully_shard(model, mesh=mesh, reshard_after_forward=True)


def sharded_units(model: DistilledModel) -> list[nn.Module]:
    """Return the parts of a model whose weights are gathered together: blocks and heads. The rest is one more unit."""
    return [*_blocks(model.student.backbone), *model.heads.values()]


@contextmanager
def whole(model: DistilledModel) -> Iterator[None]:
    """Keep all weights of a model gathered, so that processes may run it on different numbers of images.

    Every process must enter this context.

    Args:
        model: sharded; for a model that is not, this does nothing.
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
    """Return an optimiser's state with parameters numbered by their place in the module, not in the groups.

    A sharded run that resumes from whole weights needs this, because Lightning then reads the numbers as places in the
    module. Other runs are not affected: torch uses only the places in the groups.

    Args:
        state: state of the optimiser.
        optimiser: its groups hold parameters of the module.
        module: the module that is trained.
    """
    numbers = {id(parameter): number for number, parameter in enumerate(module.parameters())}
    number_at = [numbers[id(parameter)] for group in optimiser.param_groups for parameter in group["params"]]
    groups = [{**group, "params": [number_at[place] for place in group["params"]]} for group in state["param_groups"]]
    return {"state": {number_at[place]: value for place, value in state["state"].items()}, "param_groups": groups}


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the members of the outermost lists of modules, such as a transformer's blocks, if they have weights."""
    for part in module.children():
        if isinstance(part, nn.Sequential | nn.ModuleList):
            yield from (block for block in part if any(True for _ in block.parameters()))
        else:
            yield from _blocks(part)
