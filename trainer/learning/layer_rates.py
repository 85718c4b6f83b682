"""The highest learning rate of each parameter: lower in lower layers of the backbone, and another for new parts."""

import re
from collections.abc import Collection, Mapping

from timm.models import group_parameters
from torch import nn

from storage_schemas.format.errors import Problem, SettingError
from trainer.settings.learning import OptimiserSettings
from trainer.student.model import DistilledModel
from trainer.student.vit.backbone import VitBackbone

_BACKBONE = "student.backbone."


def highest_rates(model: DistilledModel, new: Collection[str], settings: OptimiserSettings) -> dict[str, float]:
    """Return the highest learning rate of every parameter of a model, by name.

        lr · d^(L − l)   for layer l of the backbone, 0 to L − 1
        lr               for the heads

    Source: Bao et al. 2022, arXiv:2106.08254 (BEiT); the layers of a timm model are those that timm names.

    Args:
        model: student and heads. It may be sharded.
        new: names of parameters with a rate of their own, if the settings have one.
        settings: learning rate, its decay d from layer to layer, and the rate of new parts.

    Raises:
        SettingError: timm does not name the layers of the backbone.
    """
    rates = {name: settings.lr for name, _ in model.named_parameters()}
    if settings.layer_decay is not None:
        layers = layers_of(model.student.name, model.student.backbone)
        top = max(layers.values()) + 1
        decayed = {f"{_BACKBONE}{name}": settings.layer_decay ** (top - layer) for name, layer in layers.items()}
        rates |= {name: settings.lr * factor for name, factor in decayed.items() if name in rates}
    if settings.new_lr is not None:
        rates |= dict.fromkeys(new, settings.new_lr)
    return rates


def layers_of(student: str, backbone: nn.Module) -> Mapping[str, int]:
    """Return the layer of each parameter of a backbone, by name; 0 is nearest to the pixels.

    With RADIO's additions, patches, positions and tokens are layer 0, and each block is a layer; the last norm belongs
    to the last block, as with timm.

    Raises:
        SettingError: timm does not name the layers.
    """
    if isinstance(backbone, VitBackbone):
        return {name: _layer_of_vit(name, len(backbone.blocks)) for name, _ in backbone.named_parameters()}
    matcher = getattr(backbone, "group_matcher", None)
    if matcher is None:
        found, fix = f"timm does not name the layers of {student}", "leave optimiser.layer_decay out"
        raise SettingError("optimiser.layer_decay", [Problem(place=student, found=found, fix=fix)])
    return group_parameters(backbone, matcher(coarse=False), reverse=True)


def _layer_of_vit(name: str, depth: int) -> int:
    block = re.match(r"blocks\.(\d+)\.", name)
    if block:
        return int(block[1]) + 1
    return depth if name.startswith("norm.") else 0
