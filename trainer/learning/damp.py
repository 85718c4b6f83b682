"""DAMP: multiplicative noise on the weights of the student in training."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn


def damped_weights(model: nn.Module, sigma: float, seed: int) -> dict[str, Tensor]:
    """Return the weights of every linear layer with noise, by their names in the model.

        w ∘ (1 + σ z),   z ~ N(0, 1) for each element

    The gradient of the weights passes through the product. Biases, norms, convolutions and embeddings get no noise.
    Source: v4 section 2.4; Trinh et al. 2024, "Improving robustness to corruptions with multiplicative weight
    perturbations"; the choice of weights is that of NVlabs/RADIO.

    Args:
        model: student and heads.
        sigma: σ (unitless).
        seed: seed of the noise. A seed always gives the same noise on the same kind of device.
    """
    generators: dict[torch.device, torch.Generator] = {}
    damped = {}
    for name, weight in _linear_weights(model):
        if weight.device not in generators:
            generators[weight.device] = torch.Generator(weight.device).manual_seed(seed)
        noise = torch.randn(weight.shape, generator=generators[weight.device], device=weight.device)
        damped[name] = weight * (1 + sigma * noise)
    return damped


def _linear_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            yield f"{name}.weight".removeprefix("."), module.weight
