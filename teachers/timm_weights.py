"""Weights of a timm model, as strict as those of the catalogue: each tensor of a file must have its place."""

import contextlib
import io
import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from storage_schemas.format.errors import ContractError, Problem, SettingError, first_problems
from storage_schemas.format.seeds import generator
from storage_schemas.format.teacher import Precision
from teachers.hub import fetch
from teachers.layout import Check, Layout, Origin, UnfitTensorError, anything, same, shapes_of
from teachers.publication import Publication
from teachers.random_weights import random_weights, seed_of
from teachers.reading import FLOATS, read_network
from teachers.weight_files import StoredTensor, open_weights

Stored = Mapping[str, StoredTensor]
Convert = Callable[[dict[str, Tensor]], dict[str, Tensor]]
IDLE = r"(.*\.)?(mask_token|num_batches_tracked|relative_position_index|attn_mask|rope\.(freqs|periods).*)"
"""Tensors in timm's and the authors' files that an evaluated network computes itself or does not use."""
PREFIXES = ("", "module.", "model.")
"""What trainers put before the names of a model's tensors."""


def weights_path(publication: Publication, weights: str) -> Path | None:
    """Return where weights lie on this machine, or None where they are random.

    Args:
        publication: where they are published.
        weights: `hub`, `random:<seed>`, or a path.

    Raises:
        SettingError: other weights.
        MissingError: they cannot be found.
    """
    if weights == "own":
        problem = Problem(place="weights", found="'own' is only for a class of your own", fix="give 'hub' or a path")
        raise SettingError(f"teacher {publication.name}", [problem])
    if weights.startswith("random:"):
        seed_of(weights)
        return None
    return fetch(publication) if weights == "hub" else Path(weights)


def filled(network: nn.Module, whole: nn.Module, model: str, weights: Path | str, precision: Precision) -> nn.Module:
    """Load a network, strictly.

    Buffers that no file holds keep what the network's constructor computed. Buffers that a file does hold are loaded
    in float32, and parameters in bfloat16 where `precision` is `bf16`.

    Args:
        network: on the CPU, without its classifier.
        whole: the same network with its classifier, on the meta device: it names tensors that are not used here.
        model: name of the model, for random weights and for messages.
        weights: a path, or `random:<seed>`.
        precision: of the network.

    Returns:
        The network.

    Raises:
        MissingError: there is no such file or folder.
        ContractError: a tensor is missing, unexpected, misshapen, resampled, not finite, or not of a float type.
    """
    if isinstance(weights, str):
        tensors = _random(network, model, seed_of(weights))
    else:
        tensors = _read(network, whole, open_weights(weights), f"{weights}, as weights of {model},")
    parameters = dict(network.named_parameters())
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    cast = {name: tensor.to(dtype) if name in parameters else tensor for name, tensor in tensors.items()}
    network.load_state_dict(cast, strict=True, assign=True)
    return network


def _random(network: nn.Module, model: str, seed: int) -> dict[str, Tensor]:
    shapes = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    return {**network.state_dict(), **dict(random_weights(shapes, model, seed))}


def _read(network: nn.Module, whole: nn.Module, stored: Stored, subject: str) -> dict[str, Tensor]:
    layout = _timm_layout(network, whole)
    convert = _converter(network)
    if convert is not None and not any(_fits(network, stored, prefix) for prefix in PREFIXES):
        stored = _converted(whole, stored, convert, subject)
    return {**_computed(network), **read_network(network, [layout], stored, torch.float32, subject)}


def _fits(network: nn.Module, stored: Stored, prefix: str) -> bool:
    """Whether a file has every tensor of the network under timm's own names, in its shapes."""
    return all(
        prefix + name in stored and stored[prefix + name].shape == shape
        for name, shape in shapes_of(network).items()
        if name not in _computed(network)
    )


def _computed(network: nn.Module) -> dict[str, Tensor]:
    """Return the tensors that are not numbers to be learnt: counters, and tables of indices."""
    return {name: tensor for name, tensor in network.state_dict().items() if not tensor.is_floating_point()}


def _timm_layout(network: nn.Module, whole: nn.Module) -> Layout:
    computed = _computed(network)

    def origins(net: nn.Module) -> Mapping[str, Origin]:
        return {name: same(shape, name) for name, shape in shapes_of(net).items() if name not in computed}

    def unused(net: nn.Module) -> Mapping[str, Check]:
        classifier = whole.state_dict().keys() - net.state_dict().keys()
        idle: dict[str, Check] = {IDLE: anything}
        checks = idle | {name.replace(".", r"\."): anything for name in classifier}
        return checks | {name.replace(".", r"\."): _same_table(table) for name, table in computed.items()}

    return Layout(name="timm", origins=origins, unused=unused, prefixes=PREFIXES)


def _same_table(table: Tensor) -> Check:
    def check(tensor: Tensor) -> None:
        if table.ndim and not torch.equal(tensor.to(table.dtype), table):
            raise UnfitTensorError("the table of indices is that of another size")

    return check


