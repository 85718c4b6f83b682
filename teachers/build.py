"""From a source's name to a teacher that runs."""

import importlib
from dataclasses import replace
from typing import Any

from torch import nn

from storage_schemas.errors import ContractError, Problem, SettingError
from storage_schemas.teacher import Precision, TeacherSpec
from teachers.base import AbstractTeacher
from teachers.catalogue import CatalogueEntry
from teachers.family import ModelFamily
from teachers.own import build_own, own_class
from teachers.random_weights import random_weights, seed_of
from teachers.sizes import refuse_layers
from teachers.source import entry_of, is_own, renamed


def spec_of(source: str, *, name: str | None = None, random_weights: bool = False) -> TeacherSpec:
    """Return what a source is, without building it.

    Args:
        source: a name in the catalogue, or `module:Class` for a teacher of your own.
        name: its name in the cache, or None for its own.
        random_weights: whether its weights will be seeded noise.

    Raises:
        SettingError: no such source, or a class that is not a teacher.
    """
    declared = own_class(source).declared if is_own(source) else entry_of(source).spec
    return replace(renamed(declared, name), random_weights=random_weights)


def build_teacher(
    source: str,
    *,
    name: str | None = None,
    weights: str,
    precision: Precision | None = None,
    device: str = "cpu",
    layers: tuple[int, ...] = (),
    compiled: bool = False,
) -> AbstractTeacher:
    """Build a teacher and load its weights.

    Args:
        source: a name in the catalogue, or `module:Class` for a teacher of your own.
        name: its name in the cache, or None for its own.
        weights: `hub`; the path of a file or folder; `random:<seed>`; or, for a class of your own, `own` (it brings
            them) or a path.
        precision: see `AbstractTeacher`; None for the catalogue's choice, or `fp32` for a class of your own.
        device: where it runs.
        layers: blocks whose maps are wanted beside the last one's.
        compiled: run through `torch.compile`; without effect on a CPU.

    Raises:
        SettingError: an unknown source, or a setting that it does not take.
        MissingError: weights that are not to be had, or a package that is not installed.
        ContractError: weights that are not this model's.
    """
    spec = spec_of(source, name=name, random_weights=weights.startswith("random:"))
    if is_own(source):
        asked: dict[str, Any] = {"layers": layers} if layers else {}
        asked |= {"compiled": compiled} if compiled else {}
        return build_own(source, spec, weights=weights, device=device, precision=precision or "fp32", **asked)
    entry = entry_of(source)
    refuse_layers(spec.name, layers, entry.blocks)
    family = family_of(entry)
    return family.teacher(
        spec=spec,
        network=loaded_network(entry, family, weights),
        device=device,
        precision=precision or entry.precision,
        layers=layers,
        compiled=compiled,
    )


def family_of(entry: CatalogueEntry) -> ModelFamily:
    """Import the module that builds an entry, and its library with it."""
    module = importlib.import_module(f"teachers.{entry.family}")
    family: ModelFamily = module.FAMILY
    return family


def loaded_network(entry: CatalogueEntry, family: ModelFamily, weights: str) -> nn.Module:
    """Build an entry's network on the CPU and fill every tensor of it."""
    network = family.skeleton(entry)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    if not weights.startswith("random:"):
        raise SettingError(f"weights {weights!r}", [Problem(place=entry.spec.name, found="only random:<seed> is read")])
    tensors = random_weights(shapes, entry.spec.name, seed_of(weights))
    network.load_state_dict(tensors, strict=True, assign=True)
    family.fill_tables(network)
    _refuse_unfilled(network, entry.spec.name)
    return network


def _refuse_unfilled(network: nn.Module, name: str) -> None:
    tensors = [*network.named_parameters(), *network.named_buffers()]
    problems = [Problem(place=place, found="holds no numbers") for place, tensor in tensors if tensor.is_meta]
    if problems:
        raise ContractError(f"network of teacher {name!r}", problems)
