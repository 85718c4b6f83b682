"""Reading files of weights: their tensors, and what they say about their model. No code in a file is run."""

import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import safetensors
import safetensors.torch
import torch
from timm.models import get_pretrained_cfg
from torch import Tensor

from storage_schemas.format.errors import MALFORMED, Problem, SettingError
from trainer.weights.file_names import CONFIG, PIXELS, SAFETENSORS
from trainer.weights.origin import Origin

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each colour (in [0, 1])."""
INSIDE = ("state_dict_ema", "model_ema", "state_dict", "model")
"""Keys under which training programs put the tensors of a model."""
WRAPPED = ("module.", "_orig_mod.")
"""Prefixes that wrappers of torch put before the names of a whole model."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StoredWeights:
    """Weights as they are stored."""

    tensors: Mapping[str, Tensor]
    """By name. Floating-point numbers are float32."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """What `config.json` beside the weights says."""
    timm_model: str = ""
    """The timm model that they are of, with its tag if it is known. Empty: the files do not say."""
    statistics: Statistics | None = None
    """How their model's pixels are normalised; None: the files do not say."""
    dtypes: tuple[str, ...] = ()
    """The types of floating-point numbers in the files."""


def read_weights(origin: Origin) -> StoredWeights:
    """Read the tensors of starting weights.

    Raises:
        SettingError: a file is not whole, or holds something else than tensors; or a tensor is NaN or infinite.
    """
    tensors: dict[str, Tensor] = {}
    about: dict[str, dict[str, Any]] = {CONFIG: {}, PIXELS: {}}
    for file in origin.files:
        if file.name in about:
            about[file.name] = _read_config(file)
        else:
            tensors |= _read_safetensors(file) if file.suffix == SAFETENSORS else _read_pickled(file)
    floating = {name: value for name, value in tensors.items() if value.is_floating_point()}
    if broken := [name for name, value in floating.items() if not value.isfinite().all()]:
        raise unusable(origin, [Problem(place=name, found="holds NaN or infinity") for name in broken])
    return StoredWeights(
        tensors=tensors | {name: value.float() for name, value in floating.items()},
        config=about[CONFIG],
        timm_model=origin.timm_model or str(about[CONFIG].get("architecture", "")),
        statistics=_statistics(origin.timm_model, about[CONFIG], about[PIXELS]),
        dtypes=tuple(sorted({str(value.dtype).removeprefix("torch.") for value in floating.values()})),
    )


def unusable(origin: Origin, problems: list[Problem]) -> SettingError:
    """Return the refusal of starting weights, with every problem."""
    return SettingError(f"starting weights {origin.setting}", problems)


def _statistics(timm_model: str, config: Mapping[str, Any], pixels: Mapping[str, Any]) -> Statistics | None:
    if timm_model:
        published: Any = get_pretrained_cfg(timm_model)
        return tuple(published.mean), tuple(published.std)
    own = config.get("pretrained_cfg", {})
    if "mean" in own and "std" in own:
        return tuple(own["mean"]), tuple(own["std"])
    if pixels.get("do_normalize") and "image_mean" in pixels and "image_std" in pixels:
        return tuple(pixels["image_mean"]), tuple(pixels["image_std"])
    return None


def _read_config(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text()))
    except MALFORMED as error:
        raise _unreadable(file, f"is not a JSON object: {error}") from error


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(file)
    except safetensors.SafetensorError as error:
        raise _unreadable(file, f"is not a whole safetensors file: {error}") from error


def _read_pickled(file: Path) -> dict[str, Tensor]:
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, *MALFORMED) as error:
        found = f"is not whole, or holds more than tensors ({type(error).__name__}); no code in it was run"
        raise _unreadable(file, found, "save only the model's state_dict") from error
    inside = [name for name in INSIDE if isinstance(loaded, dict) and isinstance(loaded.get(name), dict)]
    if len(inside) > 1:
        found = f"holds several sets of weights: {', '.join(inside)}"
        raise _unreadable(file, found, "save the one that you want in a file of its own")
    tensors = loaded[inside[0]] if inside else loaded
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise _unreadable(file, "is not a mapping of names to tensors", "save only the model's state_dict")
    return _unwrapped(tensors)


def _unwrapped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Drop the prefixes that wrappers put before every name."""
    while (prefix := next((wrapped for wrapped in WRAPPED if all(map(_begins(wrapped), tensors))), None)) and tensors:
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def _begins(prefix: str) -> Any:
    return lambda name: name.startswith(prefix)


def _unreadable(file: Path, found: str, fix: str = "download it again") -> SettingError:
    return SettingError("starting weights", [Problem(place=str(file), found=found, fix=fix)])
