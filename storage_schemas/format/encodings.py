"""How numbers in PHI-S units are stored, and what is read of them.

PHI-S gives every channel of every teacher a variance of one, so one step serves all: `int8` stores round(x / step),
from −127 to 127, and is read back times the step. −128 is never stored: it is what a reader finds where nothing is.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float, Shaped

Encoding = Literal["float16", "float32", "int8"]
INT8_REACH = 8.0
"""The largest number that `int8` holds (PHI-S units: standard deviations of a channel). What lies beyond is stored as
this: saturated."""
INT8_LARGEST = 127
INT8_STEP = INT8_REACH / INT8_LARGEST
"""What one unit of a stored `int8` stands for (PHI-S units)."""
INT8_NOTHING = -128
"""Fill value of `int8` arrays."""


def as_numbers(entries: Shaped[np.ndarray, "*entry"]) -> Float[np.ndarray, "*entry"]:
    """Return stored entries as numbers in PHI-S units: `int8` times its step, in float32; floats as they are."""
    return entries.astype(np.float32) * np.float32(INT8_STEP) if entries.dtype == np.int8 else entries


def as_stored(numbers: Float[np.ndarray, "*entry"], encoding: Encoding) -> Shaped[np.ndarray, "*entry"]:
    """Return numbers in PHI-S units as they are stored; halves are rounded to the even neighbour."""
    if encoding != "int8":
        return numbers.astype(encoding)
    steps = np.rint(numbers.astype(np.float32) / np.float32(INT8_STEP))
    return np.clip(steps, -INT8_LARGEST, INT8_LARGEST).astype(np.int8)
