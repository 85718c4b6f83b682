"""Encodings: how numbers in PHI-S units are stored and read back.

PHI-S gives every channel of every teacher unit variance, so one step fits all channels: `int8` stores round(x / step),
from −127 to 127, and is multiplied by the step when it is read. −128 is never stored: it is the fill value, which other
readers show where no view is.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float, Shaped

Encoding = Literal["float16", "float32", "int8"]
INT8_REACH = 8.0
"""The largest number that `int8` holds (PHI-S units: standard deviations of a channel). Larger numbers are stored as
this one: they are saturated."""
INT8_LARGEST = 127
INT8_STEP = INT8_REACH / INT8_LARGEST
"""The step of `int8`: a stored 1 is this number (PHI-S units)."""
INT8_NOTHING = -128
"""Fill value of `int8` arrays."""


def as_numbers(entries: Shaped[np.ndarray, "*entry"]) -> Float[np.ndarray, "*entry"]:
    """Return stored entries as numbers in PHI-S units.

    Args:
        entries: as they are stored, of any shape.

    Returns:
        For `int8`, entries times the step, in float32; floats are returned as they are.
    """
    return entries.astype(np.float32) * np.float32(INT8_STEP) if entries.dtype == np.int8 else entries


def as_stored(numbers: Float[np.ndarray, "*entry"], encoding: Encoding) -> Shaped[np.ndarray, "*entry"]:
    """Return numbers as they are stored. `int8` rounds to the nearest step, halves to the even one, and saturates.

    Args:
        numbers: PHI-S units, of any shape.
        encoding: how to store them.
    """
    if encoding != "int8":
        return numbers.astype(encoding)
    steps = np.rint(numbers.astype(np.float32) / np.float32(INT8_STEP))
    return np.clip(steps, -INT8_LARGEST, INT8_LARGEST).astype(np.int8)
