"""What `make stats` measures over everything that a teacher stored."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float64

from storage_schemas.views import ViewSet


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChannelStats:
    """First two moments of stored spatial features, per channel, over every token counted."""

    tokens: int
    """Tokens counted."""
    mean: Float64[np.ndarray, " channels"]
    """Mean (PHI-S units): 0 where the fit is perfect."""
    variance: Float64[np.ndarray, " channels"]
    """Variance (PHI-S units squared): 1 where the fit is perfect."""

    @property
    def mean_residual(self) -> float:
        """Root mean square over channels of the mean (PHI-S units)."""
        return float(np.sqrt(np.mean(self.mean**2)))

    @property
    def variance_residual(self) -> float:
        """Mean over channels of the variance, less 1 (PHI-S units squared)."""
        return float(np.mean(self.variance) - 1)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TeacherStats:
    """Statistics of one teacher's features."""

    identity: str
    """Digest of the features that were measured."""
    views: int
    """Views measured, over all sets."""
    pooled: ChannelStats
    """Over all view sets together."""
    sets: Mapping[ViewSet, ChannelStats]
    """Each view set on its own."""
    dispersion: float | None
    """Disp(Θ_y) of v4 eq 6 (rad²) over raw summaries; None for a teacher without a summary."""
    mean_direction: Float64[np.ndarray, " summary_channels"] | None
    """μ_y of v4 eq 5, unit length; None for a teacher without a summary."""
