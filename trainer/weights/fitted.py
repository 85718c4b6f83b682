"""Weights in the names and shapes of a backbone, with an account of everything that was done to them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import final

from torch import Tensor

from storage_schemas.format.errors import Problem
from trainer.weights.files import Statistics


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FittedWeights:
    """Weights for a backbone."""

    tensors: Mapping[str, Tensor]
    """By their names in the backbone."""
    new: tuple[str, ...] = ()
    """Names of the backbone's tensors that the weights do not hold; they stay as they were drawn."""
    lines: tuple[str, ...] = ()
    """What was resampled, copied or left out, for the user."""
    statistics: Statistics | None = None
    """How the model's pixels were normalised; None: not known."""


def mismatches(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], names: Mapping[str, str] | None = None
) -> list[Problem]:
    """Return a problem for every tensor that is missing, of another shape, or unknown.

    Args:
        found: weights by their names in the backbone.
        expected: the tensors that the backbone needs.
        names: name in the backbone → name in the file, where it differs.
    """
    called = names or {}
    missing = [name for name in expected if name not in found]
    unknown = [name for name in found if name not in expected]
    differing = [name for name in expected if name in found and found[name].shape != expected[name].shape]
    return [
        *(Problem(place=called.get(name, name), found="is missing in the weights") for name in missing),
        *(Problem(place=called.get(name, name), found="is not a tensor of this student") for name in unknown),
        *(
            Problem(
                place=called.get(name, name),
                found=f"has shape {shape_of(found[name])}, the student has {shape_of(expected[name])}",
            )
            for name in differing
        ),
    ]


def shape_of(tensor: Tensor) -> str:
    """Return a tensor's shape as text."""
    return " × ".join(map(str, tensor.shape)) or "one number"


def listed(names: Iterable[str], limit: int = 6) -> str:
    """Return names as text, sorted: the first ones, and how many more there are."""
    every = sorted(names)
    more = f" and {len(every) - limit} more" if len(every) > limit else ""
    return ", ".join(every[:limit]) + more
