"""What `make stats` measures over all stored features of a teacher, and the rules by which it is judged."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import final

import numpy as np
from jaxtyping import Float64

from storage_schemas.format.encodings import MeasuredEncoding
from storage_schemas.format.errors import ContractError, Problem
from storage_schemas.format.views import ViewSet

TOLERANCE = 0.2
"""Residual (unitless) above which PHI-S is off. A spatial loss weighs teachers by the second moment of their features,
so a residual of 0.2 changes a teacher's weight by about a fifth. A fit on 1,000 views whose tokens are all alike leaves
a quarter of that by chance (√(2/1000) = 0.045 of a variance); without PHI-S, teachers differ by a factor of a hundred.
The papers give no such number."""
POOLED = "all"
"""The name that stands for all view sets together."""
PAPER_DISPERSIONS: Mapping[str, float] = MappingProxyType(
    {"SigLIP2-g-384": 0.694, "DINOv3-H+": 2.120, "DINOv3-7B": 2.186}
)
"""Disp(Θ_y) (rad²) in Table 3 of the C-RADIOv4 report, by the report's names of the models."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RoundingStats:
    """What is lost by storing features in fewer bits, over all channels."""

    numbers: int
    """Numbers that were sampled."""
    float16: float
    """Mean squared error of `float16` (PHI-S units squared)."""
    int8: float
    """Mean squared error of `int8` (PHI-S units squared)."""
    saturated: float
    """Share of the numbers that reach or exceed the largest that `int8` holds."""

    def array(self) -> Float64[np.ndarray, "4"]:
        """Return the four values as they are stored."""
        return np.array([float(self.numbers), self.float16, self.int8, self.saturated])

    @classmethod
    def from_array(cls, values: Float64[np.ndarray, "..."], place: str) -> "RoundingStats":
        """Read `array()` back.

        Raises:
            ContractError: it has another shape, or a negative number.
        """
        if values.shape != (4,) or (values < 0).any() or values[0] < 1:
            found = f"{values.tolist()} are not a count and three numbers of at least 0"
            raise ContractError("statistics", [Problem(place=place, found=found)])
        numbers, float16, int8, saturated = values.tolist()
        return cls(numbers=int(numbers), float16=float16, int8=int8, saturated=saturated)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChannelStats:
    """First two moments of stored spatial features, over all tokens that were counted."""

    tokens: int
    """Tokens counted."""
    mean: Float64[np.ndarray, " channels"]
    """Mean of each channel (PHI-S units): 0 where the fit is perfect."""
    variance: Float64[np.ndarray, " channels"]
    """Variance of each channel (PHI-S units squared): 1 where the fit is perfect."""
    spectrum: Float64[np.ndarray, " channels"]
    """Eigenvalues of the covariance (PHI-S units squared), the largest first, none below zero. Times φ² they are in raw
    units."""
    rounding: RoundingStats
    """What is lost by encodings."""

    def fidelity(self, encoding: MeasuredEncoding) -> float | None:
        """Return the fidelity of an encoding: F = Var[t] / MSE, or None where it changes nothing.

        Source: v2.5 eq 8, with the encoded feature in place of the student's.

        Args:
            encoding: how the features are stored.
        """
        error = {"float32": 0.0, "float16": self.rounding.float16, "int8": self.rounding.int8}[encoding]
        return float(np.mean(self.variance)) / error if error else None

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
        """Root mean square over channels of the variance less 1 (PHI-S units squared): channels do not cancel."""
        return float(np.sqrt(np.mean((self.variance - 1) ** 2)))

    @property
    def residual(self) -> float:
        """How far the features are from zero mean and unit variance: the greater of the two norms over channels.

            max(√mean(μ²), √mean((σ² − 1)²))

        Both are norms, so a channel that is too large and one that is too small add up and do not cancel.
        """
        return max(self.mean_residual, self.variance_deviation)

    def is_off(self, tolerance: float = TOLERANCE) -> bool:
        """Say whether PHI-S is off: the one rule of `stats`, `inspect` and the report.

        Args:
            tolerance: the largest residual that is accepted (unitless).
        """
        return self.residual > tolerance


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
    """Over each view set that holds views."""
    dispersion: float | None
    """Disp(Θ_y) of v4 eq 6 (rad²) over raw summaries of the training views; None for a teacher without a summary."""
    mean_direction: Float64[np.ndarray, " summary_channels"] | None
    """μ_y of v4 eq 5, unit length; None for a teacher without a summary."""
    training_views: int | None = None
    """Views that `dispersion` and `mean_direction` are over: the training views. None for a teacher without a summary,
    and for statistics of earlier versions: theirs are over all views, and new shards join them so."""
    heldout_dispersion: float | None = None
    """Mean squared angle of held-out summaries to `mean_direction` (rad²). None without a summary, without held-out
    views, and for statistics of earlier versions."""
    arrays: Mapping[str, str]
    """Path of each array in the group of the statistics → its SHA-256."""

    def unmeasured(self, shards: Mapping[ViewSet, int]) -> int:
        """Return how many shards were added after these statistics were measured.

        Args:
            shards: how many shards each set has.
        """
        return sum(
            len(set(range(count)) - self.shards.get(view_set, frozenset())) for view_set, count in shards.items()
        )


def shard_runs(shards: Iterable[int]) -> list[list[int]]:
    """Return shard numbers as runs `[first, stop)`: short, JSON-ready."""
    runs: list[list[int]] = []
    for shard in sorted(shards):
        if runs and runs[-1][1] == shard:
            runs[-1][1] = shard + 1
        else:
            runs.append([shard, shard + 1])
    return runs


def shards_of_runs(runs: Sequence[Sequence[int]], place: str) -> frozenset[int]:
    """Return the shard numbers of runs.

    Args:
        runs: as `shard_runs` returns them.
        place: where they are stored, for the error.

    Raises:
        ContractError: they are not what `shard_runs` returns.
    """
    shards = frozenset(shard for first, stop in runs for shard in range(first, stop))
    if shard_runs(shards) != [list(run) for run in runs]:
        problem = Problem(
            place=place, found=f"{runs} are not runs of shards: in order, apart from one another, none empty"
        )
        raise ContractError("statistics", [problem])
    return shards


def effective_rank(variances: Float64[np.ndarray, " channels"]) -> float:
    """Return how many equal variances would be spread as widely as these.

        exp(−Σ pᵢ ln pᵢ),   pᵢ = λᵢ / Σλ

    Source: Roy and Vetterli 2007, "The effective rank: a measure of effective dimensionality".

    Args:
        variances: λ along the principal axes (any unit).

    Returns:
        Axes: from 1, where all variance lies along one axis, to the number of channels; 0 where there is no variance.
    """
    if not variances.any():
        return 0.0
    shares = variances[variances > 0] / variances.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))
