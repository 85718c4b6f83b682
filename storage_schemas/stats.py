"""What `make stats` measures over everything that a teacher stored."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float64

from storage_schemas.errors import ContractError, Problem
from storage_schemas.views import ViewSet


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChannelStats:
    """First two moments of stored spatial features over every token counted."""

    tokens: int
    """Tokens counted."""
    mean: Float64[np.ndarray, " channels"]
    """Mean of each channel (PHI-S units): 0 where the fit is perfect."""
    variance: Float64[np.ndarray, " channels"]
    """Variance of each channel (PHI-S units squared): 1 where the fit is perfect."""
    spectrum: Float64[np.ndarray, " channels"]
    """Eigenvalues of the covariance (PHI-S units squared), falling, none below zero; times φ² in raw units."""

    @property
    def mean_residual(self) -> float:
        """Root mean square over channels of the mean (PHI-S units)."""
        return float(np.sqrt(np.mean(self.mean**2)))

    @property
    def variance_residual(self) -> float:
        """Mean over channels of the variance, less 1 (PHI-S units squared)."""
        return float(np.mean(self.variance) - 1)

    @property
    def variance_deviation(self) -> float:
        """Root mean square over channels of the variance less 1 (PHI-S units squared): deviations do not cancel."""
        return float(np.sqrt(np.mean((self.variance - 1) ** 2)))


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TeacherStats:
    """Statistics of one teacher's features."""

    identity: str
    """Digest of the features that were measured."""
    views: int
    """Views measured, over all sets."""
    shards: Mapping[ViewSet, frozenset[int]]
    """Shards measured, of each set."""
    pooled: ChannelStats
    """Over all view sets together."""
    sets: Mapping[ViewSet, ChannelStats]
    """Each view set that holds views on its own."""
    dispersion: float | None
    """Disp(Θ_y) of v4 eq 6 (rad²) over raw summaries; None for a teacher without a summary."""
    mean_direction: Float64[np.ndarray, " summary_channels"] | None
    """μ_y of v4 eq 5, unit length; None for a teacher without a summary."""
    arrays: Mapping[str, str]
    """SHA-256 of each array that was written with these, by its path in their group."""

    def unmeasured(self, shards: Mapping[ViewSet, int]) -> int:
        """Return how many shards came after these were measured.

        Args:
            shards: how many shards each set has.
        """
        return sum(
            len(set(range(count)) - self.shards.get(view_set, frozenset())) for view_set, count in shards.items()
        )


def shard_runs(shards: Iterable[int]) -> list[list[int]]:
    """Return shard numbers as `[first, stop)` runs, as statistics name what they measured: JSON-ready and short."""
    runs: list[list[int]] = []
    for shard in sorted(shards):
        if runs and runs[-1][1] == shard:
            runs[-1][1] = shard + 1
        else:
            runs.append([shard, shard + 1])
    return runs


def shards_of_runs(runs: Sequence[Sequence[int]], place: str) -> frozenset[int]:
    """Return the shard numbers of runs.

    Raises:
        ContractError: they are not what `shard_runs` gives.
    """
    shards = frozenset(shard for first, stop in runs for shard in range(first, stop))
    if shard_runs(shards) != [list(run) for run in runs]:
        problem = Problem(place=place, found=f"{runs} are no runs of shards: rising, apart, none empty")
        raise ContractError("statistics", [problem])
    return shards
