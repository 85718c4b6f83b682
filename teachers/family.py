"""What one family of models gives the builder."""

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
    """How models of one kind are laid out, completed and run.

    A network starts on the meta device, where a tensor has a shape and no numbers. What is not loaded therefore stays
    without numbers and is found; it cannot stay at random.
    """

    teacher: type[AbstractTeacher]
    """Runs the network."""
    skeleton: Callable[[CatalogueEntry], nn.Module]
    """Builds the network on the meta device."""
    fill_tables: Callable[[nn.Module], None]
    """Computes, on the CPU and in float32, the position tables and constants that no file holds."""
    layouts: Sequence[Layout]
    """Every layout in which its weights are read."""
