"""Strict reading of a network from a file: a tensor that is missing, unexpected, misshapen or not finite is refused."""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor, nn

from storage_schemas.format.errors import ContractError, Problem, first_problems
from teachers.layout import Check, Layout, Origin, UnfitTensorError
from teachers.weight_files import StoredTensor

FLOATS = ("float32", "bfloat16", "float16")

Stored = Mapping[str, StoredTensor]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """A layout, applied to one network and one file. All names include the prefix."""

    layout: Layout
    origins: Mapping[str, Origin]
    checks: Mapping[str, Check]

    @property
    def sources(self) -> dict[str, tuple[int, ...]]:
        """Name → expected shape of every tensor of the file that the network needs."""
        origins = self.origins.values()
        return {name: shape for origin in origins for name, shape in zip(origin.sources, origin.shapes, strict=True)}


def read_network(
    network: nn.Module, layouts: Sequence[Layout], stored: Stored, dtype: torch.dtype, subject: str
) -> dict[str, Tensor]:
    """Read every tensor of a network from a file in one of its family's layouts.

    It takes the layout that finds most of its names in the file. Then every name must fit.

    Args:
        network: on the meta device; its names and shapes say what the file must contain.
        layouts: of its family.
        stored: the tensors of the file.
        dtype: of the result.
        subject: the file's name in messages.

    Returns:
        Name in the network → values.

    Raises:
        ContractError: a tensor is missing, unexpected, misshapen, not finite, or not of a float type.
    """
    plan = _best_plan(network, layouts, stored, subject)
    problems = [*_wrong_names(plan, stored), *_wrong_shapes(plan, stored)]
    if problems:
        raise ContractError(f"{subject} in the layout of {plan.layout.name},", first_problems(problems, most=12))
    for name, check in plan.checks.items():
        with _at(subject, name):
            check(stored[name].read())
    return {target: _made(origin, stored, subject).to(dtype) for target, origin in plan.origins.items()}


def _best_plan(network: nn.Module, layouts: Sequence[Layout], stored: Stored, subject: str) -> _Plan:
    plans = [_plan(network, layout, prefix, stored) for layout in layouts for prefix in layout.prefixes]
    best = max(plans, key=lambda plan: (len(plan.sources.keys() & stored.keys()), -len(plan.sources)))
    if best.sources.keys() & stored.keys():
        return best
    known = ", ".join(layout.name for layout in layouts)
    found = f"no tensor has a name of this model in the layouts {known}; the file has {', '.join(sorted(stored)[:3])}"
    raise ContractError(subject, [Problem(place="names", found=found, fix="check that it is a file of this model")])


def _plan(network: nn.Module, layout: Layout, prefix: str, stored: Stored) -> _Plan:
    origins = {
        target: replace(origin, sources=tuple(prefix + name for name in origin.sources))
        for target, origin in layout.origins(network).items()
    }
    unused = layout.unused(network).items()
    checks = {
        name: check for pattern, check in unused for name in stored if re.fullmatch(re.escape(prefix) + pattern, name)
    }
    return _Plan(layout=layout, origins=origins, checks=checks)


def _wrong_names(plan: _Plan, stored: Stored) -> Iterator[Problem]:
    for name in sorted(plan.sources.keys() - stored.keys()):
        yield Problem(place=name, found="missing")
    for name in sorted(stored.keys() - plan.sources.keys() - plan.checks.keys()):
        if not re.match(plan.layout.beside, name):
            yield Problem(place=name, found="unexpected")


def _wrong_shapes(plan: _Plan, stored: Stored) -> Iterator[Problem]:
    for name, shape in sorted(plan.sources.items()):
        if name not in stored:
            continue
        if stored[name].shape != shape:
            yield Problem(place=name, found=f"shape {stored[name].shape}, expected {shape}")
        if stored[name].dtype not in FLOATS:
            yield Problem(place=name, found=f"dtype {stored[name].dtype}, expected one of {', '.join(FLOATS)}")


def _made(origin: Origin, stored: Stored, subject: str) -> Tensor:
    tensors = [stored[name].read().float() for name in origin.sources]
    for name, tensor in zip(origin.sources, tensors, strict=True):
        if not tensor.isfinite().all():
            raise ContractError(subject, [Problem(place=name, found="NaN or infinity")])
    with _at(subject, " and ".join(origin.sources)):
        return origin.make(tensors).contiguous()


@contextlib.contextmanager
def _at(subject: str, name: str) -> Iterator[None]:
    """Turn an UnfitTensorError into the refusal of the file, with the place in it."""
    try:
        yield
    except UnfitTensorError as error:
        raise ContractError(subject, [Problem(place=name, found=str(error))]) from error
