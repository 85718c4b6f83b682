"""Trying a model of each family of timm as a student: at which image sizes it gives tokens and learns, or why not."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import timm
import torch
from timm.models import get_pretrained_cfg

from storage_schemas.format.errors import SettingError
from storage_schemas.timm_families import FAMILIES
from trainer.student.shape import measure_student
from trainer.student.student import Student

SIZES = (128, 256)
"""Sides of the images at which every family is tried, besides its own (pixels)."""
LARGEST = 200_000_000
"""Parameters beyond which a model is tried without weights, on torch's meta device: its shapes alone."""
LONGEST_REASON = 160
"""Characters of a reason."""
MODELS: Mapping[str, str] = {
    **FAMILIES,
    "byobnet": "repvgg_a0",
    "convnext": "convnext_atto",
    "efficientnet": "efficientnet_b0",
    "mambaout": "mambaout_femto",
    "maxxvit": "coatnet_pico_rw_224",
    "nfnet": "eca_nfnet_l0",
    "resnet": "resnet10t",
    "vision_transformer": "vit_tiny_patch16_224",
    "vision_transformer_relpos": "vit_relpos_small_patch16_224",
}
"""Family of timm 1.0.31 → its model with the fewest parameters; a small published model where that is one for tests."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyTrial:
    """What became of a model of a family."""

    family: str
    """timm's module."""
    model: str
    """The model that was tried."""
    own_size: int
    """Image side for which timm publishes it (pixels)."""
    any_size: tuple[int, ...]
    """Sides at which it works as it is built by default (pixels)."""
    built_size: tuple[int, ...]
    """Sides at which it works if `image_size` is set to them (pixels)."""
    stride: int | None
    """Side of a token (pixels); None if it could not be built."""
    meta: bool
    """Whether only its shapes were tried."""
    reason: str
    """Why it does not work at the other sides; empty if it works at all."""


def families() -> list[str]:
    """Return timm's families: the modules that its models are in."""
    return sorted(module for module in timm.list_modules() if timm.list_models(module=module))


def model_of(family: str) -> str:
    """Return the model that stands for a family; for one that timm has added since, that with the fewest parameters."""
    names = timm.list_models(module=family)
    return MODELS[family] if MODELS.get(family) in names else min(names, key=_parameters)


def try_family(family: str, model: str) -> FamilyTrial:
    """Try a model as a student: at 128 and 256 px and at its own size, by default and built for the size.

    At a size that works the student gives square tokens and a summary; at the smallest it also learns: the gradient of
    both reaches its weights and is finite. A model of more than `LARGEST` parameters is tried on the meta device, where
    only shapes are computed.

    Args:
        family: timm's module.
        model: a model of it.
    """
    meta = _parameters(model) > LARGEST
    published: Any = get_pretrained_cfg(model)
    own = int(published.input_size[1])
    sizes = sorted({*SIZES, own})
    student = _build(model, None, meta)
    found = {size: _measure(student, size, meta) for size in sizes}
    built, students = dict[int, Student](), {size: student for size, stride in found.items() if isinstance(stride, int)}
    for size in (size for size, reason in found.items() if isinstance(reason, str)):
        candidate = _build(model, size, meta)
        if isinstance(candidate, Student) and isinstance(_measure(candidate, size, meta), int):
            built[size] = candidate
    working = {size: tried for size, tried in {**students, **built}.items() if isinstance(tried, Student)}
    reasons = [f"{size} px: {reason}" for size, reason in found.items() if size not in working]
    if working and not meta and (problem := _learning_problem(working[min(working)], min(working))):
        reasons, working = [f"{min(working)} px: {problem}"], {}
    return FamilyTrial(
        family=family,
        model=model,
        own_size=own,
        any_size=tuple(size for size in sizes if size in students and size in working),
        built_size=tuple(size for size in sizes if size in built and size in working),
        stride=working[min(working)].stride if working else None,
        meta=meta,
        reason=_one_line(reasons),
    )


def _parameters(model: str) -> int:
    with torch.device("meta"):
        return sum(weight.numel() for weight in timm.create_model(model, pretrained=False).parameters())


def _build(model: str, image_size: int | None, meta: bool) -> Student | str:
    """Return a student, or why it cannot be built."""
    try:
        with torch.device("meta" if meta else "cpu"), torch.random.fork_rng():
            torch.manual_seed(0)
            return Student(model, image_size)
    except Exception as error:  # each family has its own way to reject a size
        return _why(error)


def _measure(student: Student | str, size: int, meta: bool) -> int | str:
    """Return the side of a student's tokens at a size, or why it gives none."""
    if isinstance(student, str):
        return student
    try:
        with torch.device("meta" if meta else "cpu"):
            measure_student(student, [size])
    except SettingError as error:
        return error.problems[0].found
    return student.stride


def _learning_problem(student: Student, size: int) -> str:
    """Return why a student does not learn at a size; nothing if it does."""
    try:
        output = student.train()(torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)))
        (output.spatial.square().mean() + output.summaries.square().mean()).backward()
    except Exception as error:  # each family has its own way to fail
        return f"it does not learn: {_why(error)}"
    gradients = [weight.grad for weight in student.parameters() if weight.grad is not None]
    finite = bool(gradients) and all(bool(gradient.isfinite().all()) for gradient in gradients)
    return "" if finite else "it does not learn: no gradient, or one that is not finite"


def _why(error: Exception) -> str:
    if isinstance(error, SettingError):
        return error.problems[0].found
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"


def _one_line(reasons: list[str]) -> str:
    if not reasons:
        return ""
    return reasons[0] if len(reasons[0]) <= LONGEST_REASON else f"{reasons[0][:LONGEST_REASON]}…"
