"""Giving a new student its starting weights: what was done with every part is told, and anything else is refused."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, final

import timm
import torch
from torch import nn

from storage_schemas.format.errors import Problem
from storage_schemas.format.phi_s import PhiS
from trainer.export import load
from trainer.run_folder import RunFolder
from trainer.student.model import DistilledModel
from trainer.student.student import Student
from trainer.student.vit.backbone import VitBackbone
from trainer.weights.earlier_student import FittedHeads, fit_earlier, fit_heads
from trainer.weights.files import StoredWeights, read_weights, unusable
from trainer.weights.fitted import FittedWeights, listed
from trainer.weights.origin import Origin
from trainer.weights.radio_layout import from_radio, is_radio
from trainer.weights.timm_fit import fit_timm
from trainer.weights.transformers_layout import from_transformers, is_of_transformers
from trainer.weights.vit_fit import fit_vit, match_scales


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StartedStudent:
    """What a student's starting weights gave it."""

    lines: tuple[str, ...]
    """For the user."""
    new: tuple[str, ...]
    """Names of the model's parameters that are as they were drawn."""


def start_from(model: DistilledModel, origin: Origin, phi_s: Mapping[str, PhiS]) -> StartedStudent:
    """Load starting weights into a new student and, from an earlier student, into its heads.

    Args:
        model: the new student and its heads. Its weights change, and so do the mean and standard deviation of its
            pixels, if the weights come with their own.
        origin: where the weights come from.
        phi_s: PHI-S map of each teacher of the run.

    Raises:
        SettingError: a tensor is missing, unknown, of another shape, NaN or infinite; every one is named.
        CorruptionError: the earlier student is not the one that its card names.
    """
    student, backbone = model.student, model.student.backbone
    heads, lines = FittedHeads(new=tuple(model.heads)), [f"from {origin.setting} (SHA-256 {origin.sha256[:12]}…)"]
    if RunFolder(path=origin.files[0].parent).card == origin.files[0]:
        earlier = load(origin.files[0].parent)
        fitted = fit_earlier(student, earlier)
        heads = fit_heads(model, earlier, phi_s)
    else:
        stored = read_weights(origin)
        lines += _about(stored)
        fitted = _fit_files(student, stored, lines)
    if isinstance(fitted, list):
        raise unusable(origin, fitted)
    with torch.no_grad():
        backbone.load_state_dict({**backbone.state_dict(), **fitted.tensors})
        model.heads.load_state_dict({**model.heads.state_dict(), **heads.tensors})
    lines += _pixels(student, fitted)
    new = (*(f"student.backbone.{name}" for name in fitted.new), *_parameters(model.heads, heads.new))
    lines += [f"loaded: {_loaded(backbone, fitted)} of the backbone's {len(backbone.state_dict())} tensors"]
    lines += [*fitted.lines, *heads.lines]
    every = [*fitted.new, *(f"the head {name}" for name in heads.new)]
    lines += [f"new, as drawn from the seed: {', '.join(every) or 'nothing'}"]
    return StartedStudent(lines=tuple(lines), new=new)


def _fit_files(student: Student, stored: StoredWeights, lines: list[str]) -> FittedWeights | list[Problem]:
    backbone = student.backbone
    if is_radio(stored.tensors):
        tensors, statistics, left_out = from_radio(stored.tensors)
        if not isinstance(backbone, VitBackbone):
            match_scales(tensors, backbone.state_dict(), lines)
        stored = replace(stored, tensors=tensors, statistics=statistics, timm_model="")
        lines += [f"left out: {listed(left_out)} (no part of C-RADIO's image backbone)"] if left_out else []
    elif is_of_transformers(stored.tensors):
        tensors, left_out = from_transformers(stored.tensors)
        stored = replace(stored, tensors=tensors)
        lines += [f"left out: {listed(left_out)} (no part of the trunk)"] if left_out else []
    if differing := list(_other_functions(backbone, stored)):
        return differing
    if isinstance(backbone, VitBackbone):
        return fit_vit(backbone, stored)
    positions = stored.tensors.get("pos_embed")
    if positions is not None and positions.ndim == 4 and not hasattr(backbone, "embeds"):
        stored = replace(stored, tensors={**stored.tensors, "pos_embed": positions.flatten(1, 2)})
    return fit_timm(backbone, stored)


