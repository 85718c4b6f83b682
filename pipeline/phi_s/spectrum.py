"""The principal axes of a teacher's features, and how many of them matter."""

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float64

from pipeline.phi_s.moments import Moments, covariance
from storage_schemas.format.errors import ContractError, Problem


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PrincipalAxes:
    """Σ = U Λ Uᵀ: the variances along the axes of a distribution, greatest first, and the axes."""

    variances: Float64[np.ndarray, " channels"]
    """λ, the diagonal of Λ (the rows' unit squared): falling, none below zero."""
    axes: Float64[np.ndarray, "channels channels"]
    """U (unitless): column i is the axis of `variances[i]`; its component of largest size is positive."""


def principal_axes(moments: Moments) -> PrincipalAxes:
    """Decompose the covariance, in float64 on the CPU.

    Rounding makes the eigenvalues of a rank-deficient covariance slightly negative; they are set to zero.

    Raises:
        ContractError: fewer than two rows, or a total variance of zero.
    """
    matrix = covariance(moments)
    if not np.trace(matrix) > 0:
        raise ContractError(
            "Moments", [Problem(place="scatter", found="the total variance is zero: all rows are alike")]
        )
    eigenvalues, eigenvectors = np.linalg.eigh(matrix)
    largest = np.take_along_axis(eigenvectors, np.abs(eigenvectors).argmax(axis=0)[None], axis=0)
    axes = eigenvectors * np.sign(largest)
    return PrincipalAxes(variances=np.maximum(eigenvalues[::-1], 0), axes=axes[:, ::-1])


def spectrum(moments: Moments) -> Float64[np.ndarray, " channels"]:
    """Return the variances along the principal axes, as `principal_axes` does, where the axes are not wanted.

    Unlike it, this takes rows that are all alike: their spectrum is zero.

    Raises:
        ContractError: fewer than two rows.
    """
    return np.maximum(np.linalg.eigvalsh(covariance(moments))[::-1], 0)


def effective_rank(variances: Float64[np.ndarray, " channels"]) -> float:
    """Return exp(−Σ pᵢ ln pᵢ) with pᵢ = λᵢ / Σλ (axes): the count of equal variances that would be as spread out.

    Source: Roy and Vetterli 2007, "The effective rank: a measure of effective dimensionality".

    Args:
        variances: λ along the principal axes (any unit).

    Returns:
        Axes: from 1, where all variance lies along one, to the number of channels; 0 where there is no variance.
    """
    if not variances.any():
        return 0.0
    shares = variances[variances > 0] / variances.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))
