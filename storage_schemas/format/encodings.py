"""Encodings: how numbers in PHI-S units are stored and read back.

PHI-S gives every channel of every teacher unit variance, so one step fits all channels: `int8` stores round(x / step),
from −127 to 127, and is multiplied by the step when it is read. The step is a setting; the array carries it. −128 is
never stored: it is the fill value, which other readers show where no view is.

`pca8` stores latents along the principal axes; see `storage_schemas.format.latents`.
"""

import math
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
from jaxtyping import Float, Shaped

from storage_schemas.format.errors import ContractError, Problem
from storage_schemas.format.latents import Latents, from_latents, to_latents

Encoding = Literal["float16", "float32", "int8", "pca8"]
MeasuredEncoding = Literal["float16", "float32", "int8"]
"""Encodings whose rounding `make stats` measures on whatever is stored."""
INT8_REACH = 8.0
"""The largest number that `int8` must hold at least (PHI-S units: standard deviations of a channel). It holds more
where the step is coarser. Larger numbers are stored as its largest: they are saturated."""
INT8_LARGEST = 127
INT8_STEP = INT8_REACH / INT8_LARGEST
"""The finest step of `int8`, and the step where none is chosen: a stored 1 is this number (PHI-S units)."""
INT8_NOTHING = -128
"""Fill value of `int8` arrays."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Coding:
    """What the stored entries of an array stand for."""

    encoding: Encoding
    step: float = 0.0
    """`int8`: what a stored 1 stands for (PHI-S units). 0 for floats, which stand for themselves, and for `pca8`."""
    latents: Latents | None = None
    """`pca8`: the latents that are stored."""

    def __post_init__(self) -> None:
        quantized = self.encoding == "int8"
        if not (0 < self.step < math.inf if quantized else self.step == 0):
            found = f"{self.step} is no step of {self.encoding}"
            raise ContractError("encoding", [Problem(place="step", found=found)])
        if (self.encoding == "pca8") != (self.latents is not None):
            found = f"{self.encoding} {'needs latents' if self.latents is None else 'has no latents'}"
            raise ContractError("encoding", [Problem(place="latents", found=found)])


def step_of_fidelity(fidelity: float) -> float:
    """Return the step whose rounding alone leaves a fidelity, for channels of unit variance.

        F = Var[x] / E[e²],   E[e²] = step² / 12,   step = √(12 / F)

    Source: Widrow and Kollár 2008, "Quantization Noise"; F as in v2.5 eq 8.

    Args:
        fidelity: F, above 0 (unitless).

    Returns:
        The step (PHI-S units).
    """
    return math.sqrt(12 / fidelity)


def as_numbers(entries: Shaped[np.ndarray, "*tokens stored"], coding: Coding) -> Float[np.ndarray, "*tokens channels"]:
    """Return stored entries as numbers in PHI-S units.

    Args:
        entries: as they are stored, of any shape; for `pca8` an exponent and latents along the last axis.
        coding: what they stand for; `Cache.coding` gives that of an array.

    Returns:
        For `int8` and `pca8` float32; floats are returned as they are.
    """
    if coding.latents is not None:
        return from_latents(entries, coding.latents)
    return entries.astype(np.float32) * np.float32(coding.step) if coding.encoding == "int8" else entries


def as_stored(numbers: Float[np.ndarray, "*tokens channels"], coding: Coding) -> Shaped[np.ndarray, "*tokens stored"]:
    """Return numbers as they are stored. `int8` rounds to the nearest step, halves to the even one, and saturates.

    Args:
        numbers: PHI-S units, of any shape; for `pca8` with all channels along the last axis.
        coding: how to store them.
    """
    if coding.latents is not None:
        return to_latents(numbers, coding.latents)
    if coding.encoding != "int8":
        return numbers.astype(coding.encoding)
    steps = np.rint(numbers.astype(np.float32) / np.float32(coding.step))
    return np.clip(steps, -INT8_LARGEST, INT8_LARGEST).astype(np.int8)
