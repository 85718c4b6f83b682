"""The strict reading of a network from a file: what is missing, unexpected, misshapen or not finite is refused."""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from storage_schemas.format.errors import ContractError, Problem, first_problems
from teachers.layout import Check, Layout, Origin, UnfitTensorError
from teachers.weight_files import StoredTensor

_FLOATS = ("float32", "bfloat16", "float16")

Stored = Mapping[str, StoredTensor]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """A layout, applied to one network and one file. Names carry the prefix."""

    layout: Layout
    origins: Mapping[str, Origin]
    checks: Mapping[str, Check]

    @property
    def sources(self) -> dict[str, tuple[int, ...]]:
        origins = self.origins.values()
        return {name: shape for each in origins for name, shape in zip(each.sources, each.shapes, strict=True)}


def read_network(
    network: nn.Module, layouts: Sequence[Layout], stored: Stored, dtype: torch.dtype, subject: str
) -> dict[str, Tensor]:
    """Read every tensor of a network from a file in one of its family's layouts.

    The layout is the one that finds most of its names in the file; then it has to fit to the last name.

    Args:
        network: on the meta device; its names and shapes are what must be found.
        layouts: of its family.
        stored: the file.
        dtype: of the result.
        subject: what to call the file in messages.

    Returns:
        Name in the network → values.

    Raises:
        ContractError: a tensor is missing, unexpected, misshapen, of a dtype that is no float's, or not finite.
    """
    plan = _most_alike(network, layouts, stored, subject)
    problems = [*_names_at_odds(plan, stored), *_misshapen(plan, stored)]
    if problems:
        raise ContractError(f"{subject} in the layout of {plan.layout.name},", first_problems(problems, most=12))
    for name, check in plan.checks.items():
        with _naming(subject, name):
            check(stored[name].read())
    return {target: _made(origin, stored, subject).to(dtype) for target, origin in plan.origins.items()}


def _most_alike(network: nn.Module, layouts: Sequence[Layout], stored: Stored, subject: str) -> _Plan:
    plans = [_plan(network, layout, prefix, stored) for layout in layouts for prefix in layout.prefixes]
    best = max(plans, key=lambda plan: (len(plan.sources.keys() & stored.keys()), -len(plan.sources)))
    if best.sources.keys() & stored.keys():
        return best
    known = ", ".join(layout.name for layout in layouts)
    found = (
        f"no tensor of this model under a name that {known} would give it; there are {', '.join(sorted(stored)[:3])}"
    )
    raise ContractError(subject, [Problem(place="names", found=found, fix="is it the file of another model?")])


def _plan(network: nn.Module, layout: Layout, prefix: str, stored: Stored) -> _Plan:
    origins = {
        target: Origin(sources=tuple(prefix + name for name in each.sources), shapes=each.shapes, make=each.make)
        for target, each in layout.origins(network).items()
    }
    unused = layout.unused(network).items()
    checks = {
        name: check for pattern, check in unused for name in stored if re.fullmatch(re.escape(prefix) + pattern, name)
    }
    return _Plan(layout=layout, origins=origins, checks=checks)


def _names_at_odds(plan: _Plan, stored: Stored) -> Iterator[Problem]:
    for name in sorted(plan.sources.keys() - stored.keys()):
        yield Problem(place=name, found="missing")
    for name in sorted(stored.keys() - plan.sources.keys() - plan.checks.keys()):
        if not re.match(plan.layout.beside, name):
            yield Problem(place=name, found="unexpected")


def _misshapen(plan: _Plan, stored: Stored) -> Iterator[Problem]:
    for name, shape in sorted(plan.sources.items()):
        if name not in stored:
            continue
        if stored[name].shape != shape:
            yield Problem(place=name, found=f"shape {stored[name].shape}, expected {shape}")
        if stored[name].dtype not in _FLOATS:
            yield Problem(place=name, found=f"dtype {stored[name].dtype}, expected one of {', '.join(_FLOATS)}")


def _made(origin: Origin, stored: Stored, subject: str) -> Tensor:
    tensors = [stored[name].read().float() for name in origin.sources]
    for name, tensor in zip(origin.sources, tensors, strict=True):
        if not tensor.isfinite().all():
            raise ContractError(subject, [Problem(place=name, found="NaN or infinity")])
    with _naming(subject, " and ".join(origin.sources)):
        return origin.make(tensors).contiguous()


@contextlib.contextmanager
def _naming(subject: str, name: str) -> Iterator[None]:
    try:
        yield
    except UnfitTensorError as error:
        raise ContractError(subject, [Problem(place=name, found=str(error))]) from error
