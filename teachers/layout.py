"""How one publisher names, cuts and shapes the tensors of a network."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor, nn

Shape = tuple[int, ...]
Check = Callable[[Tensor], None]
"""Passes a tensor that is as its layout promises, and raises UnfitTensorError for another."""


@final
class UnfitTensorError(ValueError):
    """A tensor whose values are not what its layout promises; the text says how."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where one tensor of the network comes from."""

    sources: tuple[str, ...]
    """Names in the file, without the layout's prefix."""
    shapes: tuple[Shape, ...]
    """The shape that each source must have."""
    make: Callable[[list[Tensor]], Tensor]
    """The sources, float32, to the network's tensor. Raises UnfitTensorError for values that cannot be."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One way in which the weights of a family are published."""

    name: str
    """For messages."""
    origins: Callable[[nn.Module], Mapping[str, Origin]]
    """The network, on the meta device, to: name of its tensor → where it comes from."""
    prefixes: tuple[str, ...] = ("",)
    """What may stand before every name: the network may be one part of a larger model."""
    beside: str = "(?!)"
    """Regular expression of names, prefix included, that belong to other parts of the larger model."""
    unused: Callable[[nn.Module], Mapping[str, Check]] = field(default=lambda _network: {})
    """The network to: pattern of names, under the prefix, that are no parameters of it → a check of their values."""


def shapes_of(network: nn.Module) -> dict[str, Shape]:
    """Return name → shape of every tensor that must be loaded."""
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def same(shape: Shape, source: str) -> Origin:
    """Take a tensor as it is."""
    return Origin(sources=(source,), shapes=(shape,), make=lambda tensors: tensors[0])


def joined(shape: Shape, *sources: str) -> Origin:
    """Join equal parts along the first axis."""
    part = (shape[0] // len(sources), *shape[1:])
    return Origin(sources=sources, shapes=(part,) * len(sources), make=torch.cat)


def rows_of(shape: Shape, source: str, start: int, rows: int) -> Origin:
    """Take the rows from `start` on of a tensor that has `rows` of them along the first axis."""
    stop = start + shape[0]
    return Origin(sources=(source,), shapes=((rows, *shape[1:]),), make=lambda tensors: tensors[0][start:stop].clone())


def reshaped(shape: Shape, source: str, stored: Shape) -> Origin:
    """Take a tensor that is stored in another shape, in the same order."""
    return Origin(sources=(source,), shapes=(stored,), make=lambda tensors: tensors[0].reshape(shape))


def zeros(shape: Shape) -> Origin:
    """Take zero, for a term that a layout leaves out because it is zero."""
    return Origin(sources=(), shapes=(), make=lambda _tensors: torch.zeros(shape))


def anything(tensor: Tensor) -> None:
    """Pass any tensor: the check of one that the network does not use."""
    del tensor
