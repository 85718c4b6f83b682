"""The squared error that each encoding causes by rounding: measured where that is possible, else expected.

The features were rounded to their own encoding before they were stored. The error of an encoding with fewer bits is
measured on them. The error of their own encoding, or of one with more bits, cannot be measured any more; it is expected
to be what rounding to the nearest number causes on average, if the original numbers lay anywhere between two stored
neighbours δ apart:

    E[e²] = δ² / 12

δ is the step of `int8`, or the distance from a `float16` to the next one of larger size: 2^(max(⌊log₂|x|⌋, −14) − 10).
Source: Widrow and Kollár 2008, "Quantization Noise"; tests compare it with `float32` features of the same teacher.

One token in `EVERY` is sampled. A mean over so many numbers needs no more, and all tokens would take a quarter of the
time of the moments.
"""

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Shaped

from storage_schemas.format.encodings import INT8_LARGEST, INT8_STEP, Coding, as_numbers
from storage_schemas.format.stats import RoundingStats

EVERY = 11
"""One token in 11 is sampled. 11 is coprime to every grid side in use, so all columns are covered."""
_FLOATS = Coding(encoding="float32")
AT_ONCE = 2**16
"""Numbers processed together: intermediate results stay in the processor's cache."""
_EXPONENT = np.int32(0x7F800000)
"""The bits of a float32 that hold its exponent."""
_SMALLEST = np.float32(2.0**-14)
"""Smallest normal float16: the spacing of smaller numbers is the same as at this one."""
_HALF_SPACING = 2.0**-20 / 12
"""δ² / 12 of a float16 between 1 and 2."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RoundingSums:
    """Sums over sampled numbers (PHI-S units). They merge by addition."""

    count: int
    """Numbers."""
    float16: float
    """Σ e² of `float16` (PHI-S units squared): measured on `float32` features, else expected."""
    int8: float
    """Σ e² of `int8` (PHI-S units squared): measured, saturation included; on `int8` features expected, without it."""
    saturated: int
    """Numbers at or beyond the largest value of `int8`."""


def observe_rounding(stored: Shaped[np.ndarray, "tokens channels"], coding: Coding) -> RoundingSums:
    """Sum the rounding errors over a sample of stored tokens. The first token is in the sample.

    Args:
        stored: as they are stored.
        coding: what they stand for. The step of `int8` is that of `int8` features, else the finest.
    """
    step = coding.step if coding.encoding == "int8" else INT8_STEP
    sampled = stored[::EVERY]
    if coding.latents is not None:  # these are numbers of all channels together
        sampled, coding = as_numbers(sampled, coding), _FLOATS
        return _sums(sampled.reshape(-1), coding, step, expected=True)
    return _sums(sampled.reshape(-1), coding, step, expected=sampled.dtype != np.float32)


def _sums(flat: np.ndarray, coding: Coding, step: float, *, expected: bool) -> RoundingSums:
    """Sum the rounding errors over numbers; `expected` where the error of `float16` cannot be measured."""
    float16, int8, saturated = 0.0, 0.0, 0
    for start in range(0, flat.size, AT_ONCE):
        part = flat[start : start + AT_ONCE]
        numbers = as_numbers(part, coding).astype(np.float32, copy=False)
        float16 += _expected_half(numbers) if expected else _measured_half(numbers)
        error, beyond = _int8(numbers, step)
        int8 += error if part.dtype != np.int8 else part.size * step**2 / 12
        saturated += beyond
    return RoundingSums(count=flat.size, float16=float16, int8=int8, saturated=saturated)


def merge_rounding(left: RoundingSums, right: RoundingSums) -> RoundingSums:
    """Return the sums over the numbers of both."""
    return RoundingSums(
        count=left.count + right.count,
        float16=left.float16 + right.float16,
        int8=left.int8 + right.int8,
        saturated=left.saturated + right.saturated,
    )


def mean_rounding(rounding: RoundingSums) -> RoundingStats:
    """Return the means that are stored of sums."""
    count = rounding.count
    return RoundingStats(
        numbers=count,
        float16=rounding.float16 / count,
        int8=rounding.int8 / count,
        saturated=rounding.saturated / count,
    )


def rounding_sums(stats: RoundingStats) -> RoundingSums:
    """Return the sums behind stored means, so that others can be merged in."""
    return RoundingSums(
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


def _int8(numbers: np.ndarray, step: float) -> tuple[float, int]:
    steps = np.divide(numbers, np.float32(step))
    np.rint(steps, out=steps)
    np.clip(steps, -INT8_LARGEST, INT8_LARGEST, out=steps)
    beyond = np.count_nonzero(steps == INT8_LARGEST) + np.count_nonzero(steps == -INT8_LARGEST)
    steps *= np.float32(step)
    steps -= numbers
    return float(np.dot(steps, steps)), int(beyond)
