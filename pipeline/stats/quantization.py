"""What storing numbers in each encoding costs: the squared error that rounding makes, measured or expected.

Only stored numbers are at hand, rounded already. What an encoding of fewer bits would make of them is measured. What
their own has cost is what rounding to the nearest neighbour leaves on average where numbers fall anywhere between
neighbours δ apart:

    E[e²] = δ² / 12

with δ the step of `int8`, and the distance from a `float16` to the next larger in size: 2^(max(⌊log₂|x|⌋, −14) − 10).
Source: Widrow and Kollár 2008, "Quantization Noise"; tests hold it against `float32` features of the same teacher.

One token in `EVERY` is looked at: a mean over so many numbers needs no more, and all of them would cost as much as a
quarter of the moments.
"""

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Shaped

from storage_schemas.format.encodings import INT8_LARGEST, INT8_STEP, as_numbers
from storage_schemas.format.stats import RoundingStats

EVERY = 11
"""Of so many tokens one is looked at. It divides no side of a grid that there is, so no column is left out."""
AT_ONCE = 2**16
"""Numbers looked at together: what is computed of them stays in the processor's cache."""
_EXPONENT = np.int32(0x7F800000)
"""The bits of a float32 that hold its power of two."""
_SMALLEST = np.float32(2.0**-14)
"""Below it the neighbours of a float16 lie as far apart as at it."""
_HALF_SPACING = 2.0**-20 / 12
"""δ² / 12 of a float16 between 1 and 2."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Rounding:
    """Sums over numbers (PHI-S units) that merge by addition."""

    count: int
    """Numbers."""
    float16: float
    """Σ e² of `float16` (PHI-S units squared): measured on `float32`, else expected."""
    int8: float
    """Σ e² of `int8`, saturated ones too: measured, but expected, and without what saturation cost, on `int8`."""
    saturated: int
    """Numbers that are as large as `int8` holds, or larger."""


def observe_rounding(stored: Shaped[np.ndarray, "tokens channels"]) -> Rounding:
    """Measure, or expect, what rounding costs on tokens as they are stored, of any encoding; the first is looked at."""
    flat = stored[::EVERY].reshape(-1)
    float16, int8, saturated = 0.0, 0.0, 0
    for start in range(0, flat.size, AT_ONCE):
        part = flat[start : start + AT_ONCE]
        numbers = as_numbers(part).astype(np.float32, copy=False)
        float16 += _measured_half(numbers) if part.dtype == np.float32 else _expected_half(numbers)
        error, beyond = _int8(numbers)
        int8 += error if part.dtype != np.int8 else part.size * INT8_STEP**2 / 12
        saturated += beyond
    return Rounding(count=flat.size, float16=float16, int8=int8, saturated=saturated)


def merge_rounding(left: Rounding, right: Rounding) -> Rounding:
    """Return the sums over both."""
    return Rounding(
        count=left.count + right.count,
        float16=left.float16 + right.float16,
        int8=left.int8 + right.int8,
        saturated=left.saturated + right.saturated,
    )


def means(rounding: Rounding) -> RoundingStats:
    """Return sums as they are stored."""
    count = rounding.count
    return RoundingStats(
        numbers=count,
        float16=rounding.float16 / count,
        int8=rounding.int8 / count,
        saturated=rounding.saturated / count,
    )


def sums(stats: RoundingStats) -> Rounding:
    """Return the sums that were stored, for more to be merged in."""
    return Rounding(
        count=stats.numbers,
        float16=stats.float16 * stats.numbers,
        int8=stats.int8 * stats.numbers,
        saturated=round(stats.saturated * stats.numbers),
    )


def _measured_half(numbers: np.ndarray) -> float:
    error = numbers.astype(np.float16).astype(np.float32)
    error -= numbers
    return float(np.dot(error, error))


def _expected_half(numbers: np.ndarray) -> float:
    power = (numbers.view(np.int32) & _EXPONENT).view(np.float32)  # 2^⌊log₂|x|⌋
    np.maximum(power, _SMALLEST, out=power)
    return float(np.dot(power, power)) * _HALF_SPACING


def _int8(numbers: np.ndarray) -> tuple[float, int]:
    steps = np.divide(numbers, np.float32(INT8_STEP))
    np.rint(steps, out=steps)
    np.clip(steps, -INT8_LARGEST, INT8_LARGEST, out=steps)
    beyond = np.count_nonzero(steps == INT8_LARGEST) + np.count_nonzero(steps == -INT8_LARGEST)
    steps *= np.float32(INT8_STEP)
    steps -= numbers
    return float(np.dot(steps, steps)), int(beyond)
