"""Feature maps as colours: a teacher's first three principal components as red, green and blue."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float, Float64, UInt8

_RANGE = (0.02, 0.98)
"""Quantiles of a component that become black and full colour, so that a few outliers do not grey out the other
tokens."""
_LEAST = 1e-4
"""A component with a smaller range than this share of the first component is rounding noise, and stays grey."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Projection:
    """A projection of a teacher's features to colours, and of the student's features in the teacher's space."""

    mean: Float64[np.ndarray, " channels"]
    axes: Float64[np.ndarray, "channels 3"]
    """First three principal axes. The entry of largest magnitude of each is positive. Zero if the teacher has fewer
    channels."""
    low: Float64[np.ndarray, "3"]
    """Value of each component that is shown black."""
    high: Float64[np.ndarray, "3"]
    """Value of each component that is shown in full colour; equal to `low` for a component that is only noise."""

    def components(self, features: Float[np.ndarray, "rows cols channels"]) -> Float64[np.ndarray, "rows cols 3"]:
        """Return the three components of each token."""
        return (features.astype(np.float64) - self.mean) @ self.axes

    def colours(self, features: Float[np.ndarray, "rows cols channels"]) -> UInt8[np.ndarray, "rows cols 3"]:
        """Return each token as a colour. A component that is only noise has half its light everywhere."""
        spread = self.high - self.low
        light = (self.components(features) - self.low) / np.where(spread > 0, spread, 1)
        return np.round(255 * np.where(spread > 0, np.clip(light, 0, 1), 0.5)).astype(np.uint8)


def fit_projection(features: Sequence[Float[np.ndarray, "_ _ channels"]]) -> Projection:
    """Fit a projection to the tokens of some views.

    Args:
        features: at least one grid of tokens, all in the same unit.
    """
    count = sum(grid.shape[0] * grid.shape[1] for grid in features)
    mean = sum(grid.sum(axis=(0, 1), dtype=np.float64) for grid in features) / count
    scatter = np.zeros((mean.size, mean.size))
    for grid in features:  # in turn, not all at once: 72 × 72 tokens of 4096 channels are 170 MB in float64
        centred = grid.reshape(-1, mean.size).astype(np.float64) - mean
        scatter += centred.T @ centred
    blank = Projection(mean=mean, axes=_first_axes(scatter), low=np.zeros(3), high=np.zeros(3))
    components = np.concatenate([blank.components(grid).reshape(-1, 3) for grid in features])
    low, high = np.quantile(components, _RANGE, axis=0)
    is_signal = high - low > _LEAST * (high - low).max()
    return Projection(mean=mean, axes=blank.axes, low=low, high=np.where(is_signal, high, low))


def _first_axes(scatter: Float64[np.ndarray, "channels channels"]) -> Float64[np.ndarray, "channels 3"]:
    _, vectors = np.linalg.eigh(scatter)
    axes = np.zeros((len(scatter), 3))
    found = vectors[:, ::-1][:, :3]
    largest = np.take_along_axis(found, np.abs(found).argmax(axis=0)[None], axis=0)
    axes[:, : found.shape[1]] = found * np.sign(largest)
    return axes
