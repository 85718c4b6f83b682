"""Fitting PHI-S: from the moments of a teacher's features to the map that is frozen."""

import numpy as np

from pipeline.phi_s.hadamard import hadamard
from pipeline.phi_s.moments import Moments
from pipeline.phi_s.spectrum import principal_axes
from storage_schemas.format.phi_s import PhiS


def fit_phi_s(moments: Moments) -> PhiS:
    """Fit the rotation and the single scale of PHI-S.

    Let Σ = U Λ Uᵀ be the covariance and H an orthogonal Hadamard matrix. Every entry of H is ±1/√C, so every diagonal
    entry of H Λ Hᵀ is φ² = tr(Λ) / C, and one number standardises all channels:

        stored = φ⁻¹ H Uᵀ (raw − μ)

    Row i of H holds the signs with which stored channel i sums the principal axes. The columns of H, like those of U,
    are in the order of falling variance.

    Source: Ranzinger et al. 2024, arXiv:2410.01680.

    Args:
        moments: of a sample of the teacher's spatial features, in raw units.

    Returns:
        The map, with μ and φ in raw units.

    Raises:
        ContractError: fewer than two rows, or a total variance of zero.
        SettingError: there is no Hadamard matrix for this many channels.
    """
    mixing = hadamard(moments.mean.size)
    principal = principal_axes(moments)
    scale = float(np.sqrt(principal.variances.mean()))
    return PhiS(mean=moments.mean, rotation=mixing @ principal.axes.T, scale=scale)
