"""Weight layouts: how a publisher names, splits and shapes the tensors of a network."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor, nn

Shape = tuple[int, ...]
Check = Callable[[Tensor], None]
"""Accepts a tensor with the values that its layout promises, and raises UnfitTensorError for any other."""


@final
class UnfitTensorError(ValueError):
    """The values of a tensor are not what its layout promises; the text says how."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where one tensor of the network comes from."""

    sources: tuple[str, ...]
    """Names of tensors in the file, without the layout's prefix."""
    shapes: tuple[Shape, ...]
    """The shape that each of them must have."""
    make: Callable[[list[Tensor]], Tensor]
    """Makes the network's tensor from them, given as float32. Raises UnfitTensorError for impossible values."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One way in which the weights of a family are published."""

    name: str
    """Its name in messages."""
    origins: Callable[[nn.Module], Mapping[str, Origin]]
    """Takes the network on the meta device; returns name of each of its tensors → where it comes from."""
    prefixes: tuple[str, ...] = ("",)
    """Prefixes that all names in a file may have, because the network may be one part of a larger model."""
    beside: str = "(?!)"
    """Regular expression for the names, with prefix, that belong to other parts of the larger model."""
    unused: Callable[[nn.Module], Mapping[str, Check]] = field(default=lambda _network: {})
    """Takes the network; returns regular expression of names, without prefix, that are not its parameters → a check of
    their values."""


def shapes_of(network: nn.Module) -> dict[str, Shape]:
    """Return name → shape of every tensor of a network that must be loaded."""
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def same(shape: Shape, source: str) -> Origin:
    """The tensor is in the file as it is."""
    return Origin(sources=(source,), shapes=(shape,), make=lambda tensors: tensors[0])


def joined(shape: Shape, *sources: str) -> Origin:
    """The tensor is in the file as equal parts, to be joined along the first axis."""
    part = (shape[0] // len(sources), *shape[1:])
    return Origin(sources=sources, shapes=(part,) * len(sources), make=torch.cat)


def rows_of(shape: Shape, source: str, start: int, rows: int) -> Origin:
    """The tensor is part of a larger one in the file, which has `rows` rows: those from `start` on."""
    stop = start + shape[0]
    return Origin(sources=(source,), shapes=((rows, *shape[1:]),), make=lambda tensors: tensors[0][start:stop].clone())


def reshaped(shape: Shape, source: str, stored: Shape) -> Origin:
    """The tensor is in the file in another shape, in the same order."""
    return Origin(sources=(source,), shapes=(stored,), make=lambda tensors: tensors[0].reshape(shape))


def zeros(shape: Shape) -> Origin:
    """The tensor is zero, and this layout leaves it out."""
    return Origin(sources=(), shapes=(), make=lambda _tensors: torch.zeros(shape))


def anything(tensor: Tensor) -> None:
    """Accept any tensor: the check of one that the network does not use."""
    del tensor
