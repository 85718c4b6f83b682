"""How far a teacher's summaries spread around their mean direction: two exact passes over the raw vectors.

    μ_y = E[y] / |E[y]|                (v4 eq 5, the first pass)
    Disp(Θ_y) = E[Θ(y, μ_y)²]          (v4 eq 6, the second pass)

In the second pass, μ_y is for each vector the mean direction of all the others: (Σy − y) / |Σy − y|. A mean that
contains the vector itself points towards it, so the dispersion of few vectors in many channels would be too small:
2.167 rad² instead of (π/2)² = 2.467 for 100 uniform directions in 1024 channels. For many vectors both are the same.

The mean direction and the dispersion are those of the training views, since the loss divides by the dispersion. Beside
it stands the mean squared angle of held-out summaries to the same mean direction.

Both passes produce sums that can be merged in any order.
"""

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float, Float64

from pipeline.phi_s.moments import refuse_rows
from storage_schemas.format.errors import ContractError, Problem

LEAST_RESULTANT = 1e-10
"""|Σy| / Σ|y| (unitless) up to which the vectors count as cancelling: a long sum is not more exact."""
LEAST_DISPERSION = 1e-12
"""Disp(Θ_y) (rad²) up to which the vectors count as all alike: float32 vectors are not more exact."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DirectionSum:
    """Result of the first pass."""

    count: int
    """Summaries."""
    total: Float64[np.ndarray, " channels"]
    """Σy (raw teacher units)."""
    length: float
    """Σ|y| (raw teacher units)."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AngleSum:
    """Result of the second pass."""

    count: int
    """Summaries."""
    squares: float
    """ΣΘ(y, μ_y)² (rad²)."""


def observe_direction(summaries: Float[np.ndarray, "rows channels"]) -> DirectionSum:
    """First pass: sum the raw vectors. As in eq 5, long vectors weigh more.

    Args:
        summaries: raw teacher units, not normalised.

    Raises:
        ContractError: rows of length zero, or with NaN or infinity; they are named by number.
    """
    lengths = _lengths(summaries)
    total = summaries.sum(axis=0, dtype=np.float64)
    return DirectionSum(count=len(summaries), total=total, length=float(lengths.sum()))


def merge_directions(left: DirectionSum, right: DirectionSum) -> DirectionSum:
    """Return the sums of two first passes together.

    Raises:
        ContractError: they differ in channels.
    """
    if left.total.size != right.total.size:
        found = f"{left.total.size} and {right.total.size} cannot be merged"
        raise ContractError("DirectionSum", [Problem(place="channels", found=found)])
    total, length = left.total + right.total, left.length + right.length
    return DirectionSum(count=left.count + right.count, total=total, length=length)


def mean_direction(directions: DirectionSum) -> Float64[np.ndarray, " channels"]:
    """Return μ_y, of unit length.

    Raises:
        ContractError: there are no summaries, or they cancel, so that there is no mean direction.
    """
    length = float(np.linalg.norm(directions.total))
    if length <= LEAST_RESULTANT * directions.length:
        found = f"the sum of {directions.count} vectors is zero: it has no direction"
        if not directions.count:
            found = "no training view has a summary: cut views with a smaller held-out share"
        raise ContractError("DirectionSum", [Problem(place="total", found=found)])
    return directions.total / length


def observe_angles(summaries: Float[np.ndarray, "rows channels"], directions: DirectionSum) -> AngleSum:
    """Second pass: sum the squared angles between each vector and the mean direction of all the others.

    Args:
        summaries: raw teacher units.
        directions: sum over all vectors, these among them.

    Raises:
        ContractError: rows of length zero, or with NaN or infinity; or there are no others, or these cancel. Rows are
            named by number.
    """
    lengths = _lengths(summaries)
    others = directions.total - summaries
    resultants = np.linalg.norm(others, axis=1)
    least = LEAST_RESULTANT * directions.length
    refuse_rows("A summary array", resultants <= least, "a vector without others that have a mean direction")
    angles = angles_between(summaries / lengths[:, None], others / resultants[:, None])
    return AngleSum(count=len(summaries), squares=float(np.square(angles).sum()))


def observe_angles_to(
    summaries: Float[np.ndarray, "rows channels"], direction: Float64[np.ndarray, " channels"]
) -> AngleSum:
    """Second pass over vectors that the mean direction does not contain: sum their squared angles to it.

    Args:
        summaries: raw teacher units.
        direction: μ_y, of unit length.

    Raises:
        ContractError: rows of length zero, or with NaN or infinity; they are named by number.
    """
    angles = angles_between(summaries / _lengths(summaries)[:, None], direction)
    return AngleSum(count=len(summaries), squares=float(np.square(angles).sum()))


def angles_between(
    units: Float[np.ndarray, "rows channels"], directions: Float[np.ndarray, "... channels"]
) -> Float64[np.ndarray, " rows"]:
    """Return Θ = 2 atan2(|ŷ − μ|, |ŷ + μ|) of unit vectors ŷ and μ: unlike an arc cosine it is exact near 0 and π.

    Args:
        units: a vector ŷ in each row.
        directions: μ, the same for all rows or one for each.
    """
    apart, along = np.linalg.norm(units - directions, axis=1), np.linalg.norm(units + directions, axis=1)
    return 2 * np.arctan2(apart, along)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SplitAngles:
    """Result of the second pass, of training and of held-out views."""

    train: AngleSum
    """Angles to the mean direction of all other training views."""
    heldout: AngleSum
    """Angles to the mean direction of all training views. None are counted where the splits are not kept apart."""


def merge_splits(left: SplitAngles, right: SplitAngles) -> SplitAngles:
    """Return the sums of two second passes together."""
    train = merge_angles(left.train, right.train)
    return SplitAngles(train=train, heldout=merge_angles(left.heldout, right.heldout))


def merge_angles(left: AngleSum, right: AngleSum) -> AngleSum:
    """Return the sums of two second passes together."""
    return AngleSum(count=left.count + right.count, squares=left.squares + right.squares)


def dispersion(angles: AngleSum) -> float:
    """Return Disp(Θ_y) (rad²).

    Raises:
        ContractError: there are no summaries, or all point the same way: the loss divides by the dispersion.
    """
    if angles.count < 1:
        raise ContractError("AngleSum", [Problem(place="count", found="expected at least one summary, there are none")])
    value = angles.squares / angles.count
    if value <= LEAST_DISPERSION:
        found = f"{value:.3g} rad²: all {angles.count} vectors point the same way"
        raise ContractError("AngleSum", [Problem(place="squares", found=found)])
    return value


def _lengths(summaries: Float[np.ndarray, "rows channels"]) -> Float64[np.ndarray, " rows"]:
    """Return |y| of every row; refuse rows that have no direction."""
    refuse_rows("A summary array", ~np.isfinite(summaries).all(axis=1), "NaN or infinity")
    lengths = np.linalg.norm(summaries.astype(np.float64), axis=1)
    refuse_rows("A summary array", lengths == 0, "a vector of length zero")
    return lengths
