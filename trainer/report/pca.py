"""Feature maps as colours: a teacher's first three principal components as red, green and blue."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float, Float64, UInt8

_RANGE = (0.02, 0.98)
"""Quantiles of a component that become no light and full light: a few outlying tokens must not grey out the rest."""
_LEAST = 1e-4
"""A component that spreads less than this share of the first shows rounding, not features: it stays grey."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Projection:
    """From a teacher's features to colours. The student's features in the teacher's space take the same way."""

    mean: Float64[np.ndarray, " channels"]
    axes: Float64[np.ndarray, "channels 3"]
    """Principal axes, first to third; the entry of each that is largest in size is positive. Zero where a teacher has
    fewer channels."""
    low: Float64[np.ndarray, "3"]
    """Where each component has no light."""
    high: Float64[np.ndarray, "3"]
    """Where each component has full light; equal to `low` for one that says nothing."""

    def components(self, features: Float[np.ndarray, "rows cols channels"]) -> Float64[np.ndarray, "rows cols 3"]:
        """Return the three components of each token."""
        return (features.astype(np.float64) - self.mean) @ self.axes

    def colours(self, features: Float[np.ndarray, "rows cols channels"]) -> UInt8[np.ndarray, "rows cols 3"]:
        """Return each token as a colour; a component that says nothing is half light everywhere."""
        spread = self.high - self.low
        light = (self.components(features) - self.low) / np.where(spread > 0, spread, 1)
        return np.round(255 * np.where(spread > 0, np.clip(light, 0, 1), 0.5)).astype(np.uint8)


def fit_projection(maps: Sequence[Float[np.ndarray, "_ _ channels"]]) -> Projection:
    """Fit a projection to the tokens of some feature maps.

    Args:
        maps: at least one, in any but the same unit.
    """
    count = sum(one.shape[0] * one.shape[1] for one in maps)
    mean = sum(one.sum(axis=(0, 1), dtype=np.float64) for one in maps) / count
    scatter = np.zeros((mean.size, mean.size))
    for one in maps:  # one at a time: a map of 72 × 72 tokens of 4096 channels is 170 MB in float64
        centred = one.reshape(-1, mean.size).astype(np.float64) - mean
        scatter += centred.T @ centred
    blank = Projection(mean=mean, axes=_first_axes(scatter), low=np.zeros(3), high=np.zeros(3))
    components = np.concatenate([blank.components(one).reshape(-1, 3) for one in maps])
    low, high = np.quantile(components, _RANGE, axis=0)
    says_something = high - low > _LEAST * (high - low).max()
    return Projection(mean=mean, axes=blank.axes, low=low, high=np.where(says_something, high, low))


def _first_axes(scatter: Float64[np.ndarray, "channels channels"]) -> Float64[np.ndarray, "channels 3"]:
    _, vectors = np.linalg.eigh(scatter)
    axes = np.zeros((len(scatter), 3))
    found = vectors[:, ::-1][:, :3]
    largest = np.take_along_axis(found, np.abs(found).argmax(axis=0)[None], axis=0)
    axes[:, : found.shape[1]] = found * np.sign(largest)
    return axes
