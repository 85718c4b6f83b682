"""PHI-S: one rotation and one scale that standardise every channel of a teacher's features, and their inverse."""

import hashlib
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float, Float32, Float64

from storage_schemas.format.errors import ContractError, Problem


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PhiS:
    """A fitted and frozen PHI-S map.

        stored = φ⁻¹ R (raw − μ),   raw = φ Rᵀ stored + μ,   R = H Uᵀ

    It is fitted once per teacher and never again: eigenvectors change between fits, and every target would change with
    them.

    Source: Ranzinger et al. 2024, arXiv:2410.01680; v2.5 eq 7.
    """

    mean: Float64[np.ndarray, " channels"]
    """μ (raw teacher units)."""
    rotation: Float64[np.ndarray, "channels channels"]
    """R = H Uᵀ (unitless, orthogonal)."""
    scale: float
    """φ (raw teacher units): the root of the mean eigenvalue."""

    def __post_init__(self) -> None:
        problems = []
        if not np.isfinite(self.mean).all() or not np.isfinite(self.rotation).all():
            problems.append(Problem(place="phi_s", found="mean or rotation holds NaN or infinity"))
        if not (np.isfinite(self.scale) and self.scale > 0):
            problems.append(Problem(place="phi_s/scale", found=f"{self.scale} is not a positive number"))
        if self.rotation.shape != (self.mean.size, self.mean.size):
            found = f"{self.rotation.shape} does not fit {self.mean.size} channels"
            problems.append(Problem(place="phi_s/rotation", found=found))
        if problems:
            raise ContractError("PHI-S", problems)

    @property
    def forward_weight(self) -> Float32[np.ndarray, "channels channels"]:
        """W with stored = (raw − μ) Wᵀ, for row vectors: φ⁻¹ R in float32."""
        return (self.rotation / self.scale).astype(np.float32)

    @property
    def inverse_weight(self) -> Float32[np.ndarray, "channels channels"]:
        """V with raw = stored Vᵀ + μ, for row vectors: φ Rᵀ in float32."""
        return (self.rotation.T * self.scale).astype(np.float32)


def phi_s_digest(phi_s: PhiS) -> str:
    """Return the SHA-256 (hexadecimal) of a map's float64 bytes: mean, rotation, scale."""
    parts = (phi_s.mean, phi_s.rotation, np.float64(phi_s.scale))
    return hashlib.sha256(b"".join(np.asarray(part, dtype="<f8").tobytes() for part in parts)).hexdigest()


def to_stored(phi_s: PhiS, raw: Float[np.ndarray, "*rows channels"]) -> Float32[np.ndarray, "*rows channels"]:
    """Map raw teacher features to PHI-S units.

        stored = φ⁻¹ R (raw − μ)

    Args:
        phi_s: the teacher's frozen map.
        raw: features (raw teacher units), channels last.

    Returns:
        The same features (PHI-S units), in float32.
    """
    return (raw.astype(np.float32) - phi_s.mean.astype(np.float32)) @ phi_s.forward_weight.T


def to_raw(phi_s: PhiS, stored: Float[np.ndarray, "*rows channels"]) -> Float32[np.ndarray, "*rows channels"]:
    """Map stored features back to raw teacher units: the inverse of `to_stored`.

        raw = φ Rᵀ stored + μ

    Args:
        phi_s: the teacher's frozen map.
        stored: features (PHI-S units), channels last.

    Returns:
        The same features (raw teacher units), in float32.
    """
    return stored.astype(np.float32) @ phi_s.inverse_weight.T + phi_s.mean.astype(np.float32)
