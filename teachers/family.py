"""The parts that a family of models provides for building its teachers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

from torch import nn

from teachers.base import AbstractTeacher
from teachers.entry import CatalogueEntry
from teachers.layout import Layout


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFamily:
    """How to build, fill and run the models of one family.

    A network starts on the meta device, where a tensor has a shape and no numbers. A tensor that is not loaded stays
    there and is found, so no parameter can keep a random initial value.
    """

    teacher: type[AbstractTeacher]
    """The class that runs the network."""
    skeleton: Callable[[CatalogueEntry], nn.Module]
    """Builds the network on the meta device."""
    fill_tables: Callable[[nn.Module], None]
    """Computes the position tables and constants that are in no file, on the CPU and in float32."""
    layouts: Sequence[Layout]
    """All layouts in which its weights can be read."""