def _converter(network: nn.Module) -> Convert | None:
    """Return timm's own conversion from the authors' layouts, where the network's module has one."""
    module = sys.modules[type(network).__module__]
    convert = getattr(module, "checkpoint_filter_fn", None) or getattr(module, "_filter_fn", None)
    if convert is None:
        return None

    def run(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        with contextlib.redirect_stdout(io.StringIO()):  # some conversions print
            converted: dict[str, Tensor] = convert(tensors, network)
        return converted

    return run


def _converted(whole: nn.Module, stored: Stored, convert: Convert, subject: str) -> Stored:
    """Convert a file to timm's names, after checking where each of its numbers goes.

    timm's conversions drop and resample tensors without a word. So the conversion first runs on tensors that are
    constant, each with a value of its own: the values of a result show which tensors it was made from.
    """
    values = _values(sorted(stored))
    probe = {name: torch.tensor(values[name], dtype=torch.float64).expand(stored[name].shape) for name in stored}
    try:
        found = {target: _counted(tensor, values) for target, tensor in convert(probe).items()}
        problems = [*_computed_anew(found), *_lost(found, stored, whole)]
        if not problems:
            tensors = {name: _floats(tensor, name, subject) for name, tensor in stored.items()}
            return {name: _in_memory(tensor) for name, tensor in convert(tensors).items()}
    except (KeyError, RuntimeError, AttributeError, IndexError, TypeError, ValueError, AssertionError) as error:
        found_ = f"timm cannot convert this file to its own layout: {type(error).__name__}: {error}"
        raise ContractError(subject, [Problem(place="names", found=found_, fix=_FIX)]) from error
    raise ContractError(f"{subject} converted by timm to its own layout,", first_problems(problems, most=12))


_FIX = "check that it is a file of this model, without changes to its names"
_NEAR = 1e-9


def _values(names: Sequence[str]) -> dict[str, float]:
    """Return a value for each name: a whole number, plus a fraction below 0.4 that tells sums of two apart."""
    fractions = generator(("values of tensors", len(names))).uniform(0.01, 0.4, len(names)).tolist()
    return {name: index + fraction for index, (name, fraction) in enumerate(zip(names, fractions, strict=True), 1)}


def _counted(tensor: Tensor, values: Mapping[str, float]) -> Counter[str] | None:
    """Return how many numbers of a result come from each tensor; None where it holds numbers that come from none.

    A number is a tensor's value, also after an interpolation, whose weights sum to 1 only nearly; or the exact sum of
    the values of two tensors. Zeros come from none and are allowed.
    """
    names, counted = list(values), Counter[str]()
    same_everywhere = not any(tensor.stride())
    flat = tensor.flatten()[:1] if same_everywhere else tensor.flatten()
    for value, count in zip(*(part.tolist() for part in _distinct(flat)), strict=True):
        times = tensor.numel() if same_everywhere else count
        sources = _sources(value, names, values)
        if sources is None:
            return None
        counted.update(dict.fromkeys(sources, times))
    return counted


def _distinct(flat: Tensor) -> tuple[Tensor, Tensor]:
    runs, counts = torch.unique_consecutive(flat.double(), return_counts=True)
    distinct, where = runs.unique(return_inverse=True)
    return distinct, torch.zeros(len(distinct), dtype=counts.dtype).index_add_(0, where, counts)


def _sources(value: float, names: Sequence[str], values: Mapping[str, float]) -> tuple[str, ...] | None:
    if value == 0:
        return ()
    number = int(value)
    if 1 <= number <= len(names) and abs(values[names[number - 1]] - value) < 1e-4 * value:
        return (names[number - 1],)
    for first, second in ((first, number - first) for first in range(1, number)):
        if first <= len(names) and second <= len(names):
            pair = names[first - 1], names[second - 1]
            if abs(values[pair[0]] + values[pair[1]] - value) < _NEAR:
                return pair
    return None


def _computed_anew(found: Mapping[str, Counter[str] | None]) -> Iterator[Problem]:
    for target, counted in found.items():
        if counted is None:
            yield Problem(place=target, found="timm computes new numbers for it", fix=_FIX)


def _lost(found: Mapping[str, Counter[str] | None], stored: Stored, whole: nn.Module) -> Iterator[Problem]:
    """Name the tensors of the network's own part of the file that timm drops, cuts or resamples.

    Where all tensors that it takes share a prefix, those without it belong to other parts of a larger model.
    """
    taken = sum((counted for counted in found.values() if counted), Counter[str]())
    prefix = _common_prefix(set(taken))
    tables = {name for name, _ in whole.named_buffers()}
    for name, tensor in sorted(stored.items()):
        rest, size = name.removeprefix(prefix), math.prod(tensor.shape)
        idle = not name.startswith(prefix) or rest in tables or re.fullmatch(IDLE, rest)
        if name not in taken and not idle:
            yield Problem(place=name, found="unexpected: timm drops it")
        elif name in taken and taken[name] != size:
            found_ = f"shape {tensor.shape} does not fit, and timm would resample or cut it"
            yield Problem(place=name, found=found_, fix="give weights of this model's own size")


def _common_prefix(names: set[str]) -> str:
    if not names:
        return ""
    parts = [name.split(".")[:-1] for name in names]
    shared = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return "".join(f"{part}." for part in shared)


def _floats(tensor: StoredTensor, name: str, subject: str) -> Tensor:
    values = tensor.read()
    if not values.is_floating_point():
        return values
    if tensor.dtype not in FLOATS:
        raise ContractError(subject, [Problem(place=name, found=f"dtype {tensor.dtype}, expected {', '.join(FLOATS)}")])
    return values.float()


def _in_memory(tensor: Tensor) -> StoredTensor:
    dtype = str(tensor.dtype).removeprefix("torch.")
    return StoredTensor(shape=tuple(tensor.shape), dtype=dtype, read=lambda: tensor)
