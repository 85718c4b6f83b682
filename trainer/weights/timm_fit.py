"""Fitting weights to a backbone as timm builds it."""

import re
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor

from storage_schemas.format.errors import Problem
from trainer.weights.files import StoredWeights
from trainer.weights.fitted import FittedWeights, listed, mismatches, shape_of

FILTERS = ("checkpoint_filter_fn", "_filter_fn", "_filter_torchvision_pretrained")
"""Names under which timm's modules keep the function that converts older weights of their family."""
COMPUTED = re.compile(r"(relative_position_index|attn_mask|relative_coords_table|mask_token)$")
"""Tensors of a file that timm leaves out: it computes them from the sizes, or they belong to a task of training."""


def fit_timm(backbone: Any, stored: StoredWeights) -> FittedWeights | list[Problem]:
    """Fit weights to a backbone of timm, or return a problem for every tensor that does not fit.

    If names or shapes differ, timm's own function for the family converts the weights; this is also what resamples
    positions and patches. What it returns must have the backbone's names and shapes, all of them and no others.

    Args:
        backbone: a timm model without its classifier.
        stored: the weights.
    """
    expected = backbone.state_dict()
    heads = classifier_names(backbone, stored.tensors)
    fitted = {name: value for name, value in stored.tensors.items() if name not in heads}
    if not mismatches(fitted, expected):
        return FittedWeights(tensors=fitted, lines=_left_out(heads), statistics=stored.statistics)
    try:
        converted = dict(_filter(backbone)(dict(stored.tensors), backbone))
    except Exception as error:  # each family has its own way to reject weights
        first_line = next(iter(str(error).splitlines()), "")
        problem = Problem(place="timm's conversion of these weights", found=f"{type(error).__name__}: {first_line}")
        return [*mismatches(fitted, expected), problem]
    converted = {name: value for name, value in converted.items() if name not in classifier_names(backbone, converted)}
    kept = {value.data_ptr() for value in converted.values()}
    dropped = [
        name
        for name, value in fitted.items()
        if name not in converted and value.data_ptr() not in kept and not COMPUTED.search(name)
    ]
    unexplained = [Problem(place=name, found="is not a tensor of this student") for name in dropped]
    if problems := [*mismatches(converted, expected), *unexplained]:
        return problems
    computed = tuple(name for name in fitted if COMPUTED.search(name) and name not in converted)
    return FittedWeights(
        tensors=converted,
        lines=(*_resampled(stored.tensors, converted), *_left_out(heads), *_not_needed(computed)),
        statistics=stored.statistics,
    )


def classifier_names(backbone: Any, tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the tensors that belong to the model's classifier."""
    layers = backbone.pretrained_cfg.get("classifier") or ()
    prefixes = tuple(f"{layer}." for layer in ([layers] if isinstance(layers, str) else layers))
    own = backbone.state_dict()
    return [name for name in tensors if name.startswith(prefixes) and name not in own]


def _filter(backbone: Any) -> Callable[[dict[str, Tensor], Any], Mapping[str, Tensor]]:
    module = sys.modules[type(backbone).__module__]
    found = next((getattr(module, name) for name in FILTERS if hasattr(module, name)), None)
    if found is None:
        return lambda tensors, _: tensors
    if "_radio_" in str(backbone.pretrained_cfg.get("architecture", "")) and not hasattr(backbone, "embeds"):
        return partial(found, interpolation="bilinear", antialias=False)  # as timm resamples C-RADIO's positions
    return found


def _resampled(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> list[str]:
    return [
        f"resampled: {name} from {shape_of(before[name])} to {shape_of(value)}"
        for name, value in after.items()
        if name in before and before[name].shape != value.shape
    ]


def _left_out(heads: list[str]) -> tuple[str, ...]:
    return (f"left out: {listed(heads)} (its classifier)",) if heads else ()


def _not_needed(names: tuple[str, ...]) -> tuple[str, ...]:
    return (f"left out: {listed(names)} (timm computes them)",) if names else ()
