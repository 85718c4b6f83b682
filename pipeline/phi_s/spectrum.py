"""The principal axes of a teacher's features, and the variances along them."""

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float64

from pipeline.phi_s.moments import Moments, covariance
from storage_schemas.format.errors import ContractError, Problem


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PrincipalAxes:
    """The decomposition Σ = U Λ Uᵀ of a covariance: axes, and the variances along them, greatest first."""

    variances: Float64[np.ndarray, " channels"]
    """λ, the diagonal of Λ (the rows' unit squared), in falling order; none is negative."""
    axes: Float64[np.ndarray, "channels channels"]
    """U (unitless): column i is the axis of `variances[i]`; its component of largest size is positive."""


def principal_axes(moments: Moments) -> PrincipalAxes:
    """Decompose the covariance, in float64 on the CPU.

    Rounding can make eigenvalues of a rank-deficient covariance slightly negative; these are set to zero.

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
    """Return the variances along the principal axes, without the axes themselves.

    Unlike `principal_axes`, this accepts rows that are all alike: their spectrum is zero.

    Raises:
        ContractError: fewer than two rows.
    """
    return np.maximum(np.linalg.eigvalsh(covariance(moments))[::-1], 0)
