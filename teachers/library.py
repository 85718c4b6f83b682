"""Teachers that a library builds by name: what is known of such a model before its weights are read."""

import functools
import importlib

from storage_schemas.format.teacher import Precision, SizeRule, SummaryKind, TeacherSpec
from teachers.base import AbstractTeacher
from teachers.kinds import kind_of
from teachers.library_model import LibraryModel


@functools.cache
def library_model(source: str, summary: SummaryKind = "own", size_rule: SizeRule | None = None) -> LibraryModel:
    """Describe a model: the library builds it without weights, and runs it once on the meta device.

    Args:
        source: `timm:<model.tag>`.
        summary: where its summary comes from.
        size_rule: which sizes it gets; None for its own rule.

    Raises:
        SettingError: the library has no such model, or the model does not take these settings.
        ContractError: it gives no map, or not the map that it declares; both values are named.
    """
    module = importlib.import_module(f"teachers.{kind_of(source)}_model")
    described: LibraryModel = module.described(source.partition(":")[2], summary, size_rule)
    return described


def library_flop(source: str, side: int) -> int:
    """Return the floating-point operations of one square input, counted while the model runs without weights.

    Args:
        source: `timm:<model.tag>`.
        side: of the input (pixels).

    Raises:
        SettingError, ContractError: as `library_model`; or the model does not take this size.
    """
    model = library_model(source, "none")
    if model.spec.size_rule == "fixed" and side != model.spec.native:
        model = library_model(source, "none", "any")
    module = importlib.import_module(f"teachers.{kind_of(source)}_model")
    counted: int = module.counted_flop(model, side)
    return counted


def library_teacher(
    source: str,
    model: LibraryModel,
    spec: TeacherSpec,
    *,
    weights: str,
    precision: Precision,
    device: str,
    layers: tuple[int, ...],
    compiled: bool,
) -> AbstractTeacher:
    """Build a described model with its weights.

    Args:
        source: `timm:<model.tag>`.
        model: its description.
        spec: under the teacher's name in the cache.
        weights: `hub`, `random:<seed>`, or the path of a file or folder.
        precision: see `AbstractTeacher`.
        device: where it runs.
        layers: blocks whose maps are wanted too.
        compiled: run through `torch.compile`; no effect on a CPU.

    Raises:
        SettingError: weights that it does not take, or blocks that it does not have.
        MissingError: its weights cannot be found.
        ContractError: the weights are not this model's.
    """
    model.require_layers(spec.name, layers)
    module = importlib.import_module(f"teachers.{kind_of(source)}_model")
    network = module.loaded(model, weights, precision)
    built: AbstractTeacher = module.TEACHER(
        spec=spec, network=network, model=model, device=device, precision=precision, layers=layers, compiled=compiled
    )
    return built