def _about(stored: StoredWeights) -> Iterator[str]:
    if narrow := [name for name in stored.dtypes if name != "float32"]:
        yield f"stored as {', '.join(narrow)}, trained in float32"
    if stored.timm_model:
        yield f"of timm's {stored.timm_model}"


def _other_functions(backbone: nn.Module, stored: StoredWeights) -> Iterator[Problem]:
    """Yield what shapes do not tell: other attention heads, epsilons of norms, or activations than the weights'."""
    for what, ours, theirs in (
        ("attention heads", _heads(backbone), stored.config.get("num_attention_heads")),
        ("epsilon of norms", _epsilons(backbone), _epsilon(stored.config)),
    ):
        if ours and theirs is not None and ours != {theirs}:
            yield _of_another(what, ours, {theirs})
    if not stored.timm_model or not timm.is_model(stored.timm_model):
        return
    with torch.device("meta"):
        model: Any = timm.create_model(stored.timm_model, pretrained=False)
    for what, has in (("attention heads", _heads), ("epsilon of norms", _epsilons), ("activations", _activations)):
        ours, theirs = has(backbone), has(model)
        if ours and theirs and not ours <= theirs:
            yield _of_another(what, ours, theirs)


def _of_another(what: str, ours: set[Any], theirs: set[Any]) -> Problem:
    mine, others = (", ".join(map(str, sorted(values, key=str))) for values in (ours, theirs))
    fix = "choose the student that these weights are of"
    return Problem(place=what, found=f"the weights were trained with {others}, the student has {mine}", fix=fix)


def _heads(model: nn.Module) -> set[Any]:
    counts = (getattr(part, "num_heads", None) for part in model.modules())
    return {count for count in counts if isinstance(count, int)}


def _epsilons(model: nn.Module) -> set[Any]:
    return {part.eps for part in model.modules() if isinstance(part, nn.LayerNorm)}


def _epsilon(config: Mapping[str, Any]) -> float | None:
    """Return the epsilon that a configuration gives. Below 1e-6, which is timm's, it makes no difference."""
    epsilon = config.get("layer_norm_eps")
    return None if epsilon is None else max(float(epsilon), 1e-6)


def _activations(model: nn.Module) -> set[Any]:
    return {type(part).__name__ for part in model.modules() if "activation" in type(part).__module__}


def _pixels(student: Student, fitted: FittedWeights) -> Iterator[str]:
    """Take over how the pixels of the weights' model were normalised."""
    if fitted.statistics is None:
        mean, std = (_numbers(values.flatten().tolist()) for values in (student.mean, student.std))
        yield f"pixels: the weights do not say how they were normalised; here by mean {mean}, std {std}"
        return
    for own, values in zip((student.mean, student.std), fitted.statistics, strict=True):
        own.copy_(torch.tensor(values).reshape(own.shape))
    mean, std = map(_numbers, fitted.statistics)
    yield f"pixels: normalised as those of the weights' model, by mean {mean}, std {std}"


def _numbers(values: tuple[float, ...] | list[float]) -> str:
    return " ".join(f"{value:.4g}" for value in values)


def _loaded(backbone: nn.Module, fitted: FittedWeights) -> int:
    return len(backbone.state_dict()) - len(fitted.new)


def _parameters(heads: nn.ModuleDict, names: tuple[str, ...]) -> Iterator[str]:
    for name in names:
        yield from (f"heads.{name}.{part}" for part, _ in heads.get_submodule(name).named_parameters())
