"""Choosing the latents of a teacher from the covariance of its features in PHI-S units."""

import numpy as np
from jaxtyping import Float64

from pipeline.phi_s.hadamard import hadamard
from pipeline.phi_s.moments import Moments, covariance
from storage_schemas.format.latents import Latents, fit_latents
from storage_schemas.format.phi_s import PhiS


def latents_of(covariance_of: Float64[np.ndarray, "channels channels"], fidelity: float) -> Latents:
    """Choose the latents at which features of a covariance are stored.

    The latents of x = H z are z = Hᵀ x, so their variances are the diagonal of Hᵀ Σ H.

    Args:
        covariance_of: Σ (PHI-S units squared).
        fidelity: at which they are to be stored (unitless).

    Raises:
        SettingError: there is no Hadamard matrix for this many channels.
    """
    mixing = hadamard(len(covariance_of))
    variances = np.einsum("ck,ck->k", mixing, covariance_of @ mixing)
    return fit_latents(np.maximum(variances, 0), mixing, fidelity)


def latents_of_raw(moments: Moments, phi_s: PhiS, fidelity: float) -> Latents:
    """Choose the latents of features whose moments are in raw units.

    Args:
        moments: of the sample that PHI-S was fitted on (raw teacher units).
        phi_s: the fitted map.
        fidelity: as for `latents_of`.
    """
    forward = phi_s.rotation / phi_s.scale
    return latents_of(forward @ covariance(moments) @ forward.T, fidelity)
