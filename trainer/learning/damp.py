"""DAMP: multiplicative noise on the weights of the student in training."""

from collections.abc import Iterator

import torch
from timm.layers import PatchEmbed
from torch import Tensor, nn

from trainer.settings.learning import DampedLayers


def damped_weights(model: nn.Module, sigma: float, seed: int, layers: DampedLayers = "all-linear") -> dict[str, Tensor]:
    """Return the weights of some layers with noise, by their names in the model.

        w ∘ (1 + σ z),   z ~ N(0, 1) for each element

    The gradient of the weights passes through the product. Biases, norms and embeddings get no noise. Source: v4
    section 2.4; Trinh et al. 2024, "Improving robustness to corruptions with multiplicative weight perturbations". The
    layers are those of NVlabs/RADIO (`enable_damp.py`, `hubconf.py`): every linear layer of the backbone, which there
    includes the patch embedding. Here the patch embedding is a convolution whose patches do not overlap: the same map.

    Args:
        model: student and heads.
        sigma: σ (unitless).
        seed: seed of the noise. A seed always gives the same noise on the same kind of device.
        layers: see `TrainRecipe.damp_layers`; `backbone` needs a model with a `student.backbone`.
    """
    generators: dict[torch.device, torch.Generator] = {}
    damped = {}
    for name, weight in _linear_weights(model) if layers == "all-linear" else _backbone_weights(model):
        if weight.device not in generators:
            generators[weight.device] = torch.Generator(weight.device).manual_seed(seed)
        noise = torch.randn(weight.shape, generator=generators[weight.device], device=weight.device)
        damped[name] = weight * (1 + sigma * noise)
    return damped


def _linear_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            yield f"{name}.weight".removeprefix("."), module.weight


def _backbone_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, module in model.get_submodule("student.backbone").named_modules(prefix="student.backbone"):
        if isinstance(module, nn.Linear):
            yield f"{name}.weight", module.weight
        elif isinstance(module, PatchEmbed):
            yield f"{name}.proj.weight", module.proj.weight
