"""Building a teacher from the name of its source."""

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from storage_schemas.format.errors import ContractError, Problem, SettingError
from storage_schemas.format.teacher import Precision, SizeRule, SummaryKind
from teachers.base import AbstractTeacher
from teachers.entry import CatalogueEntry
from teachers.family import ModelFamily
from teachers.hub import fetch_weights
from teachers.kinds import LIBRARIES, kind_of
from teachers.layers import refuse_layers
from teachers.layout import shapes_of
from teachers.library import library_model, library_teacher
from teachers.own import build_own
from teachers.random_weights import random_weights, seed_of
from teachers.reading import read_network
from teachers.source import entry_of, is_own, precision_of, spec_of
from teachers.weight_files import open_weights

_WEIGHTS = "give 'hub', 'random:<seed>' or a path"


def build_teacher(
    source: str,
    *,
    name: str | None = None,
    weights: str,
    precision: Precision | None = None,
    device: str = "cpu",
    layers: tuple[int, ...] = (),
    compiled: bool = False,
    summary: SummaryKind = "own",
    size_rule: SizeRule | None = None,
) -> AbstractTeacher:
    """Build a teacher and load its weights.

    Args:
        source: a name in the catalogue, `timm:<model.tag>`, or `module:Class` for a teacher of your own.
        name: its name in the cache; None keeps the source's name.
        weights: `hub`; the path of a file or folder; `random:<seed>`. For a class of your own: `own` (it brings its
            weights) or a path.
        precision: see `AbstractTeacher`; None for the default of `precision_of`.
        device: where it runs.
        layers: blocks whose maps are wanted too, besides the last block's.
        compiled: run through `torch.compile`; no effect on a CPU.
        summary: where the summary of a library's model comes from.
        size_rule: which sizes a library's model gets; None for its own rule.

    Raises:
        SettingError: an unknown source, or a setting that it does not take.
        MissingError: the weights, or a package, cannot be found.
        ContractError: the weights are not this model's, or a library's model gives no map.
    """
    random = weights.startswith("random:")
    spec = spec_of(source, name=name, random_weights=random, summary=summary, size_rule=size_rule)
    precision = precision_of(source, precision)
    if kind_of(source) in LIBRARIES:
        return library_teacher(
            source,
            library_model(source, summary, size_rule),
            spec,
            weights=weights,
            precision=precision,
            device=device,
            layers=layers,
            compiled=compiled,
        )
    if is_own(source):
        optional: dict[str, Any] = {"layers": layers} if layers else {}
        optional |= {"compiled": compiled} if compiled else {}
        return build_own(source, spec, weights=weights, device=device, precision=precision, **optional)
    entry = entry_of(source)
    refuse_layers(spec.name, layers, entry.blocks)
    return family_of(entry).teacher(
        spec=spec,
        network=loaded_network(entry, weights, precision),
        device=device,
        precision=precision,
        layers=layers,
        compiled=compiled,
    )


def family_of(entry: CatalogueEntry) -> ModelFamily:
    """Import the module that builds an entry's model, and with it the library that this needs."""
    module = importlib.import_module(f"teachers.{entry.family}")
    family: ModelFamily = module.FAMILY
    return family


def loaded_network(entry: CatalogueEntry, weights: str, precision: Precision) -> nn.Module:
    """Build an entry's network on the CPU, and fill every tensor of it."""
    family = family_of(entry)
    network = family.skeleton(entry)
    network.load_state_dict(_tensors(entry, network, weights, precision), strict=True, assign=True)
    family.fill_tables(network)
    _refuse_unfilled(network, entry.spec.name)
    return network


def _tensors(entry: CatalogueEntry, network: nn.Module, weights: str, precision: Precision) -> dict[str, Tensor]:
    # cast tensor by tensor, so that a 7B model is never in memory in float32 and bfloat16 at the same time
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    if weights.startswith("random:"):
        drawn = random_weights(shapes_of(network), entry.spec.name, seed_of(weights))
        return {name: tensor.to(dtype) for name, tensor in drawn}
    if weights == "own":
        problem = Problem(place="weights", found="'own' is only for a class of your own", fix=_WEIGHTS)
        raise SettingError(f"teacher {entry.spec.name!r}", [problem])
    path = fetch_weights(entry) if weights == "hub" else Path(weights)
    subject = f"{path}, as weights of {entry.spec.name},"
    return read_network(network, family_of(entry).layouts, open_weights(path), dtype, subject)


def _refuse_unfilled(network: nn.Module, name: str) -> None:
    tensors = [*network.named_parameters(), *network.named_buffers()]
    problems = [Problem(place=place, found="was not filled") for place, tensor in tensors if tensor.is_meta]
    if problems:
        raise ContractError(f"network of teacher {name!r}", problems)
