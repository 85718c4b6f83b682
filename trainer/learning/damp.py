"""DAMP: multiplicative noise on the weights of the student in training."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from timm.layers import PatchEmbed
from torch import Tensor, nn

from storage_schemas.format.errors import Problem, SettingError
from trainer.settings.learning import DampedLayers

BACKBONE = "student.backbone"


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NoiseDraw:
    """The noise of one weight: where its normal numbers begin in the stream of a seed."""

    state: Tensor
    """State of torch's generator before the first number."""
    sigma: float
    """σ (unitless)."""

    def factor(self, weight: Tensor) -> Tensor:
        """Return 1 + σ z for a weight, the same in every call."""
        generator = torch.Generator(weight.device)
        generator.set_state(self.state)
        return 1 + self.sigma * torch.randn(weight.shape, generator=generator, device=weight.device)


@final
class WeightNoise:
    """Noise on some layers of a model whenever they run in training mode.

        w ∘ (1 + σ z),   z ~ N(0, 1) for each element

    The gradient of the weights passes through the product. Biases, norms and embeddings get no noise. Source: v4
    section 2.4; Trinh et al. 2024, "Improving robustness to corruptions with multiplicative weight perturbations". The
    layers are those of NVlabs/RADIO (`enable_damp.py`, `hubconf.py`): every linear layer of the backbone, which there
    includes the patch embedding. Here the patch embedding is a convolution whose patches do not overlap: the same map.

    The noise itself is not kept: a forward pass, its repetition under activation checkpointing, and the backward pass
    draw it again from the seed.
    """

    def __init__(self, model: nn.Module, sigma: float, layers: DampedLayers, *, layer_by_layer: bool) -> None:
        """Put hooks on a model. There is no noise before the first `draw`.

        Args:
            model: student and heads.
            sigma: σ (unitless).
            layers: see `TrainRecipe.damp_layers`; `backbone` needs a model with a `student.backbone`.
            layer_by_layer: whether a weight gets its noise when its own layer is called, instead of when the model is
                called. Sharded weights and recomputed blocks need this.
        """
        self.sigma, self.layers = sigma, dict(damped_layers(model, layers))
        self.seed: int | None = None
        self.draws: Mapping[str, NoiseDraw] = {}
        self._kept: dict[str, Tensor] = {}
        self._called: set[str] = set()
        units = {name: (layer, [name]) for name, layer in self.layers.items()}
        for unit, names in units.values() if layer_by_layer else [(model, list(self.layers))]:
            self._hook(unit, names)

    def draw(self, seed: int) -> None:
        """Draw the noise of a seed, which is the same on every process with the same kind of device."""
        self._called = set()
        if seed != self.seed:
            self.seed, self.draws = seed, noise_draws(self.layers, self.sigma, seed)

    def require_everywhere(self, model: str) -> None:
        """Refuse a backbone that has run without the noise of a layer since the last `draw`.

        Args:
            model: name of the backbone.

        Raises:
            SettingError: it uses the weights of a layer without calling the layer.
        """
        missed = [name for name in self.layers if name not in self._called and name.startswith(BACKBONE)]
        if missed:
            found = "uses the weights of these layers without calling the layers, so they get no noise"
            fix = "set damp to 0, or train with --running.strategy ddp and --running.checkpointing False"
            problems = [Problem(place=name, found="has no noise") for name in missed]
            raise SettingError("damp", [Problem(place=model, found=found, fix=fix), *problems])

    def _hook(self, unit: nn.Module, names: list[str]) -> None:
        def add(module: nn.Module, _inputs: Any) -> None:
            if module.training and self.draws:
                for name in names:
                    self._add(name)

        def take_away(_module: nn.Module, _inputs: Any, _output: Any) -> None:
            for name in names:
                self._take_away(name)

        unit.register_forward_pre_hook(add)  # FSDP's hook comes before this one, and gathers the weights
        # always: activation checkpointing ends a repeated forward pass with an exception
        unit.register_forward_hook(take_away, prepend=True, always_call=True)

    def _add(self, name: str) -> None:
        parameters: dict[str, Any] = self.layers[name]._parameters
        self._kept[name] = weight = parameters["weight"]
        parameters["weight"] = damped(weight, self.draws[name])
        self._called.add(name)

    def _take_away(self, name: str) -> None:
        if name in self._kept:
            parameters: dict[str, Any] = self.layers[name]._parameters
            parameters["weight"] = self._kept.pop(name)


def damped(weight: Tensor, draw: NoiseDraw) -> Tensor:
    """Return w ∘ (1 + σ z)."""
    return _Damped.apply(weight, draw)


def noise_draws(layers: Mapping[str, nn.Module], sigma: float, seed: int) -> dict[str, NoiseDraw]:
    """Return the noise of some layers: the normal numbers of a seed, one layer after another.

    Args:
        layers: by name, each with a weight.
        sigma: σ (unitless).
        seed: seed of the noise. A seed always gives the same noise on the same kind of device.
    """
    generators: dict[torch.device, torch.Generator] = {}
    draws = {}
    for name, layer in layers.items():
        shape, device = layer.get_parameter("weight").shape, layer.get_parameter("weight").device
        if device not in generators:
            generators[device] = torch.Generator(device).manual_seed(seed)
        draws[name] = NoiseDraw(state=generators[device].get_state(), sigma=sigma)
        torch.randn(shape, generator=generators[device], device=device)
    return draws


def damped_layers(model: nn.Module, layers: DampedLayers) -> Iterator[tuple[str, nn.Module]]:
    """Yield the layers of a model that get noise, by the name of their weight."""
    if layers == "all-linear":
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear):
                yield f"{name}.weight".removeprefix("."), module
        return
    for name, module in model.get_submodule(BACKBONE).named_modules(prefix=BACKBONE):
        if isinstance(module, nn.Linear):
            yield f"{name}.weight", module
        elif isinstance(module, PatchEmbed):
            yield f"{name}.proj.weight", module.proj


@final
class _Damped(torch.autograd.Function):
    """The product with the noise, which draws the noise again for the gradient instead of keeping it."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, draw: NoiseDraw) -> Tensor:
        ctx.draw = draw
        return weight * draw.factor(weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        [grad] = grads
        return grad * ctx.draw.factor(grad), None
